//! The digest of one exact request, and of the hold that binds it to its
//! meaning. Every part goes in with its length, so that no two requests share
//! the bytes that are hashed.

use aws_lc_rs::digest::{Context, SHA256};
use postgres::session::{BindValues, Unit};

/// Length-prefixed parts into SHA-256.
pub struct Digest(Context);

impl Digest {
    /// Begins with a domain word, so that digests of one use never serve another.
    pub fn new(domain: &str) -> Digest {
        let mut d = Digest(Context::new(&SHA256));
        d.part(domain.as_bytes());
        d
    }

    /// One part.
    pub fn part(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// The 32 bytes.
    pub fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}

/// SHA-256 of a unit's exact bytes.
pub fn unit(unit: &Unit) -> [u8; 32] {
    let mut d;
    match unit {
        Unit::Query { text } => {
            d = Digest::new("query");
            d.part(text);
        }
        Unit::Parse {
            name,
            text,
            parameter_types,
        } => {
            d = Digest::new("parse");
            d.part(name).part(text);
            for oid in parameter_types {
                d.part(&oid.to_le_bytes());
            }
        }
        Unit::Bind {
            portal,
            statement,
            values,
        } => {
            d = Digest::new("bind");
            d.part(portal).part(statement);
            add_values(&mut d, values);
        }
        Unit::FunctionCall { oid, arguments } => {
            d = Digest::new("function_call");
            d.part(&oid.to_le_bytes());
            add_values(&mut d, arguments);
        }
        Unit::Execute { portal, max_rows } => {
            d = Digest::new("execute");
            d.part(portal).part(&max_rows.to_le_bytes());
        }
        _ => d = Digest::new("other"),
    }
    d.finish()
}

/// The values of a Bind; streamed ones by their length, since nobody holds them.
pub fn add_values(d: &mut Digest, values: &BindValues) {
    match values {
        BindValues::Read(read) => d.part(read.raw()),
        BindValues::Unread { bytes } => d.part(b"unread").part(&(*bytes as u64).to_le_bytes()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn moving_a_byte_between_parts_changes_the_digest() {
        let parse = |name: &'static [u8], text: &'static [u8]| {
            unit(&Unit::Parse {
                name: Bytes::from_static(name),
                text: Bytes::from_static(text),
                parameter_types: vec![],
            })
        };
        assert_ne!(parse(b"a", b"bc"), parse(b"ab", b"c"));
        assert_ne!(
            parse(b"", b"bc"),
            unit(&Unit::Query {
                text: Bytes::from_static(b"bc")
            })
        );
    }
}
