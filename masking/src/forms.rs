//! The shapes in which a known secret can show up: raw, and as the encodings
//! that databases, shells and programs write by themselves.
//!
//! Not covered, since only someone who computes writes it: compression,
//! encryption, rot13, reversal, base64 with line breaks inside, and stacks of
//! encodings beyond those listed.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::KNOWN_BYTES_MIN;

/// Every form of a secret, each at least [`KNOWN_BYTES_MIN`] bytes long,
/// without repetition and in a fixed order.
pub(crate) fn derived_forms(secret: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut forms = BTreeSet::new();
    forms.insert(secret.to_vec());
    for upper in [false, true] {
        forms.insert(hex(secret, upper));
        forms.insert(each(secret, |byte, out| escape(out, b"%", byte, upper)));
        forms.insert(each(secret, |byte, out| escape(out, b"\\x", byte, upper)));
        for kept in [UNRESERVED, COMPONENT, WHOLE_URI] {
            forms.insert(percent(secret, kept, upper, false));
            forms.insert(percent(secret, kept, upper, true));
        }
    }
    base64_forms(secret, &mut forms);
    for text in json_forms(secret) {
        forms.extend(json_forms(&text));
        forms.insert(text);
    }
    for numeric in [Numeric::Octal, Numeric::Hex(false), Numeric::Hex(true)] {
        for quotes in [&b""[..], b"\"", b"'", b"\"'"] {
            forms.insert(c_escape(secret, quotes, numeric));
        }
    }
    let bytea = bytea_escape(secret);
    forms.insert(copy_text(&bytea));
    forms.insert(bytea);
    forms.insert(copy_text(secret));
    forms.insert(double(secret, b"'"));
    forms.insert(double(secret, b"\""));
    forms.insert(double(secret, b"\\"));
    forms.insert(each(secret, |byte, out| match byte {
        b'\'' => out.extend_from_slice(b"'\\''"),
        byte => out.push(byte),
    }));
    for apostrophe in ["&#39;", "&#x27;", "&apos;", "'"] {
        forms.insert(markup(secret, "&quot;", apostrophe));
        forms.insert(markup(secret, "&#34;", apostrophe));
        forms.insert(markup(secret, "\"", apostrophe));
    }
    for wide in utf16_forms(secret) {
        base64_forms(&wide, &mut forms);
        forms.insert(wide);
    }
    forms
        .into_iter()
        .filter(|form| form.len() >= KNOWN_BYTES_MIN)
        .map(Zeroizing::new)
        .collect()
}

fn each(bytes: &[u8], write: impl Fn(u8, &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        write(*byte, &mut out);
    }
    out
}

fn escape(out: &mut Vec<u8>, lead: &[u8], byte: u8, upper: bool) {
    out.extend_from_slice(lead);
    out.extend_from_slice(&hex(&[byte], upper));
}

/// Two digits a byte; this is also `bytea` in hex format behind its `\x`.
fn hex(bytes: &[u8], upper: bool) -> Vec<u8> {
    let digits: &[u8; 16] = if upper {
        b"0123456789ABCDEF"
    } else {
        b"0123456789abcdef"
    };
    each(bytes, |byte, out| {
        out.push(digits[usize::from(byte >> 4)]);
        out.push(digits[usize::from(byte & 15)]);
    })
}

/// Kept by RFC 3986, section 2.3.
const UNRESERVED: &[u8] = b"-._~";
/// Kept by JavaScript's `encodeURIComponent`.
const COMPONENT: &[u8] = b"-._~!*'()";
/// Kept by JavaScript's `encodeURI`.
const WHOLE_URI: &[u8] = b"-._~!*'();/?:@&=+$,#";

fn percent(bytes: &[u8], kept: &[u8], upper: bool, plus: bool) -> Vec<u8> {
    each(bytes, |byte, out| match byte {
        b' ' if plus => out.push(b'+'),
        byte if byte.is_ascii_alphanumeric() || kept.contains(&byte) => out.push(byte),
        byte => escape(out, b"%", byte, upper),
    })
}

