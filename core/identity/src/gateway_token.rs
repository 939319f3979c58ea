//! Tokens that the gateway mints itself: their shape, their table, their check.
//!
//! Shape: `pct_<id>_<secret>`. The id is 16 characters of lower-case base32
//! (80 bits) and no secret; the secret is 32 random bytes in unpadded base64url
//! (43 characters), in which `_` may occur: only the first two are separators.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::{constant_time, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Map;
use zeroize::Zeroizing;

use crate::error::{IdentityError, TokenTableError};
use crate::limits::TOKENS_MAX;
use crate::principal::{CredentialKind, Principal};

/// How every gateway token begins; secret scanners can look for it.
pub const GATEWAY_TOKEN_PREFIX: &str = "pct_";

/// The issuer of principals that a gateway token makes. No JWT issuer may have
/// this name.
pub const GATEWAY_ISSUER: &str = "portcullis";

const SECRET_BYTES: usize = 32;
const ID_CHARS: usize = 16;

/// SHA-256 over a fixed prefix, the token's id and its secret.
///
/// A plain hash is enough: the secret is 256 random bits, so there is nothing
/// to guess that a slow hash would protect, and a slow one would let strangers
/// burn a shard's time with wrong passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// From 32 stored bytes; `None` for another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes to store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn of(id: &str, secret: &[u8; SECRET_BYTES]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"portcullis gateway token\0");
        context.update(id.as_bytes());
        context.update(b"\0");
        context.update(secret);
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Self(hash)
    }

    fn matches(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// A token just made. `token` is shown once and never kept.
pub struct MintedToken {
    /// Names the token everywhere.
    pub id: String,
    /// What the agent presents; wiped when dropped.
    pub token: Zeroizing<String>,
    /// What is stored.
    pub hash: TokenHash,
}

impl fmt::Debug for MintedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MintedToken")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Makes a token of 32 bytes out of a cryptographic random source. The id is
/// cut from a hash of them, so the caller draws once and the id says nothing
/// that helps to find the secret.
#[must_use]
pub fn mint_gateway_token(random: [u8; 32]) -> MintedToken {
    let random = Zeroizing::new(random);
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"portcullis gateway token id\0");
    context.update(random.as_ref());
    let id = base32(context.finish().as_ref(), ID_CHARS);
    let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(random.as_ref()));
    let token = Zeroizing::new(format!("{GATEWAY_TOKEN_PREFIX}{id}_{}", secret.as_str()));
    let hash = TokenHash::of(&id, &random);
    MintedToken { id, token, hash }
}

/// One token as it is stored: everything but the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayToken {
    /// 16 characters of base32.
    pub id: String,
    /// See [`TokenHash`].
    pub hash: TokenHash,
    /// The principal's subject.
    pub subject: String,
    /// The principal's groups.
    pub groups: Vec<String>,
    /// When it was minted, Unix seconds.
    pub created_unix_s: u64,
    /// The first second at which it is no longer good; `None`: never ends.
    pub expires_unix_s: Option<u64>,
    /// When it was revoked; `None`: it was not.
    pub revoked_unix_s: Option<u64>,
}

/// What a table says of a token id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenStatus {
    /// Good.
    Live,
    /// Past its end.
    Expired,
    /// Taken back; sessions that live on it must end.
    Revoked,
    /// Not in the table.
    Unknown,
}

/// All gateway tokens at one moment; immutable.
#[derive(Debug, Default)]
pub struct TokenTable {
    by_id: HashMap<String, GatewayToken>,
}

impl TokenTable {
    /// A table of these tokens.
    ///
    /// # Errors
    /// Two of one id, or more than [`TOKENS_MAX`].
    pub fn new(tokens: impl IntoIterator<Item = GatewayToken>) -> Result<Self, TokenTableError> {
        let mut by_id = HashMap::new();
        for token in tokens {
            if by_id.len() >= TOKENS_MAX {
                return Err(TokenTableError::TooMany {
                    count_max: TOKENS_MAX,
                });
            }
            if let Some(old) = by_id.insert(token.id.clone(), token) {
                return Err(TokenTableError::Repeated { id: old.id });
            }
        }
        Ok(Self { by_id })
    }

    /// The same table with one token added, or put in the place of the one of
    /// its id.
    ///
    /// # Errors
    /// It would be more than [`TOKENS_MAX`].
    pub fn with_token(&self, token: GatewayToken) -> Result<Self, TokenTableError> {
        let mut by_id = self.by_id.clone();
        by_id.insert(token.id.clone(), token);
        if by_id.len() > TOKENS_MAX {
            return Err(TokenTableError::TooMany {
                count_max: TOKENS_MAX,
            });
        }
        Ok(Self { by_id })
    }

