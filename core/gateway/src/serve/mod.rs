//! The running gateway: start, listeners on every shard, reload, drain, stop.
//!
//! ```text
//! main thread ── signals ─▶ reload: new Live, swapped whole, sessions told
//!      │                 └▶ stop: no new connections, sessions drain, shards end
//!      ├─ shard 0..N: listeners, sessions
//!      ├─ control thread: API, store
//!      └─ record writer thread
//! ```

pub mod cancel;
pub mod keys;
pub mod limits;
pub mod live;
pub mod metrics;
pub mod proxy_protocol;
pub mod shard;
pub mod shared;
pub mod tls;

use crate::config::{self, checked};
use crate::pg;
use control::{
    Control, ControlConfig, ControlLimits, ControlListen, HealthCheck, HealthReport, Hooks,
};
use engine::{EngineConfig, ListenOptions, Listener};
use live::{Live, Secrets};
use metrics::ShardMetrics;
use recorder::{AtCap, Recorder};
use shard::Shard;
use shared::{Parts, Shared};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

/// Why the gateway does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be loaded.
    #[error("{0}")]
    Config(#[from] config::LoadError),
    /// It cannot be put in force.
    #[error("{0}")]
    Live(#[from] live::LiveError),
    /// The engine or one of its shards.
    #[error("{0}")]
    Engine(#[from] engine::EngineError),
    /// The record.
    #[error("{0}")]
    Recorder(#[from] recorder::RecorderError),
    /// The control plane.
    #[error("{0}")]
    Control(#[from] control::ControlError),
    /// The identity part.
    #[error("{0}")]
    Identity(String),
    /// A listener's address.
    #[error("listener {name} cannot bind {address}: {source}")]
    Bind {
        /// Which.
        name: String,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file or folder.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Runs until a signal stops it.
pub fn run(file: &Path) -> Result<(), RunError> {
    let config = config::load(file)?;
    init_log(config.gateway.log_level);
    forbid_core_dumps();
    raise_descriptor_limit();
    let caps = engine::probe()?;
    tracing::debug!(?caps, "engine can run here");
    make_private_dir(&config.gateway.data_dir)?;

    let secrets = Secrets::default();
    secrets.learn_all(&config)?;
    let mut tag_key = [0u8; 32];
    aws_lc_rs::rand::fill(&mut tag_key).map_err(|_| RunError::Identity("no randomness".into()))?;
    let rules = secrets.compile(&config, tag_key)?;

    let held: Vec<socket2::Socket> = hold_ports(&config)?;
    let addresses: Vec<SocketAddr> = held
        .iter()
        .filter_map(|s| s.local_addr().ok()?.as_socket())
        .collect();

    let shards_cell: Arc<OnceLock<Vec<engine::ShardHandle>>> = Arc::new(OnceLock::new());
    let recorder = Arc::new(start_recorder(&config, shards_cell.clone())?);
    let shared_cell: Arc<OnceLock<Arc<Shared>>> = Arc::new(OnceLock::new());
    let metrics: Vec<Arc<ShardMetrics>> =
        (0..config.gateway.shards).map(|_| Arc::default()).collect();
    let (control, handle) =
        Control::start(control_config(&config), hooks(&shared_cell, &recorder))?;

    let live = Live::build(config)?;
    let verifier = live.verifier(handle.token_store())?;
    let engine_config = EngineConfig {
        shards: live.config.gateway.shards,
        pin: live.config.gateway.pin_cores,
        ..EngineConfig::default()
    };
    let shared = Shared::new(
        Parts {
            live,
            verifier,
            rules,
            secrets,
            tag_key,
            control: handle,
            recorder: recorder.clone(),
        },
        metrics,
    );
    shared.set_own_addresses(addresses.clone(), &shared.live.load().config);
    let _ = shared_cell.set(shared.clone());
    for issuer in shared.verifier.load().issuers_without_keys() {
        keys::fetch(&shared, issuer, |_| ());
    }

    let (ready_tx, ready_rx) = mpsc::channel::<Result<(), String>>();
    let for_shards = (shared.clone(), addresses.clone(), ready_tx);
    let shards = engine::spawn_shards(engine_config, move |index| {
        let (shared, addresses, ready) = for_shards.clone();
        async move { shard_main(index, shared, addresses, ready).await }
    })?;
    let _ = shards_cell.set(shards.handles());
    let _ = shared.shards.set(shards.handles());
    for _ in 0..shared.metrics.len() {
        match ready_rx.recv_timeout(Duration::from_secs(30)) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Err(RunError::Identity(why)),
            Err(_) => return Err(RunError::Identity("a shard did not start".into())),
        }
    }
    for (listener, address) in shared.live.load().config.listeners.iter().zip(&addresses) {
        tracing::info!(listener = %listener.name, %address, "listening");
    }
    tracing::info!(
        shards = shared.metrics.len(),
        policy_version = shared.live.load().policy.version(),
        "ready"
    );

    signals(file, &shared, &shards)?;
    shards.join()?;
    let grace = Duration::from_secs(2);
    control.stop(grace);
    drop(shared_cell);
    drop(shared);
    match Arc::try_unwrap(recorder) {
        Ok(recorder) => recorder.stop()?,
        Err(_) => tracing::error!("record still in use at the end"),
    }
    tracing::info!("stopped");
    drop(held);
    Ok(())
}

fn init_log(level: tracing::Level) {
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .finish();
    // A second start in one process (tests) keeps the first.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// A core file would hold credentials.
fn forbid_core_dumps() {
    use system::{no_core_dumps, not_dumpable};
    no_core_dumps();
    not_dumpable();
}

/// Each session takes two descriptors; the soft limit is often 1024. Must come
/// before the shards start: the kernel keeps the limit that it saw first.
fn raise_descriptor_limit() {
    if let Some((soft, hard)) = system::raise_descriptors() {
        tracing::debug!(soft, hard, "descriptor limit raised");
    }
}

/// The few calls into the system that nothing in our crates wraps.
mod system {
    /// `RLIMIT_CORE` = 0.
    pub fn no_core_dumps() {
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: a plain call with a pointer to a live struct of the right type.
        let done = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
        if done != 0 {
            tracing::warn!("core dumps cannot be turned off");
        }
    }

    /// `RLIMIT_NOFILE`: the soft limit up to the hard one. Old and new.
    pub fn raise_descriptors() -> Option<(u64, u64)> {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: a plain call with a pointer to a live struct of the right type.
        if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
            return None;
        }
        let before = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: as above.
        (unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0)
            .then_some((before, limit.rlim_max))
    }

    /// `PR_SET_DUMPABLE` = 0: neither a core pattern program nor another
    /// process of the user reads our memory.
    pub fn not_dumpable() {
        // SAFETY: prctl with integer arguments only.
        let done = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
        if done != 0 {
            tracing::warn!("process memory cannot be closed to others");
        }
    }
}

fn make_private_dir(dir: &Path) -> Result<(), RunError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| RunError::Io {
            what: format!("cannot make {}", dir.display()),
            source,
        })
}

/// Binds each listener's address without listening: errors show at the start,
/// port 0 gets its number, and all shards can bind the same one.
fn hold_ports(config: &checked::Config) -> Result<Vec<socket2::Socket>, RunError> {
    let mut held = Vec::new();
    for l in &config.listeners {
        let bind = || -> std::io::Result<socket2::Socket> {
            let domain = socket2::Domain::for_address(l.address);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.bind(&l.address.into())?;
            Ok(socket)
        };
        held.push(bind().map_err(|source| RunError::Bind {
            name: l.name.clone(),
            address: l.address,
            source,
        })?);
    }
    Ok(held)
}

fn start_recorder(
    config: &checked::Config,
    shards: Arc<OnceLock<Vec<engine::ShardHandle>>>,
) -> Result<Recorder, RunError> {
    let r = recorder_config(config);
    let durable = move |shard: usize, up_to: u64| {
        let Some(handle) = shards.get().and_then(|all| all.get(shard)) else {
            return;
        };
        handle.run(move || {
            if let Some(shard) = Shard::current() {
                shard.record_committed(up_to);
            }
        });
    };
    Ok(Recorder::start(r, Box::new(durable))?)
}

/// The recorder's own configuration; also used by `check`.
pub fn recorder_config(config: &checked::Config) -> recorder::Config {
    let c = &config.recorder;
    let mut r = recorder::Config::new(&c.dir, config.gateway.shards);
    r.segment_bytes_max = c.segment_bytes_max;
    r.total_bytes_max = c.total_bytes_max;
    r.at_cap = if c.delete_oldest {
        AtCap::DeleteOldest
    } else {
        AtCap::Refuse
    };
    r.group_commit_ms = c.group_commit_ms;
    r.ring_entries = c.ring_entries;
    r
}

/// The control plane's own configuration; also used by `check`.
pub fn control_config(config: &checked::Config) -> ControlConfig {
    let c = &config.control;
    let listen = match &c.address {
        checked::ControlAddress::Unix(path) => ControlListen::Unix(path.clone()),
        checked::ControlAddress::Loopback(address) => ControlListen::Loopback(*address),
    };
    let mut out = ControlConfig::new(c.store_file.clone(), listen, c.admin_token_file.clone());
    out.metrics_need_token = false;
    out.limits = ControlLimits {
        pending_per_principal_max: u32::try_from(config.approvals.pending_per_principal_max)
            .unwrap_or(u32::MAX),
        approval_ttl_ms: config.approvals.valid_s * 1000,
        grant_ttl_ms: config.approvals.valid_s * 1000,
        deny_cool_down_ms: config.approvals.cool_down_s * 1000,
        shown_bytes_max: config.limits.statement_bytes_max.clamp(1 << 20, 64 << 20),
        ..ControlLimits::default()
    };
    out
}

fn hooks(shared: &Arc<OnceLock<Arc<Shared>>>, recorder: &Arc<Recorder>) -> Hooks {
    let (for_metrics, for_health) = (Arc::downgrade(shared), Arc::downgrade(shared));
    let (recorder_metrics, recorder_health) = (Arc::downgrade(recorder), Arc::downgrade(recorder));
    Hooks {
        metrics: Arc::new(move || {
            let cell = for_metrics.upgrade();
            let (Some(shared), Some(recorder)) = (
                cell.as_ref().and_then(|c| c.get()),
                recorder_metrics.upgrade(),
            ) else {
                return String::new();
            };
            let now = metrics::Snapshot {
                connections_now: shared.admission.connections() as u64,
                sessions_now: shared.cancels.len() as u64,
                recorder: recorder.stats(),
                recorder_ok: recorder.health() == recorder::Health::Ok,
            };
            metrics::text(shared.metrics.clone(), now)
        }),
        health: Arc::new(move || {
            let recorder_ok = recorder_health
                .upgrade()
                .is_some_and(|r| r.health() == recorder::Health::Ok);
            let cell = for_health.upgrade();
            let shards_ok = cell
                .as_ref()
                .and_then(|c| c.get())
                .is_some_and(|s| s.shards.get().is_some() && !s.stopping.load(Ordering::Relaxed));
            HealthReport {
                checks: vec![
                    HealthCheck {
                        name: "recorder".into(),
                        ok: recorder_ok,
                    },
                    HealthCheck {
                        name: "shards".into(),
                        ok: shards_ok,
                    },
                ],
            }
        }),
        ..Hooks::default()
    }
}

/// One shard: binds every listener, accepts, and ends when told to stop and
/// its sessions have drained.
async fn shard_main(
    index: usize,
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    ready: mpsc::Sender<Result<(), String>>,
) {
    let producer = shared.recorder.producer(index);
    let shard = match Shard::start(index, shared.clone(), producer) {
        Ok(shard) => shard,
        Err(error) => {
            let _ = ready.send(Err(format!("shard {index}: {error}")));
            return;
        }
    };
    let mut accepting = Vec::new();
    for (number, address) in addresses.into_iter().enumerate() {
        match Listener::bind(
            address,
            ListenOptions {
                reuse_port: true,
                ..ListenOptions::default()
            },
        ) {
            Ok(listener) => accepting.push(engine::spawn(accept(shard.clone(), number, listener))),
            Err(error) => {
                let _ = ready.send(Err(format!(
                    "shard {index} cannot listen on {address}: {error}"
                )));
                Shard::end();
                return;
            }
        }
    }
    let stopped = shard.stop.notified();
    let revocations = engine::spawn(end_revoked(shard.clone()));
    let _ = ready.send(Ok(()));
    drop(ready);
    stopped.await;
    drop(accepting);
    drain(&shard).await;
    drop(revocations);
    Shard::end();
}

/// How soon a session ends after its gateway token was revoked.
const REVOCATION_EVERY: Duration = Duration::from_secs(1);

/// Ends sessions whose gateway token is no longer in force.
async fn end_revoked(shard: Rc<Shard>) {
    loop {
        engine::sleep_until(engine::now().after(REVOCATION_EVERY)).await;
        let sessions = shard.sessions();
        if sessions.is_empty() {
            continue;
        }
        let tokens = shard.shared.control.tokens();
        let now_s = engine::wall_clock_us() / 1_000_000;
        for session in sessions {
            let principal = &session.facts.principal;
            if principal.credential == identity::CredentialKind::GatewayToken
                && tokens.status(&principal.credential_id, now_s) != identity::TokenStatus::Live
            {
                session.end_with(
                    b"57P01",
                    "the token of this session is no longer in force",
                    "token revoked",
                );
            }
        }
    }
}

async fn accept(shard: Rc<Shard>, number: usize, listener: Listener) {
    loop {
        match listener.accept().await {
            Ok((conn, peer)) => {
                engine::spawn(pg::serve(shard.clone(), number, conn, peer)).detach()
            }
            Err(error) => {
                tracing::error!(%error, "listener failed");
                return;
            }
        }
    }
}

/// Idle sessions end at once, busy ones when they are idle or the time is up;
/// a held request is answered, not kept.
async fn drain(shard: &Rc<Shard>) {
    let until = engine::now().after(shard.shared.live.load().config.gateway.drain);
    let mut last_round = false;
    loop {
        let sessions = shard.sessions();
        if sessions.is_empty() {
            return;
        }
        for session in &sessions {
            if last_round || session.is_idle() || session.is_held() {
                session.end_with(
                    b"57P01",
                    "terminating connection: the gateway is stopping",
                    "gateway stopped",
                );
            }
        }
        if last_round {
            break;
        }
        let tick = engine::now().after(Duration::from_millis(50)).min(until);
        engine::sleep_until(tick).await;
        last_round = engine::now() >= until;
    }
    // Those that were told must still write their last record.
    let end = engine::now().after(Duration::from_secs(2));
    while !shard.sessions().is_empty() && engine::now() < end {
        let ended = shard.session_ended.notified();
        let _ = engine::deadline(end, ended).await;
    }
}

/// SIGHUP reloads, the first SIGTERM or SIGINT drains, the second ends at once.
fn signals(file: &Path, shared: &Arc<Shared>, shards: &engine::Shards) -> Result<(), RunError> {
    let io = |source| RunError::Io {
        what: "signal handlers".into(),
        source,
    };
    let mut list = signal_hook::iterator::Signals::new([SIGHUP, SIGTERM, SIGINT]).map_err(io)?;
    for signal in list.forever() {
        if signal == SIGHUP {
            reload(file, shared);
            continue;
        }
        tracing::info!(signal, "stopping");
        shared.stopping.store(true, Ordering::Relaxed);
        for handle in shards.handles() {
            handle.run(|| {
                if let Some(shard) = Shard::current() {
                    shard.stop.notify_all();
                }
            });
        }
        std::thread::spawn(move || {
            if list.forever().any(|s| s != SIGHUP) {
                tracing::warn!("second signal: ending at once");
                std::process::exit(70);
            }
        });
        return Ok(());
    }
    Ok(())
}

/// Loads the file again; with any error the old one stays in force.
fn reload(file: &Path, shared: &Arc<Shared>) {
    let before = shared.live.load_full();
    let put_in_force = || -> Result<String, RunError> {
        let config = config::load(file)?;
        shared.secrets.learn_all(&config)?;
        let mut live = Live::build(config)?;
        let verifier = live.verifier(shared.control.token_store())?;
        // What only a restart changes stays as it is.
        live.config.listeners.clone_from(&before.config.listeners);
        live.listener_tls.clone_from(&before.listener_tls);
        let version = live.policy.version().to_string();
        shared
            .rules
            .reload(&shared.secrets, &shared.live, live, shared.tag_key)?;
        shared.verifier.store(Arc::new(verifier));
        Ok(version)
    };
    match put_in_force() {
        Err(error) => {
            // One line per complaint, so that the log stays one event each.
            for line in error.to_string().lines() {
                tracing::error!(reason = line, "reload refused");
            }
            tracing::error!(
                policy_version = before.policy.version(),
                "configuration unchanged"
            );
        }
        Ok(version) => {
            let without: Vec<String> = shared
                .verifier
                .load()
                .issuers_without_keys()
                .map(String::from)
                .collect();
            for issuer in without {
                keys::fetch(shared, &issuer, |_| ());
            }
            for handle in shared.shards.get().into_iter().flatten() {
                handle.run(|| {
                    let Some(shard) = Shard::current() else {
                        return;
                    };
                    let live = shard.shared.live.load_full();
                    for session in shard.sessions() {
                        session.put_under(&live);
                    }
                });
            }
            tracing::info!(policy_version = %version, "configuration reloaded");
        }
    }
}
