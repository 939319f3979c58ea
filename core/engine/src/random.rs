//! Randomness: the operating system's through aws-lc-rs, or the simulation's seed.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use crate::shard::try_current;

/// Fills `buffer` with random bytes fit for keys; in a simulation with bytes that
/// follow from its seed. May be called from any thread.
///
/// # Panics
/// If the operating system cannot give randomness: nothing safe could go on.
pub fn fill_random(buffer: &mut [u8]) {
    if let Some(shard) = try_current()
        && let Some(sim) = shard.driver.sim()
    {
        sim.fill_random(buffer);
        return;
    }
    SystemRandom::new()
        .fill(buffer)
        .expect("the operating system gives no randomness");
}