    /// How many tokens it has, dead ones too.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The token of this id.
    #[must_use]
    pub fn token(&self, id: &str) -> Option<&GatewayToken> {
        self.by_id.get(id)
    }

    /// What became of a token: for sessions that live on it
    /// ([`Principal::credential_id`] is the id).
    #[must_use]
    pub fn status(&self, id: &str, now_unix_s: u64) -> TokenStatus {
        match self.by_id.get(id) {
            None => TokenStatus::Unknown,
            Some(token) if token.revoked_unix_s.is_some() => TokenStatus::Revoked,
            Some(token) if token.expires_unix_s.is_some_and(|end| now_unix_s >= end) => {
                TokenStatus::Expired
            }
            Some(_) => TokenStatus::Live,
        }
    }

    /// Checks a presented token that begins with [`GATEWAY_TOKEN_PREFIX`].
    pub(crate) fn verify(
        &self,
        presented: &[u8],
        now_unix_s: u64,
    ) -> Result<Principal, IdentityError> {
        let (id, secret) = parse(presented)?;
        let Some(token) = self.by_id.get(id) else {
            return Err(IdentityError::UnknownToken);
        };
        // The secret first: whoever does not hold it learns nothing of the rest.
        if !token.hash.matches(&TokenHash::of(id, &secret)) {
            return Err(IdentityError::UnknownToken);
        }
        match self.status(id, now_unix_s) {
            TokenStatus::Live => Ok(Principal {
                issuer: GATEWAY_ISSUER.to_owned(),
                subject: token.subject.clone(),
                groups: token.groups.clone(),
                claims: Map::new(),
                on_behalf_of: None,
                expires_at: token.expires_unix_s,
                credential: CredentialKind::GatewayToken,
                credential_id: token.id.clone(),
            }),
            TokenStatus::Expired => Err(IdentityError::Expired),
            TokenStatus::Revoked => Err(IdentityError::Revoked {
                token_id: token.id.clone(),
            }),
            TokenStatus::Unknown => Err(IdentityError::UnknownToken),
        }
    }
}

/// The place where the control plane publishes tables and shards read them.
/// A read costs some nanoseconds and takes no lock.
#[derive(Debug, Default)]
pub struct TokenStore {
    table: ArcSwap<TokenTable>,
}

impl TokenStore {
    /// The table in force.
    #[must_use]
    pub fn snapshot(&self) -> Arc<TokenTable> {
        self.table.load_full()
    }

    /// Puts a table in force, for everyone from now on.
    pub fn publish(&self, table: TokenTable) {
        self.table.store(Arc::new(table));
    }
}

fn parse(presented: &[u8]) -> Result<(&str, Zeroizing<[u8; SECRET_BYTES]>), IdentityError> {
    let malformed = IdentityError::Malformed {
        part: "gateway token",
    };
    let text = std::str::from_utf8(presented).map_err(|_| malformed.clone())?;
    let rest = text
        .strip_prefix(GATEWAY_TOKEN_PREFIX)
        .ok_or_else(|| malformed.clone())?;
    let (id, secret) = rest.split_once('_').ok_or_else(|| malformed.clone())?;
    if id.len() != ID_CHARS || !id.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7')) {
        return Err(malformed);
    }
    // 43 characters decode to 32 bytes; the decoder wants 33 for its estimate.
    let mut buffer = Zeroizing::new([0; SECRET_BYTES + 1]);
    if secret.len() != 43 {
        return Err(malformed);
    }
    match URL_SAFE_NO_PAD.decode_slice(secret, buffer.as_mut()) {
        Ok(SECRET_BYTES) => {}
        _ => return Err(malformed),
    }
    let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
    let (head, _) = buffer.split_at(SECRET_BYTES);
    bytes.copy_from_slice(head);
    Ok((id, bytes))
}

