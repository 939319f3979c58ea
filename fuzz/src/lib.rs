//! What the fuzz targets do, each as a plain function over bytes, so that the same code
//! runs under libFuzzer (`fuzz_targets/`), in `tests/replay.rs` and in a debugger.
//!
//! A target panics where an invariant is broken, and only there: malformed input is what
//! it is made for. How to run, and how to add one: `README.md`.
#![forbid(unsafe_code)]

pub mod config;
pub mod input;
pub mod masking_cuts;
pub mod pg_downstream_login;
pub mod pg_frames;
pub mod pg_session;
pub mod pg_startup;
pub mod pg_upstream_login;
pub mod proxy_protocol;
pub mod record_read;

/// A target: its name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, by the name of its corpus.
pub const TARGETS: &[Target] = &[
    ("config", config::run),
    ("masking_cuts", masking_cuts::run),
    ("pg_downstream_login", pg_downstream_login::run),
    ("pg_frames", pg_frames::run),
    ("pg_session", pg_session::run),
    ("pg_startup", pg_startup::run),
    ("pg_upstream_login", pg_upstream_login::run),
    ("proxy_protocol", proxy_protocol::run),
    ("record_read", record_read::run),
];
