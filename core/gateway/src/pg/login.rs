//! The agent's login: TLS, credential, principal, role.
//!
//! Nothing here waits for anything but the agent itself, except where an
//! issuer's keys must be fetched; the whole of it runs under the listener's
//! login deadline, in the connection's own task.

use crate::config::checked::{Account, Listener, ListenerTls, Target};
use crate::pg::refusal;
use crate::serve::live::Live;
use crate::serve::shard::Shard;
use bytes::{Bytes, BytesMut};
use engine::{Conn, Reader, TlsInfo, Writer};
use identity::{IdentityError, Principal};
use policy::RoleRef;
use postgres::Refusal;
use postgres::login::downstream::{
    DownstreamConfig, DownstreamLogin, DownstreamOutput, OauthConfig, TlsFacts, TlsPolicy,
};
use postgres::startup::{ProtocolVersion, Replication, StartupMessage};
use postgres::wire::backend::{ReportBuilder, Severity};
use recorder::SessionId;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// A login that was accepted; the agent has not been told yet.
pub struct Entered {
    /// The session's id.
    pub id: SessionId,
    /// The configuration it began under.
    pub live: Arc<Live>,
    /// Reads from the agent; what came behind the login has been put back.
    pub reader: Reader,
    /// Writes to the agent.
    pub writer: Writer,
    /// Whether TLS is in between.
    pub tls: bool,
    /// What the agent asked for.
    pub startup: StartupMessage,
    /// The version settled on with the agent.
    pub protocol: ProtocolVersion,
    /// Who it is.
    pub principal: Principal,
    /// Its role.
    pub role: RoleRef,
    /// The target.
    pub target: Target,
    /// The database at the target.
    pub database: String,
    /// The account at the target.
    pub account: String,
}

/// An ErrorResponse of severity FATAL.
pub fn fatal(refusal: &Refusal) -> Bytes {
    ReportBuilder::refusal(Severity::Fatal, refusal).to_bytes()
}

/// `NAMEDATALEN` - 1: what the server keeps of a name.
const NAME_BYTES_MAX: usize = 63;

/// The principal as rules see it.
pub fn policy_facts(
    principal: &Principal,
    target: &str,
    database: &str,
    account: &str,
) -> policy::SessionFacts {
    policy::SessionFacts {
        principal: policy::Principal {
            issuer: principal.issuer.clone(),
            subject: principal.subject.clone(),
            groups: principal.groups.clone(),
            claims: principal
                .claims
                .iter()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            on_behalf_of: principal.on_behalf_of.clone(),
        },
        target: target.to_string(),
        database: database.to_string(),
        account: account.to_string(),
    }
}

/// Where the agent wants to go.
struct Route {
    target: String,
    database: Option<String>,
}

