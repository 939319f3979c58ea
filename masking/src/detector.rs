//! What a detector is: one pattern, and the second checks that decide whether
//! what it matched is a secret.

/// A set of byte values, for boundaries and tails.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ByteSet([u64; 4]);

impl ByteSet {
    /// The empty set.
    pub const EMPTY: ByteSet = ByteSet([0; 4]);

    /// The bytes of a list such as `"A-Za-z0-9_-"`: `a-z` is a range, a `-`
    /// at either end stands for itself, every other byte stands for itself.
    pub const fn of(list: &str) -> ByteSet {
        let bytes = list.as_bytes();
        let mut set = [0u64; 4];
        let mut index = 0;
        while index < bytes.len() {
            let first = bytes[index];
            let mut last = first;
            if index + 2 < bytes.len() && bytes[index + 1] == b'-' {
                last = bytes[index + 2];
                index += 2;
            }
            let mut byte = first;
            while byte <= last {
                set[(byte >> 6) as usize] |= 1 << (byte & 63);
                if byte == u8::MAX {
                    break;
                }
                byte += 1;
            }
            index += 1;
        }
        ByteSet(set)
    }

    /// Whether the set holds this byte.
    pub const fn has(&self, byte: u8) -> bool {
        self.0[(byte >> 6) as usize] & (1 << (byte & 63)) != 0
    }

    /// The bytes of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=u8::MAX).filter(|byte| self.has(*byte))
    }
}

impl std::fmt::Debug for ByteSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown: Vec<u8> = self.iter().collect();
        write!(f, "ByteSet({})", shown.escape_ascii())
    }
}

/// What may not stand directly beside a match. The edge of the value always
/// satisfies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Boundary {
    /// Anything may.
    #[default]
    None,
    /// No digit `0-9`.
    NotDigit,
    /// No ASCII letter or digit.
    NotAlnum,
    /// No ASCII letter, digit or `_`.
    NotWord,
    /// No byte of standard base64: `A-Za-z0-9+/`.
    NotBase64,
    /// No byte of URL-safe base64: `A-Za-z0-9_-`.
    NotBase64Url,
}

impl Boundary {
    /// The bytes that may not stand there; `None` where anything may.
    pub const fn refused(self) -> Option<ByteSet> {
        match self {
            Boundary::None => None,
            Boundary::NotDigit => Some(ByteSet::of("0-9")),
            Boundary::NotAlnum => Some(ByteSet::of("A-Za-z0-9")),
            Boundary::NotWord => Some(ByteSet::of("A-Za-z0-9_")),
            Boundary::NotBase64 => Some(ByteSet::of("A-Za-z0-9+/")),
            Boundary::NotBase64Url => Some(ByteSet::of("A-Za-z0-9_-")),
        }
    }

    /// Whether this neighbour (`None` at the edge of the value) is allowed.
    pub const fn allows(self, neighbour: Option<u8>) -> bool {
        match (self.refused(), neighbour) {
            (Some(refused), Some(byte)) => !refused.has(byte),
            _ => true,
        }
    }
}

/// A checksum inside the match itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// Luhn's (ISO/IEC 7812-1, annex B) over the ASCII digits of the match;
    /// other bytes are skipped.
    Luhn,
    /// As GitHub and npm do it: what follows the first `_` ends with six
    /// base62 digits (`0-9A-Za-z`) that are the CRC-32 of what stands between.
    Crc32Base62,
}

/// What is masked beyond the end of a match, byte by byte and without end, so
/// that a long secret costs no hold-back: only its head must be recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// As long as bytes are of this set.
    While(ByteSet),
    /// As long as bytes are of this set, but no further than the end of the
    /// first occurrence of `end` after the match.
    Until {
        /// Bytes that belong to the secret.
        set: ByteSet,
        /// What ends it; masked as well. 1 to 64 bytes.
        end: String,
    },
}

impl Tail {
    /// The bytes that the tail goes on over.
    pub const fn set(&self) -> &ByteSet {
        match self {
            Tail::While(set) => set,
            Tail::Until { set, .. } => set,
        }
    }
}

/// Finds one kind of secret. A match counts when the pattern matches and all
/// second checks hold; each looks at the value alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Detector {
    /// Name of the kind, written into placeholders and counted in findings.
    /// 1 to 64 of `A-Za-z0-9._:/-`.
    pub kind: String,
    /// A regular expression over bytes (no Unicode, `.` is any byte), without
    /// anchors, boundaries, look-around or unbounded repetition.
    pub pattern: String,
    /// What may not stand before the match.
    pub left: Boundary,
    /// What may not stand after the match.
    pub right: Boundary,
    /// Least Shannon entropy of the match, in bits per byte (0 to 8).
    pub min_entropy: Option<f32>,
    /// Checksum that must be right.
    pub checksum: Option<Checksum>,
    /// Words (ASCII case ignored) of which one must stand whole within the
    /// [`crate::CONTEXT_BYTES`] before the match. Empty: no such check.
    pub context: Vec<String>,
    /// Bytes at the start and at the end of the match that stay unmasked (the
    /// `://` and `@` around a password, say).
    pub keep: (usize, usize),
    /// What is masked beyond the match. Needs `keep.1 == 0`.
    pub tail: Option<Tail>,
    /// Longest match the author expects, in bytes, at most
    /// [`crate::DETECTOR_LEN_MAX`]; a pattern that can match more is refused.
    pub len_max: usize,
}

impl Detector {
    /// A detector with no second checks.
    pub fn new(kind: impl Into<String>, pattern: impl Into<String>) -> Self {
        Detector {
            kind: kind.into(),
            pattern: pattern.into(),
            left: Boundary::None,
            right: Boundary::None,
            min_entropy: None,
            checksum: None,
            context: Vec::new(),
            keep: (0, 0),
            tail: None,
            len_max: crate::DETECTOR_LEN_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_set_reads_ranges_and_lone_dashes() {
        let set = ByteSet::of("a-c_-");
        let bytes: Vec<u8> = set.iter().collect();
        assert_eq!(bytes, b"-_abc");
        assert_eq!(ByteSet::of("\x00-\x7f").iter().count(), 128);
        assert_eq!(ByteSet::of("").iter().count(), 0);
    }

    #[test]
    fn the_edge_of_a_value_satisfies_every_boundary() {
        for boundary in [
            Boundary::None,
            Boundary::NotDigit,
            Boundary::NotAlnum,
            Boundary::NotWord,
            Boundary::NotBase64,
            Boundary::NotBase64Url,
        ] {
            assert!(boundary.allows(None));
            assert!(boundary.allows(Some(b'"')));
            assert_eq!(boundary.allows(Some(b'7')), boundary == Boundary::None);
        }
        assert!(Boundary::NotAlnum.allows(Some(b'_')) && !Boundary::NotWord.allows(Some(b'_')));
    }
}
