//! A content that knows one secret: the word SECRET.

use postgres::session::{Content, Fill};

const SECRET: &[u8] = b"SECRET";

#[derive(Default)]
pub struct Toy {
    /// How often it was asked about a run of messages.
    pub asked: usize,
}

pub struct ToyStream {
    fill: Fill,
    held: Vec<u8>,
}

fn mask(fill: Fill) -> &'static [u8] {
    match fill {
        Fill::Placeholder => b"[masked:toy]",
        Fill::SameLength => b"XXXXXX",
    }
}

fn has(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|window| window == SECRET)
}

/// Masks all of `value`.
pub fn mask_all(value: &[u8], fill: Fill) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(SECRET) {
            out.extend_from_slice(mask(fill));
            rest = after;
        } else {
            out.push(rest[0]);
            rest = &rest[1..];
        }
    }
    out
}

impl Content for Toy {
    type Stream = ToyStream;

    fn is_clean(&mut self, bytes: &[u8]) -> bool {
        self.asked += 1;
        !has(bytes)
    }

    fn mask_value(&mut self, value: &[u8], fill: Fill) -> Option<Vec<u8>> {
        has(value).then(|| mask_all(value, fill))
    }

    fn open(&mut self, fill: Fill) -> ToyStream {
        ToyStream {
            fill,
            held: Vec::new(),
        }
    }

    fn push(&mut self, stream: &mut ToyStream, input: &[u8], out: &mut Vec<u8>) {
        stream.held.extend_from_slice(input);
        let masked = mask_all(&stream.held, stream.fill);
        // Hold back the longest end that could still become the secret.
        let keep = (0..SECRET.len())
            .rev()
            .find(|n| stream.held.ends_with(&SECRET[..*n]))
            .unwrap_or(0);
        out.extend_from_slice(&masked[..masked.len() - keep]);
        stream.held = SECRET[..keep].to_vec();
    }

    fn finish(&mut self, stream: ToyStream, out: &mut Vec<u8>) {
        out.extend_from_slice(&stream.held);
    }
}
