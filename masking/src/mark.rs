//! What a mask looks like, and how one is recognised again: a request that
//! carries a mask is refused, so that nobody overwrites a secret with it.
//!
//! ```text
//! Placeholder   [masked:KIND]
//! SameLength    TTTTTTTT************      T = 8 bytes of tag, spans of >= 8 bytes
//!               *****                     shorter spans carry no tag
//! ```

use aws_lc_rs::hmac;
use memchr::memmem;

/// How masked content is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fill {
    /// `[masked:KIND]`, whatever the length of the secret. KIND is that of the
    /// match that begins the span.
    Placeholder,
    /// Exactly as many ASCII bytes as were masked: the keyed tag where the
    /// match that begins the span has room for it, `*` for the rest.
    SameLength,
}

/// Bytes of the tag that opens a same-length mask. Eight base62 digits are 47
/// bits: in other content one in 2^47 positions looks like it. Longer would
/// leave more short secrets without one.
pub const TAG_BYTES: usize = 8;

/// Longest kind, in bytes.
pub const KIND_BYTES_MAX: usize = 64;

/// The byte that same-length masks consist of behind the tag.
pub(crate) const FILL_BYTE: u8 = b'*';

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The tag of a rule set, and the search for both forms of mask.
pub(crate) struct Marks {
    tag: [u8; TAG_BYTES],
    find_tag: memmem::Finder<'static>,
    find_word: memmem::Finder<'static>,
}

impl Marks {
    /// The tag that belongs to a key: HMAC-SHA-256 over a fixed label, each of
    /// the first eight bytes written as one base62 digit.
    pub(crate) fn new(tag_key: &[u8; 32]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, tag_key);
        let code = hmac::sign(&key, b"portcullis same-length mask 1");
        let mut tag = [b'0'; TAG_BYTES];
        for (digit, byte) in tag.iter_mut().zip(code.as_ref()) {
            *digit = DIGITS[usize::from(*byte) % DIGITS.len()];
        }
        Marks {
            tag,
            find_tag: memmem::Finder::new(&tag).into_owned(),
            find_word: memmem::Finder::new(b"masked").into_owned(),
        }
    }

    /// The tag itself.
    pub(crate) fn tag(&self) -> &[u8; TAG_BYTES] {
        &self.tag
    }

    /// Whether the bytes hold a placeholder (plain, percent-encoded or with a
    /// JSON-escaped bracket) or our same-length tag. The start of a
    /// placeholder is enough: one that was cut short must not pass either.
    pub(crate) fn found_in(&self, bytes: &[u8]) -> bool {
        self.find_tag.find(bytes).is_some()
            || self.find_word.find_iter(bytes).any(|at| {
                let (left, right) = bytes.split_at(at);
                let right = right.get(b"masked".len()..).unwrap_or(&[]);
                let opened = left.ends_with(b"[") || ends_with_any(left, &[b"%5b", b"\\u005b"]);
                let kind = match right {
                    [b':', kind @ ..] | [b'%', b'3', b'A' | b'a', kind @ ..] => kind.first(),
                    _ => None,
                };
                opened && kind.is_some_and(|byte| kind_byte(*byte) || *byte == b'%')
            })
    }
}

fn ends_with_any(bytes: &[u8], ends: &[&[u8]]) -> bool {
    ends.iter().any(|end| {
        bytes
            .len()
            .checked_sub(end.len())
            .and_then(|from| bytes.get(from..))
            .is_some_and(|last| last.eq_ignore_ascii_case(end))
    })
}

/// Whether a kind can stand in a placeholder.
pub(crate) fn kind_is_valid(kind: &str) -> bool {
    (1..=KIND_BYTES_MAX).contains(&kind.len()) && kind.bytes().all(kind_byte)
}

fn kind_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'/' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_placeholders_in_every_spelling_and_nothing_else() {
        let marks = Marks::new(&[7; 32]);
        for text in [
            "update t set p = '[masked:password:prod]'",
            "p=%5Bmasked%3Aaws-access-key%5D",
            "p=%5bmasked:jwt",
            "{\"p\":\"\\u005bmasked:jwt]\"}",
            "masked [masked:jw",
        ] {
            assert!(marks.found_in(text.as_bytes()), "{text}");
        }
        for text in [
            "masked",
            "[masked]",
            "[masked:",
            "[masked:]",
            "(masked:jwt)",
            "unmasked:jwt",
            "[masked jwt]",
            "",
        ] {
            assert!(!marks.found_in(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn the_tag_depends_on_the_key_and_is_found() {
        let (one, two) = (Marks::new(&[1; 32]), Marks::new(&[2; 32]));
        assert_ne!(one.tag(), two.tag());
        assert!(one.tag().iter().all(u8::is_ascii_alphanumeric));
        let text = [b"x='".as_slice(), one.tag(), b"****'"].concat();
        assert!(one.found_in(&text) && !two.found_in(&text));
    }
}
