//! How the server reads text: followed, not assumed.
//!
//! Two settings decide: `standard_conforming_strings` and `client_encoding`.
//! The server reports both in ParameterStatus, but late: at the latest before
//! the ReadyForQuery behind the change. Until then the text is *in flux*: a
//! text that would read differently under another setting is refused while
//! anything that could change a setting is unanswered. What could change one
//! is every unit that runs anybody's code; transaction control, SHOW and SET
//! of other settings cannot, unless the transaction has changed one before.

use crate::sql::{Setting, sensitivity};
use std::borrow::Cow;

/// Longest text scanned on the shard for what is sensitive, in bytes; a longer
/// one in flux is refused for any backslash or non-ASCII byte.
const SCAN_BYTES_MAX: usize = 64 << 10;

/// A client encoding as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Utf8,
    /// ASCII bytes always stand for themselves.
    Safe,
    /// A quote or backslash can be the second byte of a character, or we do
    /// not know it.
    Unsafe,
}

/// What is known of how the server reads text.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    strings: Option<bool>,
    encoding: Option<Encoding>,
    server_utf8: bool,
    /// What RESET goes back to: whether both were good at start-up.
    reset_good: Option<(bool, bool)>,
    /// Whether a change may be undone by the end of the transaction.
    dirty: bool,
}

/// Why a text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Unknown,
    Strings,
    Encoding,
    InFlux,
    NotText,
    Change,
}

impl Refusal {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Refusal::Unknown => "the server has not said yet how it reads text",
            Refusal::Strings => {
                "standard_conforming_strings is off: rules cannot read the text as the server does; \
                 SET standard_conforming_strings = on first"
            }
            Refusal::Encoding => {
                "client_encoding is one in which a quote or backslash can be part of a character; \
                 SET client_encoding = 'UTF8' first"
            }
            Refusal::InFlux => {
                "the text would read differently under another setting while a request that may change it is unanswered"
            }
            Refusal::NotText => "the text cannot be read in the client's encoding",
            Refusal::Change => {
                "the statement would change how text is read (standard_conforming_strings, client_encoding)"
            }
        }
    }
}

fn encoding(name: &str) -> Encoding {
    let name: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect::<String>()
        .to_ascii_uppercase();
    match name.as_str() {
        "UTF8" | "UNICODE" => Encoding::Utf8,
        "SQLASCII" | "EUCJP" | "EUCCN" | "EUCKR" | "EUCTW" | "EUCJIS2004" | "MULEINTERNAL"
        | "KOI8" | "KOI8R" | "KOI8U" | "ABC" | "TCVN" | "TCVN5712" | "VSCII" | "ALT" | "WIN" => {
            Encoding::Safe
        }
        n if n.starts_with("LATIN")
            || n.starts_with("ISO8859")
            || n.starts_with("WIN125")
            || n.starts_with("WINDOWS125") =>
        {
            Encoding::Safe
        }
        "WIN866" | "WIN874" | "WINDOWS866" | "WINDOWS874" => Encoding::Safe,
        _ => Encoding::Unsafe,
    }
}

fn on(value: &str) -> bool {
    ["on", "true", "yes", "1"]
        .iter()
        .any(|v| v.eq_ignore_ascii_case(value))
}

impl Reading {
    /// Takes a ParameterStatus.
    pub(crate) fn parameter_status(&mut self, name: &str, value: &str) {
        match name {
            "standard_conforming_strings" => {
                self.dirty |= self.strings.is_some_and(|s| s != on(value));
                self.strings = Some(on(value));
            }
            "client_encoding" => {
                self.dirty |= self.encoding.is_some_and(|e| e != encoding(value));
                self.encoding = Some(encoding(value));
            }
            "server_encoding" => self.server_utf8 = encoding(value) == Encoding::Utf8,
            _ => {}
        }
    }

    /// The first unit comes: what was said so far is what RESET goes back to.
    pub(crate) fn first_unit(&mut self) {
        if self.reset_good.is_none() {
            self.reset_good = Some((
                self.strings == Some(true),
                self.encoding.is_some_and(|e| e != Encoding::Unsafe),
            ));
        }
    }

