//! The engine's behaviour through its public door, on the ring and in the simulation.

#[path = "../common/mod.rs"]
mod common;

mod integrity;
mod lifecycle;
mod plain;
mod simulated;
mod tls;
