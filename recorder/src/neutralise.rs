//! Foreign bytes made safe to show: nothing that an agent or a target wrote can drive the reader's
//! terminal or hide from the reader's eye.

use std::fmt::Write;

/// The bytes as text on one line, with everything that is not plainly visible written as an escape.
///
/// Escaped are control characters (C0, DEL, C1; so no ESC, no newline, no tab survives),
/// bidirectional controls, zero-width and other invisible characters, spaces other than U+0020,
/// variation selectors, tags, private-use and unassigned-by-design characters, and bytes that are
/// not UTF-8. The forms are `\n`, `\r`, `\t`, `\xHH` below U+0080 and for raw bytes, and
/// `\u{HHHH}` otherwise. Everything else, the backslash too, stays as it is; nothing is left out.
#[must_use]
pub fn neutralise(bytes: &[u8]) -> String {
    escape(bytes, false)
}

/// As `neutralise`, but keeps newlines, for texts that are shown in several lines.
#[must_use]
pub fn neutralise_lines(bytes: &[u8]) -> String {
    escape(bytes, true)
}

fn escape(bytes: &[u8], keep_newlines: bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' if keep_newlines => out.push('\n'),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                // Writing to a String cannot fail.
                '\0'..='\x1f' | '\x7f' => {
                    let _ = write!(out, "\\x{:02x}", u32::from(character));
                }
                character if is_hidden(character) => {
                    let _ = write!(out, "\\u{{{:x}}}", u32::from(character));
                }
                character => out.push(character),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Characters that show nothing, show as a plain space, or change how others show.
/// Source: Unicode 16, general categories Cc, Cf, Zs, Zl, Zp, Co, the Default_Ignorable_Code_Point
/// property and the noncharacters, merged to ranges.
fn is_hidden(character: char) -> bool {
    matches!(u32::from(character),
        0x80..=0xa0            // C1 controls, no-break space
        | 0xad                 // soft hyphen
        | 0x34f                // combining grapheme joiner
        | 0x600..=0x605        // Arabic number signs
        | 0x61c                // Arabic letter mark
        | 0x6dd | 0x70f | 0x890..=0x891 | 0x8e2
        | 0x115f..=0x1160      // Hangul fillers
        | 0x1680               // Ogham space
        | 0x17b4..=0x17b5      // Khmer inherent vowels
        | 0x180b..=0x180f      // Mongolian selectors
        | 0x2000..=0x200f      // spaces, zero-width, marks of direction
        | 0x2028..=0x202f      // separators, embeddings and overrides, narrow space
        | 0x205f..=0x206f      // invisible operators, isolates
        | 0x2800               // Braille blank
        | 0x3000               // ideographic space
        | 0x3164               // Hangul filler
        | 0xe000..=0xf8ff      // private use
        | 0xfdd0..=0xfdef      // noncharacters
        | 0xfe00..=0xfe0f      // variation selectors
        | 0xfeff               // byte order mark
        | 0xffa0               // half-width Hangul filler
        | 0xfff0..=0xfffb      // interlinear annotations
        | 0xfffe..=0xffff
        | 0x110bd | 0x110cd | 0x13430..=0x1343f
        | 0x1bca0..=0x1bca3 | 0x1d159 | 0x1d173..=0x1d17a
        | 0xe0000..=0xe0fff    // tags, more variation selectors
        | 0xf0000..=0x10ffff   // private use planes
    ) || u32::from(character) & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn makes_each_trick_visible() {
        for (bytes, shown) in [
            (&b"select 1"[..], "select 1"),
            (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            (
                b"\x1b[2J\x1b]52;c;aGk=\x1b\\",
                "\\x1b[2J\\x1b]52;c;aGk=\\x1b\\",
            ),
            (b"a\r\nb\tc\x00\x7f", "a\\r\\nb\\tc\\x00\\x7f"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            (b"\x9b31m", "\\x9b31m"),
            ("drop\u{202e}elbat".as_bytes(), "drop\\u{202e}elbat"),
            ("\u{2066}a\u{2069}".as_bytes(), "\\u{2066}a\\u{2069}"),
            ("a\u{200b}b\u{feff}".as_bytes(), "a\\u{200b}b\\u{feff}"),
            ("a\u{a0}b".as_bytes(), "a\\u{a0}b"),
            ("x\u{e0041}".as_bytes(), "x\\u{e0041}"),
            ("\u{fe0f}\u{1fffe}".as_bytes(), "\\u{fe0f}\\u{1fffe}"),
            (
                "gr\u{fc}\u{df}e \u{4f60}\u{597d}".as_bytes(),
                "gr\u{fc}\u{df}e \u{4f60}\u{597d}",
            ),
            (b"\xff\xc3(", "\\xff\\xc3("),
            (b"E'\\n'", "E'\\n'"),
        ] {
            assert_eq!(neutralise(bytes), shown);
        }
    }

    #[test]
    fn keeps_newlines_only_where_asked() {
        assert_eq!(neutralise_lines(b"a\nb\r\n\x1b"), "a\nb\\r\n\\x1b");
    }

    proptest! {
        #[test]
        fn nothing_hidden_survives(bytes: Vec<u8>) {
            let shown = neutralise(&bytes);
            prop_assert!(shown.chars().all(|c| !c.is_control() && !is_hidden(c)));
        }

        #[test]
        fn nothing_hidden_survives_in_text(text in "\\PC*|.*|[\u{80}-\u{2fff}]*") {
            let shown = neutralise(text.as_bytes());
            prop_assert!(shown.chars().all(|c| !c.is_control() && !is_hidden(c)));
        }
    }
}
