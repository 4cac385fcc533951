//! WebSocket frames of a hostile server: `cargo fuzz run frames fuzz/corpus/frames src/fuzzing/frames`, from the package's
//! own folder; new inputs go to the first folder.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| diesel_neon::fuzzing::frames(input));
