//! Credentials in, a principal out.
//!
//! An agent presents a gateway token, a JWT of a configured issuer, or a
//! client certificate. This crate says who that is, from data that was handed
//! in beforehand: parsed signing keys, the table of gateway tokens, the rules
//! for reading names from certificates. It has no clock (`now` is an argument),
//! opens no connection and keeps nothing between calls, so it may be called on
//! any thread and shared by all of them.
//!
//! ```
//! use std::sync::Arc;
//! use identity::{GatewayToken, TokenStore, TokenTable, Verifier, VerifierConfig};
//! # use portcullis_identity as identity;
//!
//! // What the control plane does, once, when it mints a token:
//! let minted = identity::mint_gateway_token([7; 32]);
//! let token = GatewayToken {
//!     id: minted.id.clone(),
//!     hash: minted.hash.clone(),
//!     subject: "agent-1".into(),
//!     groups: vec!["agents".into()],
//!     created_unix_s: 1_000,
//!     expires_unix_s: Some(2_000),
//!     revoked_unix_s: None,
//! };
//! let store = Arc::new(TokenStore::default());
//! store.publish(TokenTable::new([token])?);
//!
//! // What a shard does at a login:
//! let verifier = Verifier::new(VerifierConfig { tokens: store, ..VerifierConfig::default() })?;
//! let principal = verifier.verify_token(minted.token.as_bytes(), 1_500)?;
//! assert_eq!(principal.subject, "agent-1");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Left to others: fetching key sets (the control thread), storing tokens (the
//! control plane), checking a certificate's chain and the proof that its key is
//! held (rustls), telling the agent anything (the gateway: every failure here
//! is one and the same refusal to the agent, the kind goes to the log).
//!
//! What guards it: every size has a named maximum in [`limits`]; the signature
//! algorithm is a property of the key, never of the token; claims that must be
//! there are checked to be there; no error carries any part of a credential.

#![forbid(unsafe_code)]

mod certificate;
mod error;
mod gateway_token;
mod jwks;
mod jwt;
pub mod limits;
mod principal;
mod verifier;

pub use certificate::{CertificateConfig, CertificateGroups, CertificateName};
pub use error::{ConfigError, IdentityError, JwksError, TokenTableError};
pub use gateway_token::{
    GATEWAY_ISSUER, GATEWAY_TOKEN_PREFIX, GatewayToken, MintedToken, TokenHash, TokenStatus,
    TokenStore, TokenTable, mint_gateway_token,
};
pub use jwks::KeySet;
pub use jwt::{IssuerConfig, LEEWAY_S_DEFAULT};
pub use principal::{CredentialKind, Principal};
pub use verifier::{Verifier, VerifierConfig};
