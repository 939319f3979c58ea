//! The cheap look before the parser: size, tokens, nesting; what in a text
//! depends on how the server reads it; and the shape of a text without its
//! numbers.
//!
//! One pass, no allocation but the nesting stack. The scan need not agree with
//! PostgreSQL's lexer about what a text means, only never count fewer tokens
//! or less nesting than the parser will build.

use super::FactsError;
use crate::spec::SqlLimits;
use memchr::{memchr, memmem};

/// What the scan counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Tokens.
    pub tokens: usize,
    /// Estimated depth of the tree.
    pub depth: usize,
}

/// What in a text reads differently under other settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sensitivity {
    /// A backslash inside a plain `'…'` literal, or a `U&` literal: read
    /// otherwise when `standard_conforming_strings` is off.
    pub strings: bool,
    /// A byte over 0x7F outside plain literals and comments: read otherwise
    /// under another encoding.
    pub encoding: bool,
}

fn word_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b >= 0x80
}

fn word_part(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || b >= 0x80
}

/// Words that can nest a tree without a bracket, and are not ended by a comma
/// or an AND.
fn structural(word: &[u8]) -> bool {
    const WORDS: [&[u8]; 9] = [
        b"union",
        b"intersect",
        b"except",
        b"join",
        b"case",
        b"else",
        b"when",
        b"not",
        b"select",
    ];
    word.len() <= 9 && WORDS.iter().any(|w| w.eq_ignore_ascii_case(word))
}

/// Words that act as operators inside one expression.
fn operator_word(word: &[u8]) -> bool {
    const WORDS: [&[u8]; 12] = [
        b"is",
        b"in",
        b"like",
        b"ilike",
        b"similar",
        b"between",
        b"collate",
        b"at",
        b"isnull",
        b"notnull",
        b"operator",
        b"overlaps",
    ];
    word.len() <= 8 && WORDS.iter().any(|w| w.eq_ignore_ascii_case(word))
}

/// Kinds of stretches that a text is cut into.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// Blanks and comments.
    Blank,
    /// A quoted thing: `'…'`, `"…"`, `$tag$…$tag$`.
    Quoted(Quote),
    /// An identifier, keyword or parameter.
    Word,
    /// A number.
    Number,
    /// Any other single byte.
    Byte(u8),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    /// `'…'` without a prefix, or N'', B'', X''.
    Plain,
    /// `E'…'`.
    Escape,
    /// `U&'…'` or `U&"…"`.
    Unicode,
    /// `"…"`.
    Identifier,
    /// `$…$`.
    Dollar,
}

/// Cuts the next piece off `text` at `at`; returns its end.
///
/// Follows PostgreSQL's lexer with `standard_conforming_strings` on. An
/// unfinished literal or comment runs to the end of the text.
fn piece(text: &[u8], at: usize) -> (Piece, usize) {
    let rest = text.get(at..).unwrap_or_default();
    let Some(&first) = rest.first() else {
        return (Piece::Blank, at);
    };
    let second = rest.get(1).copied().unwrap_or(0);
    match first {
        b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C => (Piece::Blank, at + 1),
        b'-' if second == b'-' => {
            let end = rest
                .iter()
                .position(|b| matches!(b, b'\n' | b'\r'))
                .unwrap_or(rest.len());
            (Piece::Blank, at + end)
        }
        b'/' if second == b'*' => (Piece::Blank, at + block_comment(rest)),
        b'\'' => (Piece::Quoted(Quote::Plain), at + plain(rest, b'\'')),
        b'"' => (Piece::Quoted(Quote::Identifier), at + plain(rest, b'"')),
        b'e' | b'E' if second == b'\'' => (
            Piece::Quoted(Quote::Escape),
            at + 1 + escape(rest.get(1..).unwrap_or_default()),
        ),
        b'u' | b'U' if second == b'&' && matches!(rest.get(2), Some(b'\'' | b'"')) => {
            let body = rest.get(2..).unwrap_or_default();
            (
                Piece::Quoted(Quote::Unicode),
                at + 2 + plain(body, body.first().copied().unwrap_or(b'\'')),
            )
        }
        b'n' | b'N' | b'b' | b'B' | b'x' | b'X' if second == b'\'' => (
            Piece::Quoted(Quote::Plain),
            at + 1 + plain(rest.get(1..).unwrap_or_default(), b'\''),
        ),
        b'$' => match dollar(rest) {
            Some(length) => (Piece::Quoted(Quote::Dollar), at + length),
            None if second.is_ascii_digit() => {
                let end = rest
                    .iter()
                    .skip(1)
                    .position(|b| !b.is_ascii_digit())
                    .map_or(rest.len(), |n| n + 1);
                (Piece::Word, at + end)
            }
            None => (Piece::Byte(b'$'), at + 1),
        },
        b if word_start(b) => {
            let end = rest
                .iter()
                .position(|b| !word_part(*b))
                .unwrap_or(rest.len());
            (Piece::Word, at + end)
        }
        b if b.is_ascii_digit() => {
            let end = rest
                .iter()
                .position(|b| !b.is_ascii_digit())
                .unwrap_or(rest.len());
            (Piece::Number, at + end)
        }
        b => (Piece::Byte(b), at + 1),
    }
}