/// Runs the login. `None`: it is over (refused, cancelled, closed).
pub async fn agent(
    shard: &Rc<Shard>,
    settings: &Listener,
    listener: usize,
    conn: Conn,
    source: SocketAddr,
) -> Option<Entered> {
    let live = shard.shared.live.load_full();
    let id = SessionId::generate();
    let mut machine = DownstreamLogin::new(DownstreamConfig {
        tls: match settings.tls {
            ListenerTls::Off => TlsPolicy::Off,
            ListenerTls::Optional => TlsPolicy::Optional,
            ListenerTls::Required => TlsPolicy::Required,
        },
        direct_tls: settings.tls != ListenerTls::Off,
        loopback: source.ip().is_loopback() && conn.local_addr().ip().is_loopback(),
        oauth: settings.oauth.as_ref().map(|(issuer, scope)| OauthConfig {
            issuer_url: issuer.clone(),
            scope: scope.clone(),
        }),
        ..DownstreamConfig::default()
    });
    let (mut reader, mut writer) = conn.split();
    let mut tls: Option<TlsInfo> = None;
    let mut startup: Option<StartupMessage> = None;
    let mut principal: Option<Principal> = None;
    let mut accepted = None;
    loop {
        while let Some(output) = machine.poll_output() {
            match output {
                DownstreamOutput::Write(bytes) => writer.queue(bytes),
                DownstreamOutput::StartTls { received } => {
                    let config = live.listener_tls.get(listener).cloned().flatten()?;
                    match Conn::from_parts(reader, writer)
                        .tls_server(config, received)
                        .await
                    {
                        Ok((conn, info)) => {
                            let facts = TlsFacts {
                                alpn: info.alpn.clone(),
                                server_name: info.server_name.clone(),
                                client_certificate: info
                                    .peer_certificates
                                    .first()
                                    .map(|c| c.to_vec()),
                            };
                            tls = Some(info);
                            (reader, writer) = conn.split();
                            if let Err(error) = machine.tls_established(facts) {
                                tracing::info!(%source, %error, "login refused");
                            }
                        }
                        Err(error) => {
                            shard.metrics.logins_refused.add(1);
                            tracing::info!(%source, %error, "tls handshake failed");
                            return None;
                        }
                    }
                }
                DownstreamOutput::Startup(message) => {
                    match certificate_principal(shard, tls.as_ref()) {
                        Some(Ok(found)) => {
                            startup = Some(*message);
                            principal = Some(found);
                            accepted = Some(());
                        }
                        other => {
                            if let Some(Err(error)) = other {
                                // A certificate that says nothing to us is no
                                // reason against a token.
                                tracing::info!(%source, %error, "client certificate not used");
                            }
                            startup = Some(*message);
                            let asked = if settings.oauth.is_some() {
                                machine.ask_oauth()
                            } else {
                                machine.ask_password()
                            };
                            if let Err(error) = asked {
                                tracing::info!(%source, %error, "login refused");
                            }
                        }
                    }
                }
                DownstreamOutput::Token(token, _) => match token_principal(shard, &token).await {
                    Ok(found) => {
                        principal = Some(found);
                        accepted = Some(());
                    }
                    Err(error) => {
                        shard.metrics.logins_refused.add(1);
                        tracing::info!(%source, %error, "token refused");
                        machine.refuse(&refusal::login_failed());
                    }
                },
                DownstreamOutput::Cancel(request) => cancel(shard, &request, source),
                DownstreamOutput::Close => {
                    writer.finish();
                    let at = engine::now().after(std::time::Duration::from_secs(2));
                    let _ = engine::deadline(at, writer.flushed()).await;
                    return None;
                }
            }
        }
        if accepted.take().is_some() {
            // Taken out of the loop with everything that the login has settled.
            let (who, what) = (principal.take()?, startup.take()?);
            match authorise(&live, settings, tls.as_ref(), &what, &who, &id) {
                Ok((role, target, database, account)) => {
                    let done = match machine.accept() {
                        Ok(done) => done,
                        Err(error) => {
                            tracing::error!(%error, "login not accepted by its machine");
                            return None;
                        }
                    };
                    reader.unread(done.leftover);
                    return Some(Entered {
                        id,
                        live,
                        reader,
                        writer,
                        tls: tls.is_some(),
                        startup: done.startup,
                        protocol: done.protocol,
                        principal: who,
                        role,
                        target,
                        database,
                        account,
                    });
                }
                Err(refused) => {
                    shard.metrics.logins_refused.add(1);
                    tracing::info!(%source, session_id = %id, subject = %who.subject, sqlstate = %String::from_utf8_lossy(&refused.sqlstate), "access refused");
                    machine.refuse(&refused);
                    continue;
                }
            }
        }
        if machine.wants_input() {
            match reader.recv().await {
                Ok(bytes) => {
                    if let Err(error) = machine.handle_input(bytes) {
                        shard.metrics.logins_refused.add(1);
                        tracing::info!(%source, %error, "login refused");
                    }
                }
                Err(_) => return None,
            }
        }
    }
}

