//! Hands libFuzzer's input to `portcullis_fuzz::pg_session`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::pg_session::run(data));