/// Length of a quoted thing that starts with `quote`, a doubled quote inside.
fn plain(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    loop {
        let Some(found) = memchr(quote, rest.get(at..).unwrap_or_default()) else {
            return rest.len();
        };
        at += found + 1;
        if rest.get(at) != Some(&quote) {
            return at;
        }
        at += 1;
    }
}

/// Length of an `E'…'` literal's quoted part, backslashes escaping. A quote on
/// a later line continues the literal, still escaping.
fn escape(rest: &[u8]) -> usize {
    let mut at = 1;
    while let Some(&b) = rest.get(at) {
        match b {
            b'\\' => at += 2,
            b'\'' if rest.get(at + 1) == Some(&b'\'') => at += 2,
            b'\'' => match continued(rest, at + 1) {
                Some(next) => at = next,
                None => return at + 1,
            },
            _ => at += 1,
        }
    }
    rest.len()
}

/// Where a literal that ended at `at` goes on: past blanks and line comments
/// with a line end among them, behind the next quote.
fn continued(rest: &[u8], mut at: usize) -> Option<usize> {
    let mut line_end = false;
    loop {
        match rest.get(at)? {
            b'\n' | b'\r' => line_end = true,
            b' ' | b'\t' | 0x0B | 0x0C => {}
            b'-' if rest.get(at + 1) == Some(&b'-') => {
                at += rest
                    .get(at..)?
                    .iter()
                    .position(|b| matches!(b, b'\n' | b'\r'))?;
                continue;
            }
            b'\'' if line_end => return Some(at + 1),
            _ => return None,
        }
        at += 1;
    }
}

/// Length of a block comment, which nests.
fn block_comment(rest: &[u8]) -> usize {
    let mut at = 2;
    let mut depth = 1usize;
    while depth > 0 {
        match (rest.get(at), rest.get(at + 1)) {
            (Some(b'*'), Some(b'/')) => {
                depth -= 1;
                at += 2;
            }
            (Some(b'/'), Some(b'*')) => {
                depth += 1;
                at += 2;
            }
            (Some(_), _) => at += 1,
            (None, _) => return rest.len(),
        }
    }
    at
}

/// Length of a dollar-quoted literal, when one starts here.
fn dollar(rest: &[u8]) -> Option<usize> {
    let tag_end = rest
        .iter()
        .skip(1)
        .position(|b| *b == b'$' || !word_part(*b))?
        + 1;
    if rest.get(tag_end) != Some(&b'$') || rest.get(1).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let tag = rest.get(..=tag_end)?;
    let body = rest.get(tag_end + 1..)?;
    Some(memmem::find(body, tag).map_or(rest.len(), |found| tag_end + 1 + found + tag.len()))
}

/// Checks the caps.
///
/// Errors: too long, too many tokens, too deep. Stops at the first token over
/// a cap.
pub(crate) fn scan(text: &[u8], limits: &SqlLimits) -> Result<Scan, FactsError> {
    if text.len() > limits.statement_bytes_max {
        return Err(FactsError::TooLong {
            length: text.len(),
            limit: limits.statement_bytes_max,
        });
    }
    let mut tokens = 0usize;
    // Per open bracket: (structural words, operators since the last comma).
    let mut stack: Vec<(usize, usize)> = vec![(0, 0)];
    let mut sum = 0usize;
    let mut depth = 0usize;
    let mut at = 0;
    while at < text.len() {
        let (what, end) = piece(text, at);
        let mut cost = (0usize, 0usize);
        match what {
            Piece::Blank => {
                at = end;
                continue;
            }
            Piece::Word => {
                let word = text.get(at..end).unwrap_or_default();
                if structural(word) {
                    cost = (1, 0);
                } else if operator_word(word) {
                    cost = (0, 1);
                } else if (word.eq_ignore_ascii_case(b"and") || word.eq_ignore_ascii_case(b"or"))
                    && let Some(top) = stack.last_mut()
                {
                    sum -= top.1;
                    top.1 = 0;
                }
            }
            Piece::Byte(b'(' | b'[') => {
                stack.push((1, 0));
                sum += 1;
            }
            Piece::Byte(b')' | b']') if stack.len() > 1 => {
                if let Some((a, b)) = stack.pop() {
                    sum -= a + b;
                }
                // What stood in brackets can be an operand of what follows.
                cost = (0, 1);
            }
            Piece::Byte(b',') => {
                if let Some(top) = stack.last_mut() {
                    sum -= top.1;
                    top.1 = 0;
                }
            }
            Piece::Byte(b';') => {
                stack.clear();
                stack.push((0, 0));
                sum = 0;
            }
            Piece::Byte(b'.') | Piece::Number | Piece::Quoted(_) => {}
            Piece::Byte(_) => cost = (0, 1),
        }
        if let Some(top) = stack.last_mut() {
            top.0 += cost.0;
            top.1 += cost.1;
        }
        sum += cost.0 + cost.1;
        depth = depth.max(sum);
        tokens += 1;
        if tokens > limits.tokens_max {
            return Err(FactsError::TooManyTokens {
                limit: limits.tokens_max,
            });
        }
        if depth > limits.nesting_max {
            return Err(FactsError::TooDeep {
                limit: limits.nesting_max,
            });
        }
        at = end;
    }
    Ok(Scan { tokens, depth })
}