    /// A ReadyForQuery outside a transaction came and nothing is unanswered.
    pub(crate) fn settled(&mut self) {
        self.dirty = false;
    }

    /// Whether the end of the transaction may undo a change.
    pub(crate) fn dirty(&self) -> bool {
        self.dirty
    }

    /// One byte for the verdict's key.
    pub(crate) fn state(&self) -> u8 {
        match self.encoding {
            Some(Encoding::Utf8) if self.server_utf8 => 0,
            Some(Encoding::Utf8) => 1,
            Some(Encoding::Safe) => 2,
            _ => 3,
        }
    }

    /// Whether only a statement that mends the settings may pass.
    pub(crate) fn broken(&self) -> Option<Refusal> {
        match (self.strings, self.encoding) {
            (None, _) | (_, None) => Some(Refusal::Unknown),
            (Some(false), _) => Some(Refusal::Strings),
            (_, Some(Encoding::Unsafe)) => Some(Refusal::Encoding),
            _ => None,
        }
    }

    /// Reads a text as the server will, or says why not. `in_flux` = something
    /// that may change a setting is unanswered.
    pub(crate) fn read<'a>(&self, text: &'a [u8], in_flux: bool) -> Result<Cow<'a, str>, Refusal> {
        let plain = text.is_ascii();
        if in_flux && (!plain || memchr::memchr2(b'\\', b'&', text).is_some()) {
            if text.len() > SCAN_BYTES_MAX {
                return Err(Refusal::InFlux);
            }
            let found = sensitivity(text);
            if found.strings || found.encoding {
                return Err(Refusal::InFlux);
            }
        }
        if let Some(refusal) = self.broken() {
            // Only what reads the same in any case can mend it.
            let found = sensitivity(text);
            if refusal == Refusal::Unknown || !plain || found.strings {
                return Err(refusal);
            }
        }
        if plain {
            return std::str::from_utf8(text)
                .map(Cow::Borrowed)
                .map_err(|_| Refusal::NotText);
        }
        let utf8 = self.encoding == Some(Encoding::Utf8);
        if !(utf8 && self.server_utf8) && sensitivity(text).encoding {
            // Names in another encoding fold and cut by rules we do not know.
            return Err(Refusal::NotText);
        }
        if utf8 {
            return std::str::from_utf8(text)
                .map(Cow::Borrowed)
                .map_err(|_| Refusal::NotText);
        }
        // Only inside plain literals and comments: no fact rests on them.
        let ascii: Vec<u8> = text
            .iter()
            .map(|b| if *b < 0x80 { *b } else { b'?' })
            .collect();
        String::from_utf8(ascii)
            .map(Cow::Owned)
            .map_err(|_| Refusal::NotText)
    }

    /// Judges a change of settings.
    pub(crate) fn judge(&self, setting: &Setting) -> Result<(), Refusal> {
        let (strings_reset, encoding_reset) = self.reset_good.unwrap_or((false, false));
        let good = match setting.name.as_str() {
            "standard_conforming_strings" => match &setting.value {
                Some(value) => setting.known && on(value),
                None => setting.known && strings_reset,
            },
            "client_encoding" | "names" => match &setting.value {
                Some(value) => setting.known && encoding(value) != Encoding::Unsafe,
                None => setting.known && encoding_reset,
            },
            "all" => strings_reset && encoding_reset,
            "*" => false,
            _ => true,
        };
        if good { Ok(()) } else { Err(Refusal::Change) }
    }

    /// Whether a setting is one of the two, or may be.
    pub(crate) fn concerns(setting: &Setting) -> bool {
        matches!(
            setting.name.as_str(),
            "standard_conforming_strings" | "client_encoding" | "names" | "all" | "*"
        )
    }

    /// A change to one of the two has passed.
    pub(crate) fn changing(&mut self) {
        self.dirty = true;
    }
}
