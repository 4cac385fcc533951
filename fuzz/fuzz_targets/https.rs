//! Answers of a hostile server over HTTPS, and SQL and values to be sent there: `cargo fuzz run https`, from the package's own
//! folder.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| diesel_neon::fuzzing::https(input));
