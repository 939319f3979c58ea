//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the client's part (RFC 5802, RFC 7677).
//!
//! ```text
//!  ClientFirst ── server-first ──► ServerFirst ── keys ──► ClientFinal ── server-final ──► verified
//!                                     └─ no cached keys that fit: Derivation::run, off the shard
//! ```
//!
//! The expensive part, thousands of HMAC rounds from password to keys, depends only on
//! password, salt and round count. [`ScramKeys`] holds its result; whoever keeps them
//! (beside the password that they came from, never beside another) logs in again for
//! five HMACs. All secrets are wiped when dropped, and no `Debug` shows one.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Mechanism without channel binding.
pub const SCRAM_SHA_256: &[u8] = b"SCRAM-SHA-256";
/// Mechanism with channel binding.
pub const SCRAM_SHA_256_PLUS: &[u8] = b"SCRAM-SHA-256-PLUS";

/// Bytes of a SHA-256 value.
const HASH_BYTES: usize = 32;
/// Most rounds that a server may ask for. PostgreSQL's default is 4096; a million takes
/// about half a second of a helper thread, and a server that asks for more is refused.
pub const ITERATIONS_MAX: u32 = 1_000_000;
/// Longest salt, in bytes. PostgreSQL's has 16.
pub const SALT_BYTES_MAX: usize = 1024;
/// Longest nonce, in bytes, ours and the server's part together.
pub const NONCE_BYTES_MAX: usize = 1024;

/// Why an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScramError {
    /// Target: a message that does not have its shape.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// Target: the nonce does not continue ours: an old exchange played again.
    #[error("server's nonce does not continue the client's")]
    Nonce,
    /// Target: a round count outside what is allowed.
    #[error("server asks for {0} rounds")]
    Iterations(u32),
    /// Target: the server does not know the keys that it should.
    #[error("server's signature is wrong")]
    Signature,
    /// Target: the server ends the exchange with an error of its own.
    #[error("server reports a SCRAM error")]
    ServerError,
    /// Us: keys of another salt or round count.
    #[error("keys do not belong to this exchange")]
    ForeignKeys,
}

/// What the password became under one salt and round count.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ScramKeys {
    salt: Vec<u8>,
    iterations: u32,
    client_key: [u8; HASH_BYTES],
    stored_key: [u8; HASH_BYTES],
    server_key: [u8; HASH_BYTES],
}

impl std::fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScramKeys")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

impl ScramKeys {
    /// True when these are keys for that salt and round count.
    #[must_use]
    pub fn fit(&self, salt: &[u8], iterations: u32) -> bool {
        self.salt == salt && self.iterations == iterations
    }
}

/// The work from password to keys: to be run where it stalls nobody.
#[derive(Clone)]
pub struct ScramDerivation {
    password: Zeroizing<Vec<u8>>,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

impl std::fmt::Debug for ScramDerivation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScramDerivation")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

impl ScramDerivation {
    /// Derives the keys: `iterations` HMAC rounds, about half a microsecond each.
    #[must_use]
    pub fn run(self) -> ScramKeys {
        let mut salted = Zeroizing::new([0u8; HASH_BYTES]);
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            self.iterations,
            &self.salt,
            &self.password,
            &mut salted[..],
        );
        let client_key = hmac(&salted[..], b"Client Key");
        let stored_key = sha256(&client_key);
        let server_key = hmac(&salted[..], b"Server Key");
        ScramKeys {
            salt: self.salt,
            iterations: self.iterations.get(),
            client_key,
            stored_key,
            server_key,
        }
    }
}

/// How the exchange is tied to the TLS session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelBinding {
    /// `n`: the client cannot (no TLS, or a certificate without a defined hash).
    Unsupported,
    /// `y`: the client could, but the server did not offer it. A server that did offer
    /// it sees that somebody removed the offer, and fails.
    NotOffered,
    /// `p=tls-server-end-point`: this hash of the server's certificate (RFC 5929).
    ServerEndPoint(Vec<u8>),
}

impl ChannelBinding {
    fn gs2_header(&self) -> &'static str {
        match self {
            ChannelBinding::Unsupported => "n,,",
            ChannelBinding::NotOffered => "y,,",
            ChannelBinding::ServerEndPoint(_) => "p=tls-server-end-point,,",
        }
    }
}

/// The exchange before the server's first message.
#[derive(Debug)]
pub struct ClientFirst {
    binding: ChannelBinding,
    nonce: String,
    first_bare: String,
}

impl ClientFirst {
    /// Starts an exchange. The nonce must be random and used once. The user name is left
    /// empty: PostgreSQL takes the one of the start-up message.
    #[must_use]
    pub fn new(binding: ChannelBinding, nonce: [u8; 24]) -> ClientFirst {
        ClientFirst::with_names(binding, "", BASE64.encode(nonce))
    }

    fn with_names(binding: ChannelBinding, user: &str, nonce: String) -> ClientFirst {
        let first_bare = format!("n={user},r={nonce}");
        ClientFirst {
            binding,
            nonce,
            first_bare,
        }
    }

