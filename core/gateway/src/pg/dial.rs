//! The target's side of a login: a place, the credential, a connection, the
//! login there, and the welcome to the agent.

use crate::config::checked::{Host, Target, TargetTls};
use crate::pg::login::{self, Entered};
use crate::pg::refusal;
use crate::pg::session::{Parts, PgSession, Places, SessionFacts};
use crate::serve::cancel::{CancelTarget, KEY_BYTES_3_0, KEY_BYTES_3_2};
use crate::serve::limits::{Asked, TargetPlace};
use crate::serve::shard::Shard;
use crate::serve::shared::ScramKey;
use crate::serve::tls;
use bytes::Bytes;
use engine::{Conn, ConnectError, Reader, Time, Writer};
use policy::SqlGate;
use postgres::Refusal;
use postgres::login::downstream::welcome;
use postgres::login::upstream::{
    UpstreamConfig, UpstreamCredential, UpstreamFailure, UpstreamLogin, UpstreamOutput,
    UpstreamReady, UpstreamTls,
};
use postgres::session::SessionConfig;
use postgres::startup::ProtocolVersion;
use recorder::{Body, Fault};
use rustls::pki_types::ServerName;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Addresses tried per host: a name with hundreds of records must not use up
/// the deadline by itself.
const ADDRESSES_PER_HOST_MAX: usize = 8;

/// Why the target's side did not come about: what the agent reads, what the
/// record says, and whose fault it was.
struct Failure {
    refusal: Refusal,
    fault: Fault,
    log: String,
}

/// Takes an accepted login to its target and makes the session.
pub async fn enter(
    shard: &Rc<Shard>,
    entered: Entered,
    source: SocketAddr,
) -> Option<(Rc<PgSession>, Reader, Reader, Places)> {
    let live = entered.live.clone();
    let extras = live.config.role(entered.role.name())?.clone();
    let application = entered
        .startup
        .setting("application_name")
        .map(|v| login::masked_frame(shard, v))
        .unwrap_or_default();
    let start = Body::SessionStart {
        protocol: "postgres".into(),
        principal: entered.principal.subject.clone(),
        issuer: entered.principal.issuer.clone(),
        on_behalf_of: entered.principal.on_behalf_of.clone(),
        role: entered.role.name().to_string(),
        target: entered.target.name.clone(),
        database: entered.database.clone(),
        account: entered.account.clone(),
        source: source.to_string(),
        tls: entered.tls,
        policy_version: live.policy.version().to_string(),
        application: String::from_utf8_lossy(&application).into_owned(),
        mode: match extras.recording {
            crate::config::checked::RecordingMode::Async => "async".into(),
            crate::config::checked::RecordingMode::Requests => "requests".into(),
        },
    };
    let outcome = match shard.append_waiting(entered.id, &start, false).await {
        Ok(_) => reach(shard, &entered, extras.connections_max).await,
        Err(error) => Err(Failure {
            refusal: refusal::not_recorded(&entered.id.to_string()),
            fault: Fault::Gateway,
            log: error.to_string(),
        }),
    };
    match outcome {
        Ok((upstream, ready, address, places)) => Some(open(
            shard,
            entered,
            extras.recording,
            upstream,
            ready,
            address,
            places,
        )),
        Err(failure) => {
            shard.metrics.target_failures.add(1);
            tracing::warn!(session_id = %entered.id, target_name = %entered.target.name, reason = %failure.log, "target not reached");
            let code = String::from_utf8_lossy(&failure.refusal.sqlstate).into_owned();
            let text_masked = login::masked_frame(shard, failure.log.as_bytes()).to_vec();
            let error = Body::Error {
                unit: 0,
                fault: failure.fault,
                code,
                text_masked,
            };
            let end = Body::SessionEnd {
                reason: "target not reached".into(),
                requests: 0,
                denied: 0,
                bytes_down: 0,
                bytes_up: 0,
            };
            for body in [error, end] {
                if shard
                    .append_waiting(entered.id, &body, false)
                    .await
                    .is_err()
                {
                    break;
                }
            }
            entered.writer.queue(login::fatal(&failure.refusal));
            entered.writer.finish();
            let at = engine::now().after(Duration::from_secs(2));
            let _ = engine::deadline(at, entered.writer.flushed()).await;
            None
        }
    }
}

