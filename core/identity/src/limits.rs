//! Every maximum of this crate, with its reason.

/// Bytes of a whole token as presented. Tokens of large organisations carry
/// hundreds of groups (some 10 KiB seen in practice); PostgreSQL clients send
/// the password in one message, which the gateway caps higher.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a JWT's first part, still encoded. A header names an algorithm, a
/// key and a type; embedded keys and certificate chains are of no use to us.
pub const JWT_HEADER_BYTES_MAX: usize = 2 * 1024;

/// Bytes of a subject, an issuer or the name behind a delegation.
pub const NAME_BYTES_MAX: usize = 512;

/// Groups of one principal.
pub const GROUPS_MAX: usize = 1024;

/// Bytes of one group's name.
pub const GROUP_BYTES_MAX: usize = 256;

/// Bytes of a token's `jti`.
pub const TOKEN_ID_BYTES_MAX: usize = 256;

/// Bytes of a JWK set document. The largest public one known holds a few dozen
/// RSA keys with certificates.
pub const JWKS_BYTES_MAX: usize = 1024 * 1024;

/// Keys of one JWK set, used and skipped together.
pub const JWKS_KEYS_MAX: usize = 256;

/// Issuers of one verifier.
pub const ISSUERS_MAX: usize = 64;

/// Audiences of one issuer.
pub const AUDIENCES_MAX: usize = 64;

/// Seconds of clock difference that an issuer may be granted.
pub const LEEWAY_S_MAX: u64 = 300;

/// Gateway tokens in one table: some 30 MB at this size.
pub const TOKENS_MAX: usize = 100_000;

/// Bytes of one DER certificate; rustls has its own limit on the chain.
pub const CERTIFICATE_BYTES_MAX: usize = 64 * 1024;
