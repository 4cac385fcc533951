//! What a hostile server sends: `cargo fuzz run messages fuzz/corpus/messages src/fuzzing/corpus`, from the
//! package's own folder; what is found goes to the first.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| diesel_neon::fuzzing::messages(input));
