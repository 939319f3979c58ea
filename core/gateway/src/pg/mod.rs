//! PostgreSQL sessions: from an accepted connection to the end.
//!
//! ```text
//! accept ─ PROXY header? ─ admission ─ login (agent) ─ role ─ dial (target) ─ welcome ─ session
//!                                        └ cancel request ─▶ the session with that key
//! ```

mod content;
mod dial;
mod digest;
mod hold;
mod login;
mod record;
mod refusal;
pub mod session;

use crate::config::checked::Listener;
use crate::serve::limits::Admitted;
use crate::serve::proxy_protocol;
use crate::serve::shard::Shard;
use bytes::{Bytes, BytesMut};
use engine::{Conn, End};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;

/// Serves one accepted connection to its end.
pub async fn serve(shard: Rc<Shard>, listener: usize, mut conn: Conn, peer: SocketAddr) {
    shard.metrics.connections.add(1);
    let live = shard.shared.live.load_full();
    let Some(settings) = live.config.listeners.get(listener) else {
        return;
    };
    let gateway = &live.config.gateway;
    let until = engine::now().after(gateway.login);
    let mut source = peer;
    if settings
        .proxy_protocol_from
        .contains(&peer.ip().to_canonical())
    {
        match engine::deadline(until, named_source(conn)).await {
            Ok(Ok((rest, named))) => {
                conn = rest;
                source = named.unwrap_or(peer);
            }
            Ok(Err(error)) => {
                shard.metrics.connections_refused.add(1);
                tracing::warn!(peer = %peer, %error, "proxy header refused");
                return;
            }
            Err(_) => {
                shard.metrics.login_timeouts.add(1);
                return;
            }
        }
    }
    let ip = source.ip().to_canonical();
    let admitted = shard.shared.admission.admit(
        ip,
        gateway.connections_max,
        gateway.connections_per_source_max,
        gateway.logins_per_source_max,
    );
    let admitted = match admitted {
        Ok(places) if !shard.shared.stopping.load(Ordering::Relaxed) => places,
        Ok(_) => return refuse_early(conn, b"57P03", "the gateway is stopping").await,
        Err(limit) => {
            shard.metrics.connections_refused.add(1);
            tracing::warn!(source = %ip, limit, "connection refused by a limit");
            return refuse_early(conn, b"53300", "too many connections").await;
        }
    };
    login_and_run(
        shard.clone(),
        settings,
        listener,
        conn,
        source,
        admitted,
        until,
    )
    .await;
}

async fn login_and_run(
    shard: Rc<Shard>,
    settings: &Listener,
    listener: usize,
    conn: Conn,
    source: SocketAddr,
    mut admitted: Admitted,
    until: engine::Time,
) {
    let entered = match engine::deadline(
        until,
        login::agent(&shard, settings, listener, conn, source),
    )
    .await
    {
        Ok(Some(entered)) => entered,
        Ok(None) => return,
        Err(_) => {
            shard.metrics.login_timeouts.add(1);
            tracing::info!(source = %source, "login not finished in time");
            return;
        }
    };
    admitted.logged_in();
    if let Some((session, down, up, places)) = dial::enter(&shard, entered, source).await {
        shard.metrics.logins.add(1);
        // In a task of its own: the login's state, some 12 KiB, goes now.
        engine::spawn(async move {
            session.run(down, up, places).await;
            drop(admitted);
        })
        .detach();
    }
}

/// An error before anything was read: clients show it to their user.
async fn refuse_early(conn: Conn, sqlstate: &[u8; 5], message: &str) {
    let (_reader, writer) = conn.split();
    writer.queue(login::fatal(&postgres::Refusal::new(sqlstate, message)));
    writer.finish();
    let at = engine::now().after(std::time::Duration::from_secs(1));
    let _ = engine::deadline(at, writer.flushed()).await;
}

#[derive(Debug, thiserror::Error)]
enum ProxyError {
    #[error("{0}")]
    Header(#[from] proxy_protocol::HeaderError),
    #[error("connection ended in the header: {0}")]
    End(#[from] End),
}

/// Reads the balancer's header; what follows it is put back.
async fn named_source(conn: Conn) -> Result<(Conn, Option<SocketAddr>), ProxyError> {
    let (mut reader, writer) = conn.split();
    let mut seen = BytesMut::new();
    loop {
        seen.extend_from_slice(&reader.recv().await?);
        if let Some(header) = proxy_protocol::parse(&seen)? {
            let rest: Bytes = seen.freeze().slice(header.length..);
            if !rest.is_empty() {
                reader.unread(rest);
            }
            return Ok((Conn::from_parts(reader, writer), header.source));
        }
    }
}
