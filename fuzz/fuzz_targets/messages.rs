//! What a hostile server sends: `cargo fuzz run messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| diesel_neon::fuzzing::messages(input));
