//! Known secrets: the credentials that the gateway injects or is told to
//! guard, and how hard each would be to guess.

use zeroize::Zeroizing;

/// Below this many bits a secret can be found by asking: whoever sees which
/// of their guesses comes back masked needs 2^79 tries at most. `check`
/// refuses such secrets unless the operator confirms them.
pub const KNOWN_BITS_MIN: f32 = 80.0;

/// One credential to look for, in all its derived forms.
#[derive(Clone)]
pub struct KnownSecret {
    /// Label such as `password:prod`; written into placeholders.
    pub kind: String,
    /// The secret itself, at most [`crate::KNOWN_BYTES_MAX`] bytes.
    pub bytes: Zeroizing<Vec<u8>>,
}

impl KnownSecret {
    /// A secret with its label.
    pub fn new(kind: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        KnownSecret {
            kind: kind.into(),
            bytes: Zeroizing::new(bytes.into()),
        }
    }
}

impl std::fmt::Debug for KnownSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KnownSecret")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// A known secret that is easy to guess, or too short to be looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct WeakKnown {
    /// Label of the secret.
    pub kind: String,
    /// Estimate of [`known_secret_bits`].
    pub bits: f32,
    /// Whether it is looked for at all: a secret shorter than
    /// [`crate::KNOWN_BYTES_MIN`] would mask ordinary text and is not.
    pub searched: bool,
}

/// How many of its letters a word-like run is worth, in bits each. English
/// has about 1 to 1.5 bits a letter in long text; lists of words, as in
/// passphrases, come to 2 to 2.6.
const WORD_LETTER_BITS: f32 = 2.5;

/// A run of this many letters of one case is counted as a word. In random
/// base62 fewer than one position in fifty begins such a run.
const WORD_LETTERS_MIN: usize = 5;

/// What a byte is worth that repeats or continues the one before (`aaa`,
/// `123`, `cba`).
const PREDICTED_BITS: f32 = 1.0;

/// An estimate, in bits, of how hard these bytes are to guess.
///
/// It is made to err on the low side: letters in word-like runs, repeats,
/// sequences and repeated blocks count little, so a random secret of lower
/// case letters only is underestimated. It knows no dictionary.
pub fn known_secret_bits(bytes: &[u8]) -> f32 {
    let unit = match period(bytes) {
        Some(len) => bytes.get(..len).unwrap_or(bytes),
        None => bytes,
    };
    let each = alphabet_bits(unit);
    let mut bits = 0.0;
    let mut rest = unit;
    let mut before: Option<u8> = None;
    while let Some((first, after)) = rest.split_first() {
        let word = word_len(rest);
        if word >= WORD_LETTERS_MIN && !unit.iter().all(u8::is_ascii_hexdigit) {
            bits += WORD_LETTER_BITS * word as f32;
            before = rest.get(word - 1).copied();
            rest = rest.get(word..).unwrap_or(&[]);
            continue;
        }
        let predicted = before.is_some_and(|b| first.abs_diff(b) <= 1);
        bits += if predicted {
            PREDICTED_BITS.min(each)
        } else {
            each
        };
        before = Some(*first);
        rest = after;
    }
    bits
}

/// Bits of one byte drawn evenly from the smallest usual alphabet that holds
/// all of them.
fn alphabet_bits(bytes: &[u8]) -> f32 {
    if bytes.iter().all(u8::is_ascii_digit) {
        return 10f32.log2();
    }
    let has = |class: fn(&u8) -> bool| bytes.iter().any(class);
    let one_case = !(has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase));
    if one_case && bytes.iter().all(u8::is_ascii_hexdigit) {
        return 4.0;
    }
    let mut size = 0.0;
    for (present, count) in [
        (has(u8::is_ascii_digit), 10.0),
        (has(u8::is_ascii_lowercase), 26.0),
        (has(u8::is_ascii_uppercase), 26.0),
        (has(|b| b.is_ascii_punctuation() || *b == b' '), 20.0),
        (has(|b| b.is_ascii_control() || !b.is_ascii()), 128.0),
    ] {
        if present {
            size += count;
        }
    }
    f32::max(size, 1.0).log2()
}

/// Length of the letters of one case at the start; a capital may lead small
/// ones.
fn word_len(bytes: &[u8]) -> usize {
    let (Some(first), Some(second)) = (bytes.first(), bytes.get(1)) else {
        return 0;
    };
    if !first.is_ascii_alphabetic() {
        return 0;
    }
    let same = |b: &u8| {
        if second.is_ascii_lowercase() {
            b.is_ascii_lowercase()
        } else {
            b.is_ascii_uppercase() && first.is_ascii_uppercase()
        }
    };
    1 + bytes.iter().skip(1).take_while(|b| same(b)).count()
}

/// The length of the block that the bytes repeat at least twice, if they do.
fn period(bytes: &[u8]) -> Option<usize> {
    (1..=bytes.len() / 2).find(|len| {
        bytes
            .iter()
            .zip(bytes.iter().skip(*len))
            .all(|(a, b)| a == b)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessable_secrets_fall_below_the_limit() {
        for weak in [
            "postgres",
            "hunter2",
            "Password123!",
            "correcthorsebattery",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "12345678901234567890",
            "abcdefghijklmnopqrstuvwxyz",
            "xK9$xK9$xK9$xK9$xK9$xK9$xK9$",
            "8f3a9c01d2",
            "",
        ] {
            let bits = known_secret_bits(weak.as_bytes());
            assert!(bits < KNOWN_BITS_MIN, "{weak}: {bits}");
        }
    }

    #[test]
    fn random_secrets_are_above_the_limit() {
        for strong in [
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYq8Zr2LvT3u",
            "9f86d081884c7d659a2feaa0c55ad015",
            "Tq7vXz2LmP9dRk4WbN8s",
            "correct horse battery staple umbrella violin carbon",
        ] {
            let bits = known_secret_bits(strong.as_bytes());
            assert!(bits >= KNOWN_BITS_MIN, "{strong}: {bits}");
        }
    }

    #[test]
    fn debug_of_a_known_secret_shows_its_label_only() {
        let shown = format!("{:?}", KnownSecret::new("password:prod", "s3cr3t-planted"));
        assert!(shown.contains("password:prod"));
        assert!(
            !shown.contains("s3cr3t") && !shown.contains("115, 51"),
            "{shown}"
        );
    }
}
