//! Hands libFuzzer's input to `portcullis_fuzz::record_read`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::record_read::run(data));