/// Places first, then the connection, all within the target's deadlines.
async fn reach(
    shard: &Rc<Shard>,
    entered: &Entered,
    role_max: usize,
) -> Result<((Reader, Writer), UpstreamReady, SocketAddr, Places), Failure> {
    let target = &entered.target;
    let label = entered.id.to_string();
    let full = |what: &'static str| Failure {
        refusal: refusal::no_connection_free(what, &label),
        fault: Fault::Resource,
        log: format!("limit reached: {what}"),
    };
    let shared = &shard.shared;
    let role = shared
        .roles
        .take(entered.role.name().to_string(), role_max)
        .ok_or_else(|| full("role_connections_max"))?;
    let key = (
        target.name.clone(),
        entered.principal.issuer.clone(),
        entered.principal.subject.clone(),
    );
    let principal = shared
        .principals
        .take(key, target.connections_per_principal_max)
        .ok_or_else(|| full("connections_per_principal_max"))?;
    let (hand_over, waiting) = engine::reply::<TargetPlace>();
    let asked = shared.target_places(&target.name).ask(
        target.connections_max,
        target.queue_max,
        move |place| hand_over.send(place),
    );
    let place = match asked {
        Asked::Place(place) => place,
        Asked::Full => return Err(full("queue_max")),
        Asked::Queued => match engine::deadline(engine::now().after(target.queue), waiting).await {
            Ok(Some(place)) => place,
            _ => return Err(full("connections_max")),
        },
    };
    let until = engine::now().after(target.connect);
    let (upstream, ready, address) =
        match engine::deadline(until, log_in(shard, entered, until)).await {
            Ok(result) => result?,
            Err(_) => {
                return Err(Failure {
                    refusal: refusal::target_fault(
                        b"08001",
                        "the target did not answer in time",
                        &label,
                    ),
                    fault: Fault::Target,
                    log: format!("no login within {:?}", target.connect),
                });
            }
        };
    Ok((
        upstream,
        ready,
        address,
        Places {
            _target: place,
            _role: role,
            _principal: principal,
        },
    ))
}

/// Logs in, with one fresh credential and one redial where the target says
/// that the password is wrong (it may have been rotated a moment ago).
async fn log_in(
    shard: &Rc<Shard>,
    entered: &Entered,
    until: Time,
) -> Result<((Reader, Writer), UpstreamReady, SocketAddr), Failure> {
    let mut redialled = false;
    let mut protocol = entered.protocol;
    loop {
        let password = credential(shard, entered).await?;
        match log_in_with(shard, entered, password, protocol, until).await {
            Err(LoginFault::Rejected(failure))
                if failure.is_bad_password() && !redialled && entered.target.password.is_some() =>
            {
                redialled = true;
            }
            Err(LoginFault::Rejected(failure))
                if failure.protocol_refused() && protocol > ProtocolVersion::V3_0 =>
            {
                protocol = ProtocolVersion::V3_0;
            }
            Err(fault) => return Err(fault.into_failure(&entered.id.to_string())),
            Ok(done) => return Ok(done),
        }
    }
}

async fn credential(
    shard: &Rc<Shard>,
    entered: &Entered,
) -> Result<Option<Zeroizing<String>>, Failure> {
    let Some(source) = entered.target.password.clone() else {
        return Ok(None);
    };
    let shared = shard.shared.clone();
    // Fetched, and masked wherever it shows, before it is used.
    let fetched = engine::offload(move || -> Result<Zeroizing<String>, String> {
        let bytes = source.fetch().map_err(|e| e.to_string())?;
        shared.learn(&bytes).map_err(|e| e.to_string())?;
        let text =
            std::str::from_utf8(&bytes).map_err(|_| "the credential is not UTF-8".to_string())?;
        Ok(Zeroizing::new(text.to_string()))
    })
    .await;
    fetched.map(Some).map_err(|log| Failure {
        refusal: refusal::target_fault(
            b"08004",
            "the target's credential cannot be had",
            &entered.id.to_string(),
        ),
        fault: Fault::Gateway,
        log,
    })
}

/// What one round over the hosts ended with.
enum LoginFault {
    /// No host could be reached; what the last one did.
    Unreachable(String),
    /// A host answered and the login failed.
    Rejected(UpstreamFailure),
}

