//! Hands libFuzzer's input to `portcullis_fuzz::masking_cuts`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::masking_cuts::run(data));
