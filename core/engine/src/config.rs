//! What the starter of shards may choose, with the limits of each value.

use std::time::Duration;

use crate::error::EngineError;

/// How shards are started. `Default` is sane for production on one core.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// How many shards, 1 to 1024; each is one thread. Default 1.
    pub shards: usize,
    /// Pin shard `i` to core `i`. Default true; tests say false.
    pub pin: bool,
    /// The read buffers of each shard.
    pub buffers: BufferConfig,
    /// The standing tick under traffic, in milliseconds, 1 to 1000. Default 5:
    /// the longest that glommio's own timers and files wait beside busy sockets.
    pub tick_ms: u64,
    /// Threads of the helper pool behind `offload`, shared by all shards, 1 to 256.
    /// Default 2.
    pub helper_threads: usize,
    /// How long a dropped connection may take to flush what is queued and see the
    /// peer close, in milliseconds, up to 60 000. Default 2000.
    pub linger_ms: u64,
    /// How long a shard whose `main` has returned waits for queued bytes to leave,
    /// in milliseconds, up to 60 000. Default 500.
    pub drain_ms: u64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            shards: 1,
            pin: true,
            buffers: BufferConfig::default(),
            tick_ms: 5,
            helper_threads: 2,
            linger_ms: 2000,
            drain_ms: 500,
        }
    }
}

/// The two groups of read buffers that the kernel picks from. Memory is reserved,
/// but costs nothing until first used.
#[derive(Debug, Clone)]
pub struct BufferConfig {
    /// Small buffers per shard; a power of two, 8 to 32768. Default 512.
    pub small_count: u16,
    /// Bytes of one small buffer, 512 to 65536. Default 4096.
    pub small_bytes: usize,
    /// Large buffers per shard, for connections in bulk mode; a power of two,
    /// 2 to 4096. Default 64.
    pub large_count: u16,
    /// Bytes of one large buffer, from `small_bytes` to 1 MiB. Default 131072.
    pub large_bytes: usize,
}

impl Default for BufferConfig {
    fn default() -> Self {
        BufferConfig {
            small_count: 512,
            small_bytes: 4096,
            large_count: 64,
            large_bytes: 128 * 1024,
        }
    }
}

impl EngineConfig {
    pub(crate) fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms)
    }

    pub(crate) fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }

    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let buffers = &self.buffers;
        let refuse = |key, value, range| Err(EngineError::Config { key, value, range });
        if !(1..=1024).contains(&self.shards) {
            return refuse("shards", self.shards as u64, "1..=1024");
        }
        if !(1..=1000).contains(&self.tick_ms) {
            return refuse("tick_ms", self.tick_ms, "1..=1000");
        }
        if !(1..=256).contains(&self.helper_threads) {
            return refuse("helper_threads", self.helper_threads as u64, "1..=256");
        }
        if self.linger_ms > 60_000 {
            return refuse("linger_ms", self.linger_ms, "0..=60000");
        }
        if self.drain_ms > 60_000 {
            return refuse("drain_ms", self.drain_ms, "0..=60000");
        }
        if !buffers.small_count.is_power_of_two() || !(8..=32768).contains(&buffers.small_count) {
            let value = u64::from(buffers.small_count);
            return refuse("small_count", value, "powers of two, 8..=32768");
        }
        if !buffers.large_count.is_power_of_two() || !(2..=4096).contains(&buffers.large_count) {
            let value = u64::from(buffers.large_count);
            return refuse("large_count", value, "powers of two, 2..=4096");
        }
        if !(512..=65536).contains(&buffers.small_bytes) {
            return refuse("small_bytes", buffers.small_bytes as u64, "512..=65536");
        }
        if !(buffers.small_bytes..=1024 * 1024).contains(&buffers.large_bytes) {
            let value = buffers.large_bytes as u64;
            return refuse("large_bytes", value, "small_bytes..=1048576");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_configuration_passes_its_own_check() {
        EngineConfig::default().check().unwrap();
    }

    #[test]
    fn refuses_values_outside_their_ranges() {
        let cases: [fn(&mut EngineConfig); 9] = [
            |c| c.shards = 0,
            |c| c.shards = 1025,
            |c| c.tick_ms = 0,
            |c| c.helper_threads = 0,
            |c| c.linger_ms = 60_001,
            |c| c.drain_ms = 60_001,
            |c| c.buffers.small_count = 500,
            |c| c.buffers.large_count = 3,
            |c| c.buffers.large_bytes = 100,
        ];
        for (index, break_it) in cases.iter().enumerate() {
            let mut config = EngineConfig::default();
            break_it(&mut config);
            assert!(config.check().is_err(), "case {index}");
        }
    }
}