    /// The mechanism that belongs to the binding.
    #[must_use]
    pub fn mechanism(&self) -> &'static [u8] {
        match self.binding {
            ChannelBinding::ServerEndPoint(_) => SCRAM_SHA_256_PLUS,
            _ => SCRAM_SHA_256,
        }
    }

    /// client-first-message.
    #[must_use]
    pub fn message(&self) -> String {
        format!("{}{}", self.binding.gs2_header(), self.first_bare)
    }

    /// Takes server-first-message: `r=NONCE,s=SALT,i=ROUNDS`, extensions after that.
    /// `iterations_min` and [`ITERATIONS_MAX`] bound the rounds. Errors: [`ScramError`].
    pub fn server_first(
        self,
        message: &[u8],
        iterations_min: u32,
    ) -> Result<ServerFirst, ScramError> {
        let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed("encoding"))?;
        let mut parts = text.split(',');
        let nonce = attribute(parts.next(), "r=").ok_or(ScramError::Malformed("nonce"))?;
        let salt = attribute(parts.next(), "s=").ok_or(ScramError::Malformed("salt"))?;
        let rounds = attribute(parts.next(), "i=").ok_or(ScramError::Malformed("rounds"))?;
        let printable = nonce.bytes().all(|b| (0x21..=0x7e).contains(&b));
        if !printable || nonce.len() > NONCE_BYTES_MAX {
            return Err(ScramError::Malformed("nonce"));
        }
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Nonce);
        }
        if salt.len() > SALT_BYTES_MAX.saturating_mul(2) {
            return Err(ScramError::Malformed("salt"));
        }
        let salt = BASE64
            .decode(salt)
            .map_err(|_| ScramError::Malformed("salt"))?;
        if salt.is_empty() || salt.len() > SALT_BYTES_MAX {
            return Err(ScramError::Malformed("salt"));
        }
        let digits = !rounds.is_empty() && rounds.bytes().all(|b| b.is_ascii_digit());
        let rounds: u32 = match digits {
            true => rounds.parse().unwrap_or(u32::MAX),
            false => return Err(ScramError::Malformed("rounds")),
        };
        let allowed = iterations_min.max(1)..=ITERATIONS_MAX;
        let iterations = NonZeroU32::new(rounds)
            .filter(|rounds| allowed.contains(&rounds.get()))
            .ok_or(ScramError::Iterations(rounds))?;

        let binding = match &self.binding {
            ChannelBinding::ServerEndPoint(hash) => {
                BASE64.encode([self.binding.gs2_header().as_bytes(), hash].concat())
            }
            other => BASE64.encode(other.gs2_header()),
        };
        let without_proof = format!("c={binding},r={nonce}");
        let auth_message = format!("{},{text},{without_proof}", self.first_bare);
        Ok(ServerFirst {
            salt,
            iterations,
            without_proof,
            auth_message,
        })
    }
}

fn attribute<'t>(part: Option<&'t str>, name: &str) -> Option<&'t str> {
    part?.strip_prefix(name)
}

/// The exchange between the server's first message and the proof: keys are needed.
pub struct ServerFirst {
    salt: Vec<u8>,
    iterations: NonZeroU32,
    without_proof: String,
    auth_message: String,
}

impl std::fmt::Debug for ServerFirst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerFirst")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

impl ServerFirst {
    /// True when cached keys fit, so that no derivation is needed.
    #[must_use]
    pub fn takes(&self, keys: &ScramKeys) -> bool {
        keys.fit(&self.salt, self.iterations.get())
    }

    /// The derivation that makes fitting keys of `password`, which goes through SASLprep
    /// (RFC 4013) where it can; else its bytes are taken, as PostgreSQL does.
    #[must_use]
    pub fn derivation(&self, password: &str) -> ScramDerivation {
        ScramDerivation {
            password: normalise(password),
            salt: self.salt.clone(),
            iterations: self.iterations,
        }
    }

    /// client-final-message, and what is needed to check the server's answer.
    /// Errors: [`ScramError::ForeignKeys`].
    pub fn client_final(self, keys: &ScramKeys) -> Result<(String, ClientFinal), ScramError> {
        if !self.takes(keys) {
            return Err(ScramError::ForeignKeys);
        }
        let signature = hmac(&keys.stored_key, self.auth_message.as_bytes());
        let mut proof = Zeroizing::new(keys.client_key);
        for (byte, mask) in proof.iter_mut().zip(signature) {
            *byte ^= mask;
        }
        let message = format!("{},p={}", self.without_proof, BASE64.encode(&proof[..]));
        let expected = hmac(&keys.server_key, self.auth_message.as_bytes());
        Ok((message, ClientFinal { expected }))
    }
}

/// The exchange after the proof: the server has yet to prove that it knows the keys.
pub struct ClientFinal {
    expected: [u8; HASH_BYTES],
}

impl std::fmt::Debug for ClientFinal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientFinal").finish_non_exhaustive()
    }
}

impl ClientFinal {
    /// Takes server-final-message: `v=SIGNATURE`, or `e=ERROR`. The signature is compared
    /// in constant time. Errors: [`ScramError`].
    pub fn server_final(self, message: &[u8]) -> Result<(), ScramError> {
        let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed("encoding"))?;
        let first = text.split(',').next();
        if attribute(first, "e=").is_some() {
            return Err(ScramError::ServerError);
        }
        let signature = attribute(first, "v=").ok_or(ScramError::Malformed("verifier"))?;
        let signature = BASE64
            .decode(signature)
            .map_err(|_| ScramError::Malformed("verifier"))?;
        constant_time::verify_slices_are_equal(&signature, &self.expected)
            .map_err(|_| ScramError::Signature)
    }
}

fn normalise(password: &str) -> Zeroizing<Vec<u8>> {
    match stringprep::saslprep(password) {
        Ok(std::borrow::Cow::Owned(prepared)) => Zeroizing::new(prepared.into_bytes()),
        Ok(std::borrow::Cow::Borrowed(prepared)) => Zeroizing::new(prepared.into()),
        Err(_) => Zeroizing::new(password.into()),
    }
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; HASH_BYTES] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    to_hash(tag.as_ref())
}

fn sha256(data: &[u8]) -> [u8; HASH_BYTES] {
    to_hash(digest::digest(&digest::SHA256, data).as_ref())
}

fn to_hash(bytes: &[u8]) -> [u8; HASH_BYTES] {
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(bytes);
    hash
}

#[cfg(test)]
pub(crate) mod tests;