impl LoginFault {
    fn into_failure(self, label: &str) -> Failure {
        let (code, message, fault, log): (&[u8; 5], String, Fault, String) = match self {
            LoginFault::Unreachable(log) => (
                b"08001",
                "the target cannot be reached".into(),
                Fault::Target,
                log,
            ),
            LoginFault::Rejected(failure) => {
                let log = format!("{failure:?}");
                match &failure {
                    UpstreamFailure::Rejected(r) => {
                        let state = String::from_utf8_lossy(&r.sqlstate).into_owned();
                        let log = format!(
                            "target refused: {state} {}",
                            String::from_utf8_lossy(&r.message)
                        );
                        match &r.sqlstate {
                            // The agent can do something about these two; the
                            // server's own text names accounts and addresses.
                            b"3D000" => (
                                b"3D000",
                                "the database does not exist at the target".into(),
                                Fault::Agent,
                                log,
                            ),
                            b"53300" => (
                                b"53300",
                                "the target has too many connections".into(),
                                Fault::Resource,
                                log,
                            ),
                            _ => (
                                b"08004",
                                format!("the target refused the gateway's login ({state})"),
                                Fault::Target,
                                log,
                            ),
                        }
                    }
                    UpstreamFailure::TlsRefused => (
                        b"08001",
                        "the target does not offer TLS".into(),
                        Fault::Target,
                        log,
                    ),
                    UpstreamFailure::Misuse => (
                        b"XX000",
                        "internal error in the login at the target".into(),
                        Fault::Gateway,
                        log,
                    ),
                    _ => (
                        b"08004",
                        "the login at the target failed".into(),
                        Fault::Target,
                        log,
                    ),
                }
            }
        };
        Failure {
            refusal: refusal::target_fault(code, message, label),
            fault,
            log,
        }
    }
}

async fn log_in_with(
    shard: &Rc<Shard>,
    entered: &Entered,
    password: Option<Zeroizing<String>>,
    protocol: ProtocolVersion,
    until: Time,
) -> Result<((Reader, Writer), UpstreamReady, SocketAddr), LoginFault> {
    let mut last = String::from("no host");
    for host in &entered.target.hosts {
        for address in resolve(host).await.unwrap_or_else(|e| {
            last = format!("{}: {e}", host.name);
            Vec::new()
        }) {
            if shard.shared.is_own(address) {
                last = format!("{}: an address of the gateway itself", host.name);
                continue;
            }
            let conn = match engine::connect(address, until).await {
                Ok(conn) => conn,
                Err(error) => {
                    last = format!("{}:{}: {}", host.name, host.port, dial_text(&error));
                    continue;
                }
            };
            match one_login(shard, entered, host, conn, password.clone(), protocol).await {
                Ok((halves, ready)) => return Ok((halves, ready, address)),
                Err(LoginFault::Unreachable(what)) => {
                    last = format!("{}:{}: {what}", host.name, host.port)
                }
                // A server that is starting, stopping or full is no answer
                // while there is another host.
                Err(LoginFault::Rejected(UpstreamFailure::Rejected(r)))
                    if matches!(&r.sqlstate, b"57P03" | b"57P01" | b"53300") =>
                {
                    last = format!(
                        "{}:{}: {}",
                        host.name,
                        host.port,
                        String::from_utf8_lossy(&r.sqlstate)
                    );
                    if entered.target.hosts.len() == 1 {
                        return Err(LoginFault::Rejected(UpstreamFailure::Rejected(r)));
                    }
                }
                Err(rejected) => return Err(rejected),
            }
        }
    }
    Err(LoginFault::Unreachable(last))
}

fn dial_text(error: &ConnectError) -> String {
    error.to_string()
}

async fn resolve(host: &Host) -> std::io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.name.parse() {
        return Ok(vec![SocketAddr::new(ip, host.port)]);
    }
    let (name, port) = (host.name.clone(), host.port);
    engine::offload(move || {
        Ok((name.as_str(), port)
            .to_socket_addrs()?
            .take(ADDRESSES_PER_HOST_MAX)
            .collect())
    })
    .await
}

/// TLS towards a target, and the name its certificate must carry.
fn upstream_tls(target: &Target, host: &Host) -> (UpstreamTls, String) {
    let way = match &target.tls {
        TargetTls::Off => UpstreamTls::Off,
        TargetTls::Verify { direct: true, .. } | TargetTls::Unverified { direct: true } => {
            UpstreamTls::Direct
        }
        TargetTls::Verify { .. } | TargetTls::Unverified { .. } => UpstreamTls::Request,
    };
    (
        way,
        target
            .server_name
            .clone()
            .unwrap_or_else(|| host.name.clone()),
    )
}

