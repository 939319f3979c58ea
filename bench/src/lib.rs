//! Benchmarks that join several crates through their public doors; those of
//! one crate live in that crate's `benches/`.
//!
//! `cargo bench -p portcullis-bench` prints what one query costs in our own
//! code, without sockets: see `benches/query_path.rs`. Whole programs beside
//! named peers are measured by `make bench` (`bench/postgres/run`).