/// Base64 of whatever contains the secret: at each of three alignments the
/// characters that depend on the secret alone; and of the secret by itself
/// with its ending.
fn base64_forms(secret: &[u8], forms: &mut BTreeSet<Vec<u8>>) {
    for (padded, bare) in [(&STANDARD, &STANDARD_NO_PAD), (&URL_SAFE, &URL_SAFE_NO_PAD)] {
        forms.insert(padded.encode(secret).into_bytes());
        forms.insert(bare.encode(secret).into_bytes());
        for lead in 0..3usize {
            let mut text = vec![0u8; lead];
            text.extend_from_slice(secret);
            let encoded = bare.encode(&text).into_bytes();
            // Characters touched by bytes before or after the secret go.
            let first = (lead * 8).div_ceil(6);
            let last = text.len() * 8 / 6;
            if let Some(stable) = encoded.get(first..last) {
                forms.insert(stable.to_vec());
            }
        }
    }
}

/// JSON strings (RFC 8259, section 7) as common writers make them.
fn json_forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let text = std::str::from_utf8(secret).ok();
    let mut forms = Vec::new();
    for slash in [false, true] {
        for html in ["", "<>&", "<>&'"] {
            for upper in [false, true] {
                for ascii in [false, true] {
                    match text {
                        Some(text) => forms.push(json(text, slash, html, upper, ascii)),
                        None => {
                            // Bytes that are no text are often written as Latin-1.
                            let latin: String =
                                secret.iter().map(|byte| char::from(*byte)).collect();
                            forms.push(json(&latin, slash, html, upper, ascii));
                        }
                    }
                }
            }
        }
    }
    forms.sort();
    forms.dedup();
    forms
}

fn json(text: &str, slash: bool, html: &str, upper: bool, ascii: bool) -> Vec<u8> {
    let mut out = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '/' if slash => out.push_str("\\/"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || html.contains(c) || (ascii && !c.is_ascii()) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    let _ = if upper {
                        write!(out, "\\u{unit:04X}")
                    } else {
                        write!(out, "\\u{unit:04x}")
                    };
                }
            }
            c => out.push(c),
        }
    }
    out.into_bytes()
}

#[derive(Clone, Copy)]
enum Numeric {
    Octal,
    Hex(bool),
}

/// A C string literal, as debuggers, Python's and Rust's `{:?}` write it.
fn c_escape(secret: &[u8], quotes: &[u8], numeric: Numeric) -> Vec<u8> {
    each(secret, |byte, out| match byte {
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        byte if quotes.contains(&byte) => out.extend_from_slice(&[b'\\', byte]),
        b' '..=b'~' => out.push(byte),
        byte => match numeric {
            Numeric::Octal => octal(byte, out),
            Numeric::Hex(upper) => escape(out, b"\\x", byte, upper),
        },
    })
}

fn octal(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[
        b'\\',
        b'0' + (byte >> 6),
        b'0' + ((byte >> 3) & 7),
        b'0' + (byte & 7),
    ]);
}

/// PostgreSQL's `bytea_output = escape` (manual, section 8.4.2).
fn bytea_escape(secret: &[u8]) -> Vec<u8> {
    each(secret, |byte, out| match byte {
        b'\\' => out.extend_from_slice(b"\\\\"),
        b' '..=b'~' => out.push(byte),
        byte => octal(byte, out),
    })
}