async fn one_login(
    shard: &Rc<Shard>,
    entered: &Entered,
    host: &Host,
    conn: Conn,
    password: Option<Zeroizing<String>>,
    protocol: ProtocolVersion,
) -> Result<((Reader, Writer), UpstreamReady), LoginFault> {
    let target = &entered.target;
    let (way, server_name) = upstream_tls(target, host);
    let mut nonce = [0u8; 24];
    engine::fill_random(&mut nonce);
    let cache_key = password.as_ref().map(|p| {
        let mut d = crate::pg::digest::Digest::new("scram cache");
        d.part(&shard.shared.tag_key).part(p.as_bytes());
        ScramKey {
            target: target.name.clone(),
            account: entered.account.clone(),
            password: d.finish(),
        }
    });
    let mut config = UpstreamConfig::new(entered.account.clone(), entered.database.clone(), nonce);
    config.parameters = login::parameters(&entered.startup);
    config.protocol = protocol;
    config.tls = way;
    config.require_channel_binding = target.channel_binding_required;
    config.allow_md5 = target.allow_md5;
    config.allow_cleartext = matches!(target.tls, TargetTls::Verify { .. });
    config.scram_keys = cache_key.as_ref().and_then(|k| shard.shared.scram_keys(k));
    config.credential = password.map_or(UpstreamCredential::None, UpstreamCredential::Password);
    let mut machine = UpstreamLogin::new(config);
    let (mut reader, mut writer) = conn.split();
    loop {
        while let Some(output) = machine.poll_output() {
            match output {
                UpstreamOutput::Write(bytes) => writer.queue(bytes),
                UpstreamOutput::StartTls => {
                    let gone = |what: String| LoginFault::Unreachable(what);
                    let tls_config = entered
                        .live
                        .target_tls
                        .get(&target.name)
                        .cloned()
                        .ok_or_else(|| gone("no TLS configuration".into()))?;
                    let name = ServerName::try_from(server_name.clone())
                        .map_err(|e| gone(format!("server name: {e}")))?;
                    let joined = Conn::from_parts(reader, writer);
                    let (conn, info) = joined
                        .tls_client(tls_config, name)
                        .await
                        .map_err(|e| gone(format!("TLS: {e}")))?;
                    (reader, writer) = conn.split();
                    machine.tls_established(
                        info.peer_certificates
                            .first()
                            .and_then(tls::server_end_point),
                    );
                }
                UpstreamOutput::DeriveKeys(work) => {
                    let keys = engine::offload(move || work.run()).await;
                    machine.provide_keys(keys);
                }
                UpstreamOutput::Ready(ready) => {
                    if let (Some(key), Some(keys)) = (cache_key, machine.take_keys()) {
                        shard.shared.keep_scram_keys(key, keys);
                    }
                    reader.unread(ready.leftover.clone());
                    return Ok(((reader, writer), ready));
                }
                UpstreamOutput::Failed(failure) => return Err(LoginFault::Rejected(failure)),
            }
        }
        match reader.recv().await {
            Ok(bytes) => machine.handle_input(bytes),
            Err(end) => {
                return Err(LoginFault::Unreachable(format!(
                    "connection lost during the login: {end}"
                )));
            }
        }
    }
}

