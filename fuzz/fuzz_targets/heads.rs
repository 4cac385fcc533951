//! HTTP/1.1 answers of a hostile server or proxy: `cargo fuzz run heads fuzz/corpus/heads src/fuzzing/heads`, from the
//! package's own folder; new inputs go to the first folder.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| diesel_neon::fuzzing::heads(input));
