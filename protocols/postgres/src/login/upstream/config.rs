//! One login at a target: who, how, and how well protected.

use bytes::Bytes;
use zeroize::Zeroizing;

#[cfg(doc)]
use super::UpstreamFailure;
use crate::scram::ScramKeys;
use crate::startup::ProtocolVersion;

/// The credential that the gateway injects. `Debug` does not show it.
#[derive(Clone)]
pub enum UpstreamCredential {
    /// None: the server trusts the address, or knows the TLS client certificate.
    None,
    /// A password, for SCRAM, MD5 or clear text.
    Password(Zeroizing<String>),
}

impl std::fmt::Debug for UpstreamCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            UpstreamCredential::None => "None",
            UpstreamCredential::Password(_) => "Password(..)",
        })
    }
}

/// How TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamTls {
    /// Not at all.
    Off,
    /// After an SSLRequest; a server that answers `N` fails the login.
    Request,
    /// At once (PostgreSQL 17 and later), with ALPN `postgresql`.
    Direct,
}

/// One login at a target. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// The account at the target.
    pub user: Bytes,
    /// The database; empty: the server's default, the account's name.
    pub database: Bytes,
    /// Further start-up parameters, in order.
    pub parameters: Vec<(Bytes, Bytes)>,
    /// The version to ask for; an older server negotiates it down. Servers before 9.3
    /// and some poolers refuse anything but 3.0: see
    /// [`UpstreamFailure::protocol_refused`].
    pub protocol: ProtocolVersion,
    /// What proves the account.
    pub credential: UpstreamCredential,
    /// Whether and how TLS is used.
    pub tls: UpstreamTls,
    /// Only SCRAM-SHA-256-PLUS is good enough.
    pub require_channel_binding: bool,
    /// Only SCRAM is good enough: a server that lets us in without proving that it knows
    /// the password's keys is refused.
    pub require_scram: bool,
    /// MD5 may be used.
    pub allow_md5: bool,
    /// The password may be sent in clear, inside TLS.
    pub allow_cleartext: bool,
    /// Fewest SCRAM rounds; 4096 as RFC 7677 says, unless the target is set lower.
    pub scram_iterations_min: u32,
    /// Random bytes, fresh for each login.
    pub nonce: [u8; 24],
    /// Keys of an earlier login *with the same password*.
    pub scram_keys: Option<ScramKeys>,
}

impl UpstreamConfig {
    /// A login without TLS and credential, protocol 3.2, SCRAM only.
    #[must_use]
    pub fn new(user: impl Into<Bytes>, database: impl Into<Bytes>, nonce: [u8; 24]) -> Self {
        UpstreamConfig {
            user: user.into(),
            database: database.into(),
            parameters: Vec::new(),
            protocol: ProtocolVersion::V3_2,
            credential: UpstreamCredential::None,
            tls: UpstreamTls::Off,
            require_channel_binding: false,
            require_scram: false,
            allow_md5: false,
            allow_cleartext: false,
            scram_iterations_min: 4096,
            nonce,
            scram_keys: None,
        }
    }
}
