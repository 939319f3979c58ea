//! How a listener logs agents in.

#[cfg(doc)]
use super::DownstreamLogin;
use crate::startup::ProtocolVersion;

/// Whether the listener speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsPolicy {
    /// Never: SSLRequest is answered `N`.
    Off,
    /// If the agent asks.
    Optional,
    /// A start-up message in clear is refused. A CancelRequest in clear is not: libpq
    /// before 17 sends it so even for sessions inside TLS, and only the right key counts.
    Required,
}

/// How a listener logs agents in.
#[derive(Debug, Clone)]
pub struct DownstreamConfig {
    /// Whether TLS is spoken.
    pub tls: TlsPolicy,
    /// Whether a TLS handshake may come first, without SSLRequest (needs ALPN
    /// `postgresql`). Without effect where `tls` is off.
    pub direct_tls: bool,
    /// True where the agent is on this machine: passwords may then come in clear.
    pub loopback: bool,
    /// What OAUTHBEARER tells the client; without it [`DownstreamLogin::ask_oauth`] is
    /// refused.
    pub oauth: Option<OauthConfig>,
    /// Newest protocol that is agreed to.
    pub protocol_max: ProtocolVersion,
    /// Longest untyped packet, in bytes, without its length field. PostgreSQL: 10,000.
    pub startup_bytes_max: u32,
    /// Longest password message body, in bytes. Room for a JWT: 64 KiB.
    pub password_bytes_max: u32,
}

impl Default for DownstreamConfig {
    fn default() -> DownstreamConfig {
        DownstreamConfig {
            tls: TlsPolicy::Off,
            direct_tls: false,
            loopback: false,
            oauth: None,
            protocol_max: ProtocolVersion::V3_2,
            startup_bytes_max: 10_000,
            password_bytes_max: 64 * 1024,
        }
    }
}

/// Where a client finds the authorization server (RFC 7628, section 3.2.2).
#[derive(Debug, Clone)]
pub struct OauthConfig {
    /// The issuer, `https://...`. `/.well-known/openid-configuration` is added unless
    /// the text names a `/.well-known/` document itself.
    pub issuer_url: String,
    /// Scopes that the client shall ask for, separated by spaces; may be empty.
    pub scope: String,
}