fn now_unix_s() -> u64 {
    engine::wall_clock_us() / 1_000_000
}

fn certificate_principal(
    shard: &Shard,
    tls: Option<&TlsInfo>,
) -> Option<Result<Principal, IdentityError>> {
    let chain = &tls?.peer_certificates;
    if chain.is_empty() {
        return None;
    }
    Some(
        shard
            .shared
            .verifier
            .load()
            .verify_certificate(chain, now_unix_s()),
    )
}

/// Verifies a token; where its issuer has no such key, the keys are fetched
/// anew once, for all who wait.
async fn token_principal(shard: &Rc<Shard>, token: &[u8]) -> Result<Principal, IdentityError> {
    let verified = shard
        .shared
        .verifier
        .load()
        .verify_token(token, now_unix_s());
    match verified {
        Err(IdentityError::UnknownKey { issuer })
            if crate::serve::keys::refresh(shard, &issuer).await =>
        {
            shard
                .shared
                .verifier
                .load()
                .verify_token(token, now_unix_s())
        }
        other => other,
    }
}

/// Role, target, database and account; or the refusal, which is the same for a
/// target that does not exist and one that is closed to this principal.
fn authorise(
    live: &Live,
    settings: &Listener,
    tls: Option<&TlsInfo>,
    startup: &StartupMessage,
    principal: &Principal,
    id: &SessionId,
) -> Result<(RoleRef, Target, String, String), Refusal> {
    let label = id.to_string();
    let asked = String::from_utf8_lossy(&startup.database).into_owned();
    let user = String::from_utf8_lossy(&startup.user).into_owned();
    let closed = || refusal::no_access(&asked, &label);
    let route = route(live, settings, tls, &asked);
    let target = live.config.target(&route.target).ok_or_else(closed)?;
    let role = live
        .policy
        .role_for(&principal.groups, &target.name)
        .ok_or_else(closed)?;
    let extras = live.config.role(role.name()).ok_or_else(closed)?;
    let matches = |globs: &[String], name: &str| globs.iter().any(|g| glob_matches(g, name));
    let database = match route.database {
        Some(named) if matches(&target.databases, &named) => named,
        Some(_) => return Err(closed()),
        None => target
            .database
            .clone()
            .unwrap_or_else(|| target.name.clone()),
    };
    let account = match &target.account {
        Account::Fixed(name) => name.clone(),
        Account::FromAgent if matches(&extras.accounts, &user) => user,
        Account::FromAgent => return Err(closed()),
    };
    if startup.replication != Replication::No {
        return Err(
            Refusal::new(b"42501", "replication connections are not allowed here")
                .with_detail(format!("action=deny rule=\"replication\" session={label}"))
                .with_hint("Connect without the start-up parameter `replication`."),
        );
    }
    // The server cuts longer names, so that rules would see another name than it.
    if database.len() > NAME_BYTES_MAX || account.len() > NAME_BYTES_MAX {
        return Err(closed());
    }
    let facts = policy_facts(principal, &target.name, &database, &account);
    settings_allowed(live, &role, &facts, startup, &label)?;
    Ok((role, target.clone(), database, account))
}

fn route(live: &Live, settings: &Listener, tls: Option<&TlsInfo>, asked: &str) -> Route {
    if let Some(target) = &settings.target {
        return Route {
            target: target.clone(),
            database: Some(asked.to_string()),
        };
    }
    let (first, rest) = match asked.split_once('/') {
        Some((target, database)) => (target, Some(database.to_string())),
        None => (asked, None),
    };
    if live.config.target(first).is_some() {
        return Route {
            target: first.to_string(),
            database: rest,
        };
    }
    // By the name of the host the agent connected to: `TARGET.gateway.example`.
    let label = tls
        .and_then(|t| t.server_name.as_deref())
        .and_then(|n| n.split('.').next());
    match label.filter(|l| live.config.target(l).is_some()) {
        Some(target) => Route {
            target: target.to_string(),
            database: Some(asked.to_string()),
        },
        None => Route {
            target: first.to_string(),
            database: rest,
        },
    }
}

