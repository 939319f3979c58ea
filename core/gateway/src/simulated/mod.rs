//! Whole gateway sessions on the simulated engine: agents and a target over a
//! seeded network in virtual time, with the real policy, masker, recorder and
//! control plane between them.
//!
//! A run that fails names its seed; `SIM_SEED=N` runs that seed alone.

mod agent;
mod model;
mod script;
mod tests;
mod world;
