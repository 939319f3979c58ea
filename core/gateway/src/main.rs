//! Portcullis: one program in the data path between agents and infrastructure.
//!
//! This crate is where all parts meet: the command line, the configuration,
//! the shards with their listeners, and the sessions that join a protocol
//! machine, the policy, the masker, the recorder and the control plane.

mod cli;
mod config;
mod pg;
mod serve;
#[cfg(test)]
mod simulated;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
