//! The session's id: one value that log, record, API and error text share.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wincode::{SchemaRead, SchemaWrite};

/// RFC 4648's base32 alphabet in lower case: safe in file names, URLs and SQL errors.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Characters of a printed id: 128 bits at five bits a character, rounded up.
pub const SESSION_ID_CHARACTERS: usize = 26;

/// A session's id: 128 random bits, printed as 26 lower-case base32 characters without padding.
///
/// The last character carries three bits, so only eight characters may stand there; `FromStr`
/// refuses the rest, so that each id has exactly one spelling.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, SchemaWrite, SchemaRead)]
pub struct SessionId(pub [u8; 16]);

impl SessionId {
    /// A fresh id from the operating system's random source.
    ///
    /// # Panics
    /// When the system has no randomness to give: a gateway cannot work without it.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = [0u8; 16];
        aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
        Self(bytes)
    }

    /// The id with these 16 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes, as they stand in a record.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        let mut text = [0u8; SESSION_ID_CHARACTERS];
        for (index, place) in text.iter_mut().enumerate() {
            // Character 0 holds the highest five bits; the last holds three, shifted up by two.
            let low = 128i32 - 5 * (index as i32 + 1);
            let five = if low >= 0 { bits >> low } else { bits << -low };
            *place = ALPHABET[(five & 31) as usize];
        }
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a session's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session id is 26 characters of a-z and 2-7")]
pub struct SessionIdError;

impl FromStr for SessionId {
    type Err = SessionIdError;

    /// Reads exactly what `Display` writes: lower case, 26 characters, no padding.
    fn from_str(text: &str) -> Result<Self, SessionIdError> {
        if text.len() != SESSION_ID_CHARACTERS {
            return Err(SessionIdError);
        }
        let mut bits: u128 = 0;
        for (index, byte) in text.bytes().enumerate() {
            let five = match byte {
                b'a'..=b'z' => byte - b'a',
                b'2'..=b'7' => byte - b'2' + 26,
                _ => return Err(SessionIdError),
            };
            if index + 1 < SESSION_ID_CHARACTERS {
                bits = (bits << 5) | u128::from(five);
            } else if five & 3 == 0 {
                bits = (bits << 3) | u128::from(five >> 2);
            } else {
                return Err(SessionIdError);
            }
        }
        Ok(Self(bits.to_be_bytes()))
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prints_known_values() {
        assert_eq!(SessionId([0; 16]).to_string(), "aaaaaaaaaaaaaaaaaaaaaaaaaa");
        assert_eq!(
            SessionId([0xff; 16]).to_string(),
            "7777777777777777777777777".to_owned() + "4"
        );
        // RFC 4648, section 10: "foobar" is MZXW6YTBOI.
        let mut bytes = [0u8; 16];
        bytes[..6].copy_from_slice(b"foobar");
        assert!(SessionId(bytes).to_string().starts_with("mzxw6ytboi"));
    }

    #[test]
    fn refuses_every_second_spelling() {
        for text in [
            "",
            "aaaaaaaaaaaaaaaaaaaaaaaaa",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "Aaaaaaaaaaaaaaaaaaaaaaaaaa",
            "aaaaaaaaaaaaaaaaaaaaaaaaab",
            "aaaaaaaaaaaaaaaaaaaaaaaa1a",
            "aaaaaaaaaaaaaaaaaaaaaaaa\u{e9}",
        ] {
            assert_eq!(text.parse::<SessionId>(), Err(SessionIdError), "{text:?}");
        }
    }

    #[test]
    fn two_generated_ids_differ() {
        assert_ne!(SessionId::generate(), SessionId::generate());
    }

    proptest! {
        #[test]
        fn reads_what_it_prints(bytes: [u8; 16]) {
            let id = SessionId(bytes);
            prop_assert_eq!(id.to_string().parse::<SessionId>(), Ok(id));
        }
    }
}
