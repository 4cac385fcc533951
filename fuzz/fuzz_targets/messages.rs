//! Messages of a hostile server: `cargo fuzz run messages fuzz/corpus/messages src/fuzzing/corpus`, from the
//! package's own folder; new inputs go to the first folder.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| diesel_neon::fuzzing::messages(input));