/// What in the text depends on how the server reads it.
pub(crate) fn sensitivity(text: &[u8]) -> Sensitivity {
    let mut found = Sensitivity::default();
    if memchr(b'\\', text).is_none() && text.is_ascii() && memmem::find(text, b"&").is_none() {
        return found;
    }
    let mut at = 0;
    while at < text.len() {
        let (what, end) = piece(text, at);
        let body = text.get(at..end).unwrap_or_default();
        match what {
            Piece::Quoted(Quote::Plain) => found.strings |= memchr(b'\\', body).is_some(),
            Piece::Quoted(Quote::Unicode) => {
                found.strings = true;
                found.encoding |= !body.is_ascii();
            }
            Piece::Quoted(_) | Piece::Word => found.encoding |= !body.is_ascii(),
            Piece::Blank | Piece::Number => {}
            Piece::Byte(b) => found.encoding |= b >= 0x80,
        }
        at = end.max(at + 1);
    }
    found
}

/// Writes the text to `out` with every plain decimal number replaced by `0`.
///
/// Two texts of one shape have the same tree but for the values of integer
/// constants. Returns false where that is not certain: comments, quoted
/// identifiers, dollar or escape literals, backslashes, long or broken
/// numbers, non-ASCII bytes; `out` is then meaningless.
pub(crate) fn shape(text: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    let mut at = 0;
    let mut replaced = false;
    while let Some(&b) = text.get(at) {
        match b {
            b'\\' | b'"' | 0 | 0x80.. => return false,
            b'-' if text.get(at + 1) == Some(&b'-') => return false,
            b'/' if text.get(at + 1) == Some(&b'*') => return false,
            b'$' => {
                let digits = text
                    .get(at + 1..)
                    .unwrap_or_default()
                    .iter()
                    .take_while(|b| b.is_ascii_digit())
                    .count();
                let next = text.get(at + 1 + digits).copied().unwrap_or(b' ');
                if digits == 0 || word_part(next) {
                    return false;
                }
                out.extend_from_slice(text.get(at..at + 1 + digits).unwrap_or_default());
                at += 1 + digits;
            }
            b'\'' => {
                let length = plain(text.get(at..).unwrap_or_default(), b'\'');
                let body = text.get(at..at + length).unwrap_or_default();
                if !body.is_ascii() || memchr(b'\\', body).is_some() {
                    return false;
                }
                out.extend_from_slice(body);
                at += length;
            }
            b'0'..=b'9' => {
                let digits = text
                    .get(at..)
                    .unwrap_or_default()
                    .iter()
                    .take_while(|b| b.is_ascii_digit())
                    .count();
                let next = text.get(at + digits).copied().unwrap_or(b' ');
                let dotted = next == b'.' || (at > 0 && text.get(at - 1) == Some(&b'.'));
                if word_part(next) || next == b'\'' || digits > 9 {
                    return false;
                }
                if dotted {
                    out.extend_from_slice(text.get(at..at + digits).unwrap_or_default());
                } else {
                    out.push(b'0');
                    replaced = true;
                }
                at += digits;
            }
            b if word_start(b) => {
                let length = text
                    .get(at..)
                    .unwrap_or_default()
                    .iter()
                    .take_while(|b| word_part(**b))
                    .count();
                if text.get(at + length) == Some(&b'\'')
                    || (length == 1 && text.get(at + 1) == Some(&b'&'))
                {
                    return false;
                }
                out.extend_from_slice(text.get(at..at + length).unwrap_or_default());
                at += length;
            }
            _ => {
                out.push(b);
                at += 1;
            }
        }
    }
    replaced
}
