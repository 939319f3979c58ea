//! Refusals that the server gives for us.
//!
//! In place of a refused message the server gets one that it must refuse itself: a
//! statement that starts with the word `portcullis_NONCE`, a syntax error at its first
//! token in any transaction state. Its ErrorResponse names that word, and only then is
//! it rewritten into our words. So skipping to Sync, the failed transaction and both
//! sides' view of it are the server's own doing, and its log names rule and session.
//!
//! What takes whose place:
//! - Query → Query. The server drops the unnamed statement, as it does for any Query.
//! - Parse of the unnamed statement → Parse of the unnamed statement: the server drops
//!   the old one before it reads the text, exactly as with a faulty text of the agent's.
//!   If it lived on, the agent's next Bind would run a statement it no longer means.
//! - Parse of a name, Bind, Describe, Execute, Close → Parse of a statement named by the
//!   nonce: no statement of the agent's is touched, and none comes into being.
//! - FunctionCall → Query: both are answered by ErrorResponse and ReadyForQuery. The
//!   unnamed statement is dropped, which a FunctionCall alone would not do.

use std::collections::VecDeque;

use aws_lc_rs::hmac;
use bytes::{Bytes, BytesMut};

use super::responses::Kind;
use crate::error::{Refusal, WireError};
use crate::wire::backend::{ReportBuilder, Severity};
use crate::wire::frontend::{self, Query};

/// Bytes of the HMAC that become a nonce: 96 bits, in hex 24 letters, so that the word
/// stays below the server's 63 bytes for a name.
const NONCE_BYTES: usize = 12;
/// Longest text behind the word; it is for the server's log only.
const LOG_TEXT_MAX: usize = 256;

/// The word that names one refusal.
#[derive(Clone, PartialEq, Eq)]
struct Nonce(String);

/// Refusals that stand in the response queue, in its order.
pub(super) struct Refusals {
    key: hmac::Key,
    count: u64,
    label: String,
    waiting: VecDeque<(Nonce, Refusal)>,
}

impl Refusals {
    pub(super) fn new(seed: &[u8; 16], label: &str) -> Refusals {
        Refusals {
            key: hmac::Key::new(hmac::HMAC_SHA256, seed),
            count: 0,
            label: label.to_owned(),
            waiting: VecDeque::new(),
        }
    }

    /// Writes the message that takes the place of one of `kind` and returns the kind that
    /// it has itself, and its word for [`Refusals::wait`].
    pub(super) fn substitute(
        &mut self,
        kind: Kind,
        unnamed: bool,
        refusal: &Refusal,
        out: &mut BytesMut,
    ) -> Result<(Kind, Word), WireError> {
        let nonce = self.next_nonce();
        let text = format!(
            "{} refused: {} session {}",
            nonce.0,
            log_text(&refusal.message),
            log_text(&self.label)
        );
        let kind = match kind {
            Kind::Query | Kind::FunctionCall => {
                Query {
                    text: text.as_bytes(),
                }
                .encode(out)?;
                Kind::Query
            }
            _ => {
                let name = if kind == Kind::Parse && unnamed {
                    ""
                } else {
                    nonce.0.as_str()
                };
                frontend::parse(out, name.as_bytes(), text.as_bytes(), &[])?;
                Kind::Parse
            }
        };
        Ok((kind, Word(nonce)))
    }

    /// The substitute stands in the queue.
    pub(super) fn wait(&mut self, word: Word, refusal: Refusal) {
        self.waiting.push_back((word.0, refusal));
    }

    /// The oldest substitute was answered with an error whose message field is `message`:
    /// its refusal, if the message names its word. It waits no longer either way.
    pub(super) fn answered(&mut self, message: &[u8]) -> Option<Refusal> {
        let (nonce, refusal) = self.waiting.pop_front()?;
        memchr::memmem::find(message, nonce.0.as_bytes()).map(|_| refusal)
    }