/// RFC 4648 base32 in lower case, the first `chars` characters of it; bits that
/// fill no character are left out.
fn base32(bytes: &[u8], chars: usize) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut out = String::with_capacity(chars);
    let (mut held, mut bits) = (0_u32, 0_u32);
    for byte in bytes {
        held = (held << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            if out.len() == chars {
                return out;
            }
            bits -= 5;
            out.push(char::from(ALPHABET[(held >> bits) as usize & 31]));
        }
        held &= (1 << bits) - 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(minted: &MintedToken) -> GatewayToken {
        GatewayToken {
            id: minted.id.clone(),
            hash: minted.hash.clone(),
            subject: "agent".into(),
            groups: vec!["g".into()],
            created_unix_s: 10,
            expires_unix_s: Some(100),
            revoked_unix_s: None,
        }
    }

    #[test]
    fn a_minted_token_is_its_principal_until_it_expires() {
        let minted = mint_gateway_token([9; 32]);
        let table = TokenTable::new([live(&minted)]).unwrap();
        let principal = table.verify(minted.token.as_bytes(), 99).unwrap();
        assert_eq!(principal.subject, "agent");
        assert_eq!(principal.issuer, GATEWAY_ISSUER);
        assert_eq!(principal.credential_id, minted.id);
        assert_eq!(principal.expires_at, Some(100));
        assert!(principal.is_valid_at(99) && !principal.is_valid_at(100));
        let late = table.verify(minted.token.as_bytes(), 100);
        assert_eq!(late, Err(IdentityError::Expired));
    }

    #[test]
    fn a_revoked_token_is_refused_only_to_who_holds_its_secret() {
        let minted = mint_gateway_token([9; 32]);
        let mut token = live(&minted);
        token.revoked_unix_s = Some(50);
        let table = TokenTable::new([token]).unwrap();
        let id = minted.id.clone();
        assert_eq!(
            table.verify(minted.token.as_bytes(), 60),
            Err(IdentityError::Revoked {
                token_id: id.clone()
            })
        );
        assert_eq!(table.status(&id, 60), TokenStatus::Revoked);
        let other = mint_gateway_token([8; 32]);
        let secret = &other.token[GATEWAY_TOKEN_PREFIX.len() + ID_CHARS..];
        let crossed = format!("{GATEWAY_TOKEN_PREFIX}{id}{secret}");
        assert_eq!(
            table.verify(crossed.as_bytes(), 60),
            Err(IdentityError::UnknownToken)
        );
    }

    #[test]
    fn refuses_every_truncation_every_changed_byte_and_any_tail() {
        let minted = mint_gateway_token([0xA7; 32]);
        let table = TokenTable::new([live(&minted)]).unwrap();
        let good = minted.token.as_bytes();
        for cut in 0..good.len() {
            assert!(table.verify(&good[..cut], 50).is_err(), "cut at {cut}");
        }
        for at in 0..good.len() {
            for flip in [1_u8, 0x20, 0x80] {
                let mut bad = good.to_vec();
                bad[at] ^= flip;
                assert!(
                    table.verify(&bad, 50).is_err(),
                    "byte {at} flipped by {flip}"
                );
            }
        }
        for tail in ["=", "A", "_", " ", "\n", "\0"] {
            let mut bad = good.to_vec();
            bad.extend_from_slice(tail.as_bytes());
            assert!(table.verify(&bad, 50).is_err(), "tail {tail:?}");
        }
    }

    #[test]
    fn ids_and_secrets_have_the_stated_shape() {
        let minted = mint_gateway_token([0xFF; 32]);
        assert_eq!(minted.token.len(), 4 + 16 + 1 + 43);
        assert_ne!(minted.id, mint_gateway_token([0xFE; 32]).id);
        assert_eq!(base32(b"fooba", 16), "mzxw6ytb");
        assert_eq!(base32(b"fooba", 4), "mzxw");
    }

    #[test]
    fn debug_output_shows_neither_secret_nor_hash() {
        let minted = mint_gateway_token([0x41; 32]);
        let shown = format!("{minted:?} {:?}", live(&minted));
        let secret = minted.token.rsplit('_').next().unwrap().to_owned();
        assert!(!shown.contains(&secret));
        assert!(!shown.contains(&format!("{:?}", minted.hash.as_bytes())));
    }

    #[test]
    fn a_table_refuses_repeated_ids() {
        let minted = mint_gateway_token([1; 32]);
        let error = TokenTable::new([live(&minted), live(&minted)]).unwrap_err();
        assert_eq!(error, TokenTableError::Repeated { id: minted.id });
    }

    #[test]
    fn a_published_table_is_seen_by_who_holds_the_store() {
        let store = Arc::new(TokenStore::default());
        let reader = Arc::clone(&store);
        assert!(reader.snapshot().is_empty());
        store.publish(TokenTable::new([live(&mint_gateway_token([1; 32]))]).unwrap());
        assert_eq!(reader.snapshot().len(), 1);
    }
}