/// The agent is told that it is in, and the session begins.
fn open(
    shard: &Rc<Shard>,
    entered: Entered,
    recording: crate::config::checked::RecordingMode,
    (up_reader, up_writer): (Reader, Writer),
    ready: UpstreamReady,
    address: SocketAddr,
    places: Places,
) -> (Rc<PgSession>, Reader, Reader, Places) {
    let limits = &entered.live.config.limits;
    let facts = login::policy_facts(
        &entered.principal,
        &entered.target.name,
        &entered.database,
        &entered.account,
    );
    let mut gate = SqlGate::new(entered.live.policy.clone(), entered.role.clone(), facts);
    for (name, value) in login::parameters(&entered.startup) {
        gate.startup_parameter(&name, &value);
    }
    let mut shown = Vec::new();
    for (name, value) in &ready.parameters {
        gate.parameter_status(name, value);
        shown.push((name.clone(), login::masked_frame(shard, value)));
    }
    let encoding_is_utf8 = ready
        .parameters
        .iter()
        .rev()
        .find(|(n, _)| n.as_ref() == b"client_encoding")
        .is_some_and(|(_, v)| v.as_ref() == b"UTF8");
    let mut seed = [0u8; 16];
    engine::fill_random(&mut seed);
    let mut config = SessionConfig::new(entered.id.to_string(), seed);
    config.unit_bytes_max = limits.statement_bytes_max + 4096;
    config.bind_bytes_held_max = limits.bind_bytes_max;
    config.binds_read = gate.reads_binds();
    config.value_bytes_held_max = limits.value_bytes_held_max;
    config.held_bytes_max = limits.held_bytes_max;
    config.row_record_bytes_max = entered.live.config.recorder.rows_bytes_max;
    config.client_encoding_utf8 = encoding_is_utf8;
    config.transaction_status = ready.status;

    let key_bytes = if entered.protocol >= ProtocolVersion::V3_2 {
        KEY_BYTES_3_2
    } else {
        KEY_BYTES_3_0
    };
    let cancel_target = CancelTarget {
        session: entered.id,
        shard: engine::this_shard(),
    };
    let registered = shard.shared.cancels.register(
        ready.process_id,
        key_bytes,
        cancel_target,
        engine::fill_random,
    );
    let pairs = shown.iter().map(|(n, v)| (n.as_ref(), v.as_ref()));
    match welcome(pairs, ready.process_id, registered.key(), ready.status) {
        Ok(frames) => {
            for notice in &ready.notices {
                entered.writer.queue(login::masked_frame(shard, notice));
            }
            entered.writer.queue(frames);
        }
        Err(error) => {
            tracing::error!(session_id = %entered.id, %error, "welcome cannot be written")
        }
    }
    tracing::info!(
        session_id = %entered.id,
        subject = %entered.principal.subject,
        role = entered.role.name(),
        target_name = %entered.target.name,
        database = %entered.database,
        "session started"
    );
    let canceller = canceller(shard, &entered, address, &ready);
    let parts = Parts {
        id: entered.id,
        facts: SessionFacts {
            principal: entered.principal,
            role: entered.role.name().to_string(),
            target: entered.target.name.clone(),
            database: entered.database,
            account: entered.account,
            recording,
        },
        config,
        gate,
        down: entered.writer,
        up: up_writer,
        text_bytes_max: entered.live.config.recorder.text_bytes_max,
        cancel_key: registered,
        canceller,
    };
    let session = PgSession::new(shard.clone(), parts);
    // A reload during the login has told only the sessions that there were.
    let now = shard.shared.live.load_full();
    if !Arc::ptr_eq(&now, &entered.live) {
        session.put_under(&now);
    }
    (session, entered.reader, up_reader, places)
}

/// Sends the target's own cancel key on a connection of its own, with TLS
/// where the session has it.
fn canceller(
    shard: &Rc<Shard>,
    entered: &Entered,
    address: SocketAddr,
    ready: &UpstreamReady,
) -> Box<dyn Fn()> {
    let request = postgres::cancel::CancelRequest {
        process_id: ready.process_id,
        secret_key: ready.secret_key.clone(),
    };
    let target = entered.target.clone();
    let tls_config: Option<Arc<rustls::ClientConfig>> =
        entered.live.target_tls.get(&target.name).cloned();
    let _ = shard;
    Box::new(move || {
        if request.secret_key.is_empty() {
            return;
        }
        let Ok(frame) = request.encode() else { return };
        let (target, tls_config) = (target.clone(), tls_config.clone());
        engine::spawn(async move {
            let until = engine::now().after(target.connect);
            let sent = engine::deadline(
                until,
                send_cancel(&target, tls_config, address, frame, until),
            )
            .await;
            if !matches!(sent, Ok(Some(()))) {
                tracing::warn!(target_name = %target.name, "cancel request did not reach the target");
            }
        })
        .detach();
    })
}

async fn send_cancel(
    target: &Target,
    tls_config: Option<Arc<rustls::ClientConfig>>,
    address: SocketAddr,
    frame: Bytes,
    until: Time,
) -> Option<()> {
    let mut conn = engine::connect(address, until).await.ok()?;
    if let Some(config) = tls_config {
        let host = target.hosts.first()?;
        let (way, server_name) = upstream_tls(target, host);
        if way == UpstreamTls::Request {
            let (mut reader, writer) = conn.split();
            let mut request = bytes::BytesMut::new();
            postgres::startup::ssl_request(&mut request);
            writer.queue(request.freeze());
            let answer = reader.recv().await.ok()?;
            if answer.as_ref() != b"S" {
                return None;
            }
            conn = Conn::from_parts(reader, writer);
        }
        let name = ServerName::try_from(server_name).ok()?;
        conn = conn.tls_client(config, name).await.ok()?.0;
    }
    let (mut reader, writer) = conn.split();
    writer.queue(frame);
    // The server closes once it has signalled the backend.
    let _ = reader.recv().await;
    Some(())
}
