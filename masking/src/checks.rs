//! Second checks: what makes a match of a pattern a secret.

use crate::{CONTEXT_BYTES, Checksum};

/// Shannon entropy of the bytes, in bits per byte.
pub(crate) fn entropy(bytes: &[u8]) -> f32 {
    let mut counts = [0u32; 256];
    for byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let total = bytes.len() as f32;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = *count as f32 / total;
            -share * share.log2()
        })
        .sum()
}

/// Whether one of the words (lower case) stands whole within
/// [`CONTEXT_BYTES`] before `at`, in either case.
pub(crate) fn context(value: &[u8], at: usize, words: &[Vec<u8>]) -> bool {
    let before = value
        .get(at.saturating_sub(CONTEXT_BYTES)..at)
        .unwrap_or(&[]);
    words.iter().any(|word| {
        before
            .windows(word.len().max(1))
            .any(|window| window.eq_ignore_ascii_case(word))
    })
}

/// Whether the checksum inside the match is right.
pub(crate) fn checksum(kind: Checksum, bytes: &[u8]) -> bool {
    match kind {
        Checksum::Luhn => luhn(bytes),
        Checksum::Crc32Base62 => crc32_base62(bytes),
    }
}

fn luhn(bytes: &[u8]) -> bool {
    let mut sum = 0u32;
    let mut digits = 0u32;
    for byte in bytes.iter().rev().filter(|byte| byte.is_ascii_digit()) {
        let mut digit = u32::from(byte - b'0');
        if digits % 2 == 1 {
            digit *= 2;
            if digit > 9 {
                digit -= 9;
            }
        }
        sum = sum.wrapping_add(digit);
        digits = digits.wrapping_add(1);
    }
    digits > 1 && sum.is_multiple_of(10)
}

/// Digits of the checksum at the end of a GitHub or npm token.
const CRC_DIGITS: usize = 6;

fn crc32_base62(bytes: &[u8]) -> bool {
    let Some(under) = bytes.iter().position(|byte| *byte == b'_') else {
        return false;
    };
    let rest = bytes.get(under + 1..).unwrap_or(&[]);
    let Some((body, digits)) = rest.split_last_chunk::<CRC_DIGITS>() else {
        return false;
    };
    let mut stated = 0u64;
    for byte in digits {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'Z' => byte - b'A' + 10,
            b'a'..=b'z' => byte - b'a' + 36,
            _ => return false,
        };
        stated = stated * 62 + u64::from(digit);
    }
    !body.is_empty() && stated == u64::from(crc32(body))
}

/// CRC-32 as in zip and Ethernet (reflected polynomial 0xEDB88320).
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let low = crc & 1;
            crc = (crc >> 1) ^ (0xEDB8_8320 & low.wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_gives_the_check_value_of_its_catalogue() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn crc32_base62_takes_the_right_token_and_no_changed_one() {
        // A revoked token that is public as the example of this checksum, and
        // its neighbours.
        let token = [b"ghp_zQWBuTSOoRi4A9spHcVY".as_slice(), b"5ncnsDkxkJ0mLq17"].concat();
        assert!(checksum(Checksum::Crc32Base62, &token));
        for index in 4..token.len() {
            let mut changed = token.clone();
            changed[index] = if changed[index] == b'x' { b'y' } else { b'x' };
            assert!(!checksum(Checksum::Crc32Base62, &changed), "{index}");
        }
        for len in 0..token.len() {
            assert!(!checksum(Checksum::Crc32Base62, &token[..len]), "{len}");
        }
    }

    #[test]
    fn luhn_takes_test_cards_and_no_others() {
        for card in [
            "4111111111111111",
            "4111 1111-1111 1111",
            "378282246310005",
            "5555555555554444",
        ] {
            assert!(checksum(Checksum::Luhn, card.as_bytes()), "{card}");
        }
        for card in ["4111111111111112", "1234567812345678", "", "0", "abc"] {
            assert!(!checksum(Checksum::Luhn, card.as_bytes()), "{card}");
        }
    }

    #[test]
    fn entropy_tells_hex_from_base64() {
        assert!(entropy(b"da39a3ee5e6b4b0d3255bfef95601890afd80709") <= 4.0);
        assert!(entropy(b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYq8Zr2LvT3u") > 4.1);
        assert_eq!(entropy(b"aaaa"), 0.0);
        assert_eq!(entropy(b""), 0.0);
    }

    #[test]
    fn context_looks_a_stated_way_back_and_needs_the_whole_word() {
        let words = vec![b"aws".to_vec()];
        let mut value = b"AwS".to_vec();
        value.resize(CONTEXT_BYTES, b' ');
        assert!(context(&value, CONTEXT_BYTES, &words));
        value.push(b' ');
        assert!(!context(&value, CONTEXT_BYTES + 1, &words));
        assert!(!context(b"aws", 2, &words));
        assert!(!context(b"aws", 99, &words));
    }
}