/// PostgreSQL's COPY text format (manual, COPY, "Text Format").
fn copy_text(secret: &[u8]) -> Vec<u8> {
    each(secret, |byte, out| match byte {
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\x08' => out.extend_from_slice(b"\\b"),
        b'\x0c' => out.extend_from_slice(b"\\f"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        b'\x0b' => out.extend_from_slice(b"\\v"),
        byte => out.push(byte),
    })
}

/// Quotes doubled, as in SQL literals (`'`) and CSV, arrays and records (`"`).
fn double(secret: &[u8], quote: &[u8]) -> Vec<u8> {
    each(secret, |byte, out| {
        if quote.contains(&byte) {
            out.push(byte);
        }
        out.push(byte);
    })
}

fn markup(secret: &[u8], quote: &str, apostrophe: &str) -> Vec<u8> {
    each(secret, |byte, out| match byte {
        b'&' => out.extend_from_slice(b"&amp;"),
        b'<' => out.extend_from_slice(b"&lt;"),
        b'>' => out.extend_from_slice(b"&gt;"),
        b'"' => out.extend_from_slice(quote.as_bytes()),
        b'\'' => out.extend_from_slice(apostrophe.as_bytes()),
        byte => out.push(byte),
    })
}

/// UTF-16 in both orders, of the text, or of the bytes as Latin-1.
fn utf16_forms(secret: &[u8]) -> [Vec<u8>; 2] {
    let units: Vec<u16> = match std::str::from_utf8(secret) {
        Ok(text) => text.encode_utf16().collect(),
        Err(_) => secret.iter().map(|byte| u16::from(*byte)).collect(),
    };
    [
        units.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
        units.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"p\"w\\1/\xc3\xa9 'x\n+&z";

    fn has(form: &[u8]) -> bool {
        derived_forms(SECRET)
            .iter()
            .any(|found| found.as_slice() == form)
    }

    #[test]
    fn writes_the_forms_that_programs_write() {
        for form in [
            SECRET,
            b"7022775c312fc3a92027780a2b267a",
            b"7022775C312FC3A92027780A2B267A",
            b"p%22w%5C1%2F%C3%A9%20%27x%0A%2B%26z",
            b"p%22w%5c1%2f%c3%a9+%27x%0a%2b%26z",
            b"p\\\"w\\\\1/\\u00e9 'x\\n+&z",
            b"p\\\"w\\\\1\\/\\u00E9 'x\\n+&z",
            b"p\\\"w\\\\1/\xc3\xa9 'x\\n+\\u0026z",
            b"p\\\"w\\\\1/\\303\\251 'x\\n+&z",
            b"p\\\"w\\\\1/\\xc3\\xa9 'x\\n+&z",
            b"p\"w\\\\1/\\303\\251 'x\\012+&z",
            b"p\"w\\\\\\\\1/\\\\303\\\\251 'x\\\\012+&z",
            b"p\"w\\\\1/\xc3\xa9 'x\\n+&z",
            b"p\"w\\1/\xc3\xa9 ''x\n+&z",
            b"p\"\"w\\1/\xc3\xa9 'x\n+&z",
            b"p&quot;w\\1/\xc3\xa9 &#39;x\n+&amp;z",
            b"cCJ3XDEvw6kgJ3gKKyZ6",
        ] {
            assert!(has(form), "{}", form.escape_ascii());
        }
    }

    #[test]
    fn base64_is_found_at_every_alignment_whatever_stands_around() {
        let secret = b"Tq7vXz2LmP9dRk4W";
        let forms = derived_forms(secret);
        for lead in 0..7usize {
            for trail in 0..4usize {
                let mut text = vec![0xa7; lead];
                text.extend_from_slice(secret);
                text.extend(std::iter::repeat_n(0x5b, trail));
                for encoded in [STANDARD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
                    let found = forms
                        .iter()
                        .filter(|form| memchr::memmem::find(encoded.as_bytes(), form).is_some())
                        .map(|form| form.len())
                        .max();
                    // All but at most one character at each end.
                    assert!(
                        found.is_some_and(|len| len * 6 >= secret.len() * 8 - 10),
                        "{lead} {trail}"
                    );
                }
            }
        }
    }

    #[test]
    fn utf16_has_both_orders() {
        let forms = derived_forms(b"pass-word");
        assert!(
            forms
                .iter()
                .any(|f| f.as_slice() == b"p\0a\0s\0s\0-\0w\0o\0r\0d\0")
        );
        assert!(
            forms
                .iter()
                .any(|f| f.as_slice() == b"\0p\0a\0s\0s\0-\0w\0o\0r\0d")
        );
    }

    #[test]
    fn no_form_is_short_and_none_is_there_twice() {
        for secret in [&b"abcdef"[..], SECRET, b"\x00\x01\x02\x03\x04\x05\xff"] {
            let forms = derived_forms(secret);
            let set: BTreeSet<_> = forms.iter().map(|f| f.to_vec()).collect();
            assert_eq!(set.len(), forms.len());
            assert!(forms.iter().all(|form| form.len() >= KNOWN_BYTES_MIN));
        }
    }
}
