//! The recorder from outside: bodies, archives, verify, rings, caps and crashes.

mod archive;
mod bodies;
mod caps;
mod common;
mod durability;
mod format;
mod loom_wake;
mod rings;
mod tamper;
