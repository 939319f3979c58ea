//! Result formats of portals, so that a row's values are known to be text or binary.
//!
//! A wrong answer can only make a mask ugly, never let a value pass: the format chooses
//! how a found secret is written over. So what is not known is `Unknown`, and portals
//! are forgotten when a transaction ends, as the server forgets them.

use std::collections::BTreeMap;

use super::mask::Format;

/// Named portals that are remembered; rows of others count as of unknown format.
const NAMED_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Portals {
    unnamed: Format,
    named: BTreeMap<Box<[u8]>, Format>,
}

impl Portals {
    pub(super) fn new() -> Portals {
        Portals {
            unnamed: Format::Unknown,
            named: BTreeMap::new(),
        }
    }

    /// A Bind makes `name`.
    pub(super) fn set(&mut self, name: &[u8], format: Format) {
        if name.is_empty() {
            self.unnamed = format;
        } else if let Some(known) = self.named.get_mut(name) {
            *known = format;
        } else if self.named.len() < NAMED_MAX {
            self.named.insert(name.into(), format);
        }
    }

    /// Format of the rows of `name`.
    pub(super) fn of(&self, name: &[u8]) -> Format {
        if name.is_empty() {
            return self.unnamed;
        }
        self.named.get(name).copied().unwrap_or(Format::Unknown)
    }

    /// The transaction is over, and nothing is on its way.
    pub(super) fn clear(&mut self) {
        self.unnamed = Format::Unknown;
        self.named.clear();
    }
}
