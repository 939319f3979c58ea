//! From matches to output: how overlapping matches become masked spans, and
//! how those are written.
//!
//! The rules, which look at nothing but positions:
//! - a byte is masked if any match covers it (or the tail of one does);
//! - matches that overlap are one span; spans that only touch are two;
//! - a span's kind, and whether it carries the tag in same-length fill, are
//!   those of the match that begins it: the earliest; of several that begin
//!   together the longest; of several of one length the known secret, then the
//!   detector that stands first in the rule set.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::mark::{FILL_BYTE, TAG_BYTES};
use crate::{Fill, Findings};

/// One match, in positions of the buffer at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hit {
    /// First masked byte.
    pub(crate) begin: usize,
    /// Behind the last masked byte, tail included as far as it is known.
    pub(crate) end: usize,
    /// Behind the last byte of the match itself: unlike `end` it does not
    /// depend on how much of the tail has come yet.
    pub(crate) head_end: usize,
    /// Kind number; smaller ones win among equals.
    pub(crate) kind: u32,
    /// It only continues the tail of an earlier match.
    pub(crate) continues: bool,
}

impl Hit {
    fn order(&self) -> (usize, bool, Reverse<usize>, u32) {
        (
            self.begin,
            !self.continues,
            Reverse(self.head_end),
            self.kind,
        )
    }
}

/// Brings hits into the order in which [`Painter::paint`] takes them.
pub(crate) fn sort(hits: &mut [Hit]) {
    hits.sort_unstable_by_key(Hit::order);
}

/// Writes output, with memory of the span it is in.
#[derive(Debug, Clone)]
pub(crate) struct Painter {
    fill: Fill,
    /// All before this position has been written.
    pub(crate) pos: usize,
    /// The current span reaches up to here (before `pos`: there is none).
    masked_to: usize,
    /// The next byte of the tag to be written; [`TAG_BYTES`]: none.
    tag_at: usize,
}

/// What a painter needs to know of the rule set.
#[derive(Clone, Copy)]
pub(crate) struct Palette<'a> {
    pub(crate) tag: &'a [u8; TAG_BYTES],
    pub(crate) kinds: &'a [Arc<str>],
}

impl Painter {
    /// A painter before the first byte.
    pub(crate) fn new(fill: Fill) -> Self {
        Painter {
            fill,
            pos: 0,
            masked_to: 0,
            tag_at: TAG_BYTES,
        }
    }

    /// Writes all up to `upto`, given all hits that begin before it, sorted.
    /// Hits that begin at or behind `upto` stay in the list.
    pub(crate) fn paint(
        &mut self,
        palette: Palette<'_>,
        bytes: &[u8],
        hits: &mut Vec<Hit>,
        upto: usize,
        out: &mut Vec<u8>,
        findings: &mut Findings,
    ) {
        let ready = hits.partition_point(|hit| hit.begin < upto);
        for hit in hits.drain(..ready) {
            if hit.end <= self.pos {
                continue;
            }
            if hit.begin < self.masked_to || (hit.continues && hit.begin == self.masked_to) {
                self.masked_to = self.masked_to.max(hit.end);
                continue;
            }
            let begin = hit.begin.max(self.pos);
            self.advance(palette, bytes, begin, out);
            self.masked_to = hit.end;
            let kind = palette.kinds.get(hit.kind as usize);
            if let Some(kind) = kind {
                findings.add(kind, 1);
            }
            match self.fill {
                Fill::Placeholder => {
                    out.extend_from_slice(b"[masked:");
                    out.extend_from_slice(kind.map_or("secret", |kind| kind).as_bytes());
                    out.push(b']');
                }
                Fill::SameLength if hit.head_end.saturating_sub(begin) >= TAG_BYTES => {
                    self.tag_at = 0
                }
                Fill::SameLength => self.tag_at = TAG_BYTES,
            }
        }
        self.advance(palette, bytes, upto, out);
    }

