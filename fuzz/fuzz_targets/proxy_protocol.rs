//! Hands libFuzzer's input to `portcullis_fuzz::proxy_protocol`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::proxy_protocol::run(data));
