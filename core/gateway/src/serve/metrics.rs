//! Counters of the shards and their text for `/metrics`.
//!
//! Each shard writes its own counters and nobody else's, so a relaxed load and
//! store is enough: no locked instruction on the hot path. The control thread
//! reads them when it is asked.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident : $help:literal),* $(,)?) => {
        /// One shard's counters.
        #[derive(Debug, Default)]
        pub struct ShardMetrics { $($(#[$doc])* #[doc = $help] pub $name: Counter,)* }

        impl ShardMetrics {
            /// Name, help and value of each.
            fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), $help, self.$name.value())),*]
            }
        }
    };
}

/// A counter that one thread writes.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only on the shard that owns it.
    pub fn add(&self, n: u64) {
        // Single writer: nothing is lost between the load and the store.
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// The value now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

counters! {
    connections: "Connections accepted.",
    connections_refused: "Connections refused by a limit or a bad header.",
    logins: "Logins that reached their target.",
    logins_refused: "Logins refused: credential, role, or protocol.",
    login_timeouts: "Logins that did not end in time.",
    target_failures: "Dials or logins at a target that failed.",
    sessions_ended: "Sessions ended.",
    requests: "Requests decided.",
    requests_denied: "Requests refused by a rule, a default or a check.",
    requests_held: "Requests held for a human.",
    requests_approved: "Held requests that ran.",
    values_masked: "Values masked.",
    cancels: "Cancel requests passed on.",
    cancels_refused: "Cancel requests with a wrong key.",
    record_waits: "Times that a request waited for room in the record ring.",
    record_failures: "Requests refused because they could not be recorded.",
    bytes_downstream: "Bytes written to agents.",
    bytes_upstream: "Bytes written to targets.",
}

/// What the process as a whole shows beside the sums over shards.
pub struct Snapshot {
    /// Agent connections now.
    pub connections_now: u64,
    /// Live cancel keys, which is live sessions.
    pub sessions_now: u64,
    /// The recorder's own counters.
    pub recorder: recorder::Stats,
    /// Whether the recorder can write.
    pub recorder_ok: bool,
}

struct Fold {
    shards: Vec<Arc<ShardMetrics>>,
    now: Snapshot,
}

impl std::fmt::Debug for Fold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fold(..)")
    }
}

impl Collector for Fold {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut sums: Vec<(&'static str, &'static str, u64)> = Vec::new();
        for shard in &self.shards {
            for (i, (name, help, value)) in shard.all().into_iter().enumerate() {
                match sums.get_mut(i) {
                    Some(sum) => sum.2 += value,
                    None => sums.push((name, help, value)),
                }
            }
        }
        let r = &self.now.recorder;
        sums.extend([
            ("record_records", "Records written.", r.records),
            ("record_bytes", "Bytes of the record written.", r.bytes),
            ("record_commits", "Commits of the record.", r.commits),
            (
                "record_commit_us",
                "Microseconds spent in commits.",
                r.commit_us_total,
            ),
            ("record_ring_full", "Appends that met a full ring.", r.full),
        ]);
        for (name, help, value) in sums {
            let counter = ConstCounter::new(value);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        let gauges = [
            (
                "connections_now",
                "Agent connections now.",
                self.now.connections_now,
            ),
            ("sessions_now", "Sessions now.", self.now.sessions_now),
            (
                "recorder_ok",
                "1 while the recorder can write.",
                u64::from(self.now.recorder_ok),
            ),
            (
                "record_disk_bytes",
                "Bytes of the record on disk.",
                r.disk_bytes,
            ),
            (
                "record_durable_lag_us_max",
                "Longest time from append to fsync, in microseconds.",
                r.durable_lag_us_max,
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

/// The text of `/metrics` (OpenMetrics, every name under `portcullis_`).
pub fn text(shards: Vec<Arc<ShardMetrics>>, now: Snapshot) -> String {
    let mut registry = Registry::with_prefix("portcullis");
    registry.register_collector(Box::new(Fold { shards, now }));
    let mut out = String::new();
    if prometheus_client::encoding::text::encode(&mut out, &registry).is_err() {
        // Writing to a String fails only when a metric is malformed.
        tracing::error!("metrics could not be encoded");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_shards_under_one_name() {
        let (a, b) = (
            Arc::new(ShardMetrics::default()),
            Arc::new(ShardMetrics::default()),
        );
        a.requests.add(2);
        b.requests.add(3);
        let now = Snapshot {
            connections_now: 1,
            sessions_now: 1,
            recorder: recorder::Stats::default(),
            recorder_ok: true,
        };
        let text = text(vec![a, b], now);
        assert!(text.contains("portcullis_requests_total 5"), "{text}");
        assert!(text.contains("portcullis_recorder_ok 1"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