/// Settings that every client sends at start-up and that change nothing a
/// rule could mean.
const HARMLESS_SETTINGS: &[&str] = &[
    "application_name",
    "client_encoding",
    "datestyle",
    "intervalstyle",
    "timezone",
    "extra_float_digits",
    "geqo",
    "fallback_application_name",
];

/// A start-up setting is a SET by another name: under rules that read SQL it
/// must pass as that SET would, and what cannot be read is refused.
fn settings_allowed(
    live: &Live,
    role: &RoleRef,
    facts: &policy::SessionFacts,
    startup: &StartupMessage,
    label: &str,
) -> Result<(), Refusal> {
    if !role.reads_sql() {
        return Ok(());
    }
    let no = |what: &str| {
        Refusal::new(b"42501", format!("start-up setting refused: {what}"))
            .with_detail(format!(
                "action=deny rule=\"startup_setting\" session={label}"
            ))
            .with_hint("Connect without it, or ask for a rule that allows the SET it stands for.")
    };
    if !startup.options.unread.is_empty() {
        return Err(no("`options` holds a word that is no setting"));
    }
    for (name, value) in startup.settings() {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        if HARMLESS_SETTINGS.contains(&name.as_str()) {
            continue;
        }
        let quoted_name = name.replace('"', "\"\"");
        let quoted_value = String::from_utf8_lossy(value).replace('\'', "''");
        let text = format!("SET \"{quoted_name}\" TO '{quoted_value}'");
        let verdict = policy::explain(&live.policy, role, facts, &text).decision;
        if !verdict.is_allow() {
            return Err(no(&name));
        }
    }
    Ok(())
}

/// A cancel request: the right key cancels its session, a wrong one nothing.
/// The agent learns neither, as from the server itself.
fn cancel(shard: &Rc<Shard>, request: &postgres::cancel::CancelRequest, source: SocketAddr) {
    let shared = &shard.shared;
    let minute = now_unix_s() / 60;
    if !shared.cancel_misses.allows(source.ip(), minute) {
        shard.metrics.cancels_refused.add(1);
        return;
    }
    let Some(found) = shared.cancels.find(request.process_id, &request.secret_key) else {
        shared.cancel_misses.missed(source.ip(), minute);
        shard.metrics.cancels_refused.add(1);
        tracing::info!(%source, "cancel request with a wrong key");
        return;
    };
    let from = source.to_string();
    found.shard.run(move || {
        if let Some(session) = Shard::current().and_then(|s| s.session(&found.session)) {
            session.cancel(from);
        }
    });
}

/// The parameters that go on to the target, in order.
pub fn parameters(startup: &StartupMessage) -> Vec<(Bytes, Bytes)> {
    let mut out = startup.parameters.clone();
    if !startup.options.raw.is_empty() {
        out.push((Bytes::from_static(b"options"), startup.options.raw.clone()));
    }
    out
}

/// A frame masked without changing its length, for the few messages that are
/// relayed before there is a session.
pub fn masked_frame(shard: &Shard, frame: &[u8]) -> Bytes {
    let masker = shard.masker();
    let mut findings = masking::Findings::new();
    let masked = masker
        .borrow_mut()
        .mask_value(frame, masking::Fill::SameLength, &mut findings);
    masked.map_or_else(
        || Bytes::copy_from_slice(frame),
        |m| BytesMut::from(m.as_slice()).freeze(),
    )
}

/// Whether `name` fits a pattern with `*` for any run of characters.
fn glob_matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names_only() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "ac", true),
            ("a*b*c", "a-b-c", true),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("a*c", "acd", false),
            ("a*a", "a", false),
            ("", "x", false),
        ] {
            assert_eq!(glob_matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