    /// Writes up to `to`: the rest of the span, then plain bytes.
    fn advance(&mut self, palette: Palette<'_>, bytes: &[u8], to: usize, out: &mut Vec<u8>) {
        let masked = self.masked_to.min(to).saturating_sub(self.pos);
        if masked > 0 {
            if self.fill == Fill::SameLength {
                let tag = palette.tag.get(self.tag_at..).unwrap_or(&[]);
                let tag = tag.get(..masked).unwrap_or(tag);
                out.extend_from_slice(tag);
                out.resize(out.len() + (masked - tag.len()), FILL_BYTE);
                self.tag_at += tag.len();
            }
            self.pos += masked;
        }
        if let Some(plain) = bytes.get(self.pos..to) {
            out.extend_from_slice(plain);
            self.pos = to;
        }
    }

    /// The first `count` bytes of the buffer are gone; all of them were
    /// written.
    pub(crate) fn shift(&mut self, count: usize) {
        debug_assert!(self.pos >= count);
        self.pos = self.pos.saturating_sub(count);
        self.masked_to = self.masked_to.saturating_sub(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(begin: usize, end: usize, kind: u32) -> Hit {
        Hit {
            begin,
            end,
            head_end: end,
            kind,
            continues: false,
        }
    }

    fn painted(fill: Fill, mut hits: Vec<Hit>) -> String {
        let kinds = [Arc::from("a"), Arc::from("b")];
        let palette = Palette {
            tag: b"TTTTTTTT",
            kinds: &kinds,
        };
        sort(&mut hits);
        let (mut out, mut findings) = (Vec::new(), Findings::new());
        let text = b"0123456789abcdefghij";
        Painter::new(fill).paint(
            palette,
            text,
            &mut hits,
            text.len(),
            &mut out,
            &mut findings,
        );
        String::from_utf8(out).expect("ascii")
    }

    #[test]
    fn overlapping_matches_are_one_span_and_touching_ones_two() {
        let p = Fill::Placeholder;
        assert_eq!(painted(p, vec![]), "0123456789abcdefghij");
        assert_eq!(
            painted(p, vec![hit(2, 5, 0), hit(4, 8, 1)]),
            "01[masked:a]89abcdefghij"
        );
        assert_eq!(
            painted(p, vec![hit(2, 5, 0), hit(5, 8, 1)]),
            "01[masked:a][masked:b]89abcdefghij"
        );
        assert_eq!(
            painted(p, vec![hit(2, 9, 0), hit(4, 6, 1), hit(8, 10, 1)]),
            "01[masked:a]abcdefghij"
        );
        assert_eq!(painted(p, vec![hit(0, 20, 1)]), "[masked:b]");
    }

    #[test]
    fn the_earliest_then_longest_then_first_match_names_the_span() {
        let p = Fill::Placeholder;
        assert_eq!(
            painted(p, vec![hit(2, 5, 0), hit(2, 8, 1)]),
            "01[masked:b]89abcdefghij"
        );
        assert_eq!(
            painted(p, vec![hit(2, 5, 1), hit(2, 5, 0)]),
            "01[masked:a]56789abcdefghij"
        );
        assert_eq!(
            painted(p, vec![hit(3, 9, 0), hit(2, 5, 1)]),
            "01[masked:b]9abcdefghij"
        );
    }

    #[test]
    fn same_length_fill_carries_the_tag_where_the_first_match_has_room() {
        let s = Fill::SameLength;
        assert_eq!(painted(s, vec![hit(2, 12, 0)]), "01TTTTTTTT**cdefghij");
        assert_eq!(painted(s, vec![hit(2, 9, 0)]), "01*******9abcdefghij");
        assert_eq!(
            painted(s, vec![hit(2, 9, 0), hit(8, 14, 1)]),
            "01************efghij"
        );
        assert_eq!(
            painted(s, vec![hit(2, 10, 0), hit(10, 18, 1)]),
            "01TTTTTTTTTTTTTTTTij"
        );
    }
}