    /// The oldest substitute was discarded by the server.
    pub(super) fn skipped(&mut self) {
        self.waiting.pop_front();
    }

    fn next_nonce(&mut self) -> Nonce {
        self.count = self.count.wrapping_add(1);
        let tag = hmac::sign(&self.key, &self.count.to_be_bytes());
        let mut word = String::from("portcullis_");
        for byte in tag.as_ref().iter().take(NONCE_BYTES) {
            for digit in [byte >> 4, byte & 15] {
                word.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
        }
        Nonce(word)
    }
}

/// Proof that a substitute was written.
pub(super) struct Word(Nonce);

/// An ErrorResponse or NoticeResponse, by its severity, in our words. Texts that are not ASCII are sent so only where the
/// agent reads UTF-8.
pub(super) fn error_response(severity: Severity, refusal: &Refusal, utf8: bool) -> Bytes {
    let text = |text: &str| -> String {
        if utf8 || text.is_ascii() {
            return text.to_owned();
        }
        text.chars()
            .map(|c| if c.is_ascii() { c } else { '?' })
            .collect()
    };
    let refusal = Refusal {
        sqlstate: refusal.sqlstate,
        message: text(&refusal.message),
        detail: text(&refusal.detail),
        hint: text(&refusal.hint),
    };
    ReportBuilder::refusal(severity, &refusal).to_bytes()
}

/// Text that means nothing to any lexer: letters, digits, blanks and `-_.:`.
fn log_text(text: &str) -> String {
    text.chars()
        .take(LOG_TEXT_MAX)
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | ':') {
                c
            } else {
                '_'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_differ_within_a_session_and_between_seeds() {
        let mut a = Refusals::new(&[1; 16], "s");
        let mut b = Refusals::new(&[2; 16], "s");
        let words = [a.next_nonce().0, a.next_nonce().0, b.next_nonce().0];
        assert!(words[0] != words[1] && words[0] != words[2] && words[1] != words[2]);
        assert!(
            words
                .iter()
                .all(|word| word.len() < 63 && word.starts_with("portcullis_"))
        );
    }

    #[test]
    fn text_of_a_rule_cannot_become_sql() {
        let refusal = Refusal::new(b"42501", "no'; drop table t -- $$ \\ /* \u{e9}\0");
        let mut out = BytesMut::new();
        let mut refusals = Refusals::new(&[1; 16], "id\"'");
        refusals
            .substitute(Kind::Query, false, &refusal, &mut out)
            .map(|_| ())
            .unwrap();
        let text = String::from_utf8(out[5..out.len() - 1].to_vec()).unwrap();
        assert!(
            text.chars()
                .all(|c| c.is_ascii_alphanumeric() || " -_.:".contains(c)),
            "{text}"
        );
    }

    #[test]
    fn only_an_error_that_names_the_word_is_ours() {
        let refusal = Refusal::new(b"42501", "no");
        let mut refusals = Refusals::new(&[1; 16], "s");
        for ours in [true, false] {
            let (kind, word) = refusals
                .substitute(Kind::Bind, false, &refusal, &mut BytesMut::new())
                .unwrap();
            assert_eq!(kind, Kind::Parse);
            let message = format!("Syntaxfehler bei \u{ab}{}\u{bb}", word.0.0);
            refusals.wait(word, refusal.clone());
            let message = if ours {
                message.as_bytes()
            } else {
                b"terminating connection"
            };
            assert_eq!(refusals.answered(message).is_some(), ours);
        }
    }

    #[test]
    fn words_outside_ascii_are_sent_to_utf8_clients_only() {
        let refusal = Refusal::new(b"42501", "\u{e9}");
        let has = |utf8| {
            memchr::memmem::find(
                &error_response(Severity::Error, &refusal, utf8),
                "\u{e9}".as_bytes(),
            )
            .is_some()
        };
        assert!(has(true) && !has(false));
    }
}
