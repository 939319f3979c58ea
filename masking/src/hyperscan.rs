//! The one place that names Hyperscan: a block database and its scratch.
//!
//! Only block scans are used. The crate's streams leak and can outlive their
//! database (see the crate page of `masking`), so streams are ours: a window
//! of held bytes, scanned as a block. No unsafe code is needed here. Databases
//! are compiled without start of match, which many provider patterns are too
//! large for; [`crate::search`] finds starts.

use hyperscan::prelude::*;
use hyperscan::{PatternFlags, Platform, ScratchRef};

use crate::MaskError;

/// Most bytes handed to one scan. The library takes 32 bits of length; larger
/// input goes in pieces that overlap by the longest match.
const BLOCK_BYTES_MAX: usize = 16 << 20;

/// One expression with the number it reports.
pub(crate) struct Expression {
    /// In the spelling of [`crate::pattern`].
    pub(crate) text: String,
    /// Number to report.
    pub(crate) id: usize,
    /// ASCII case ignored.
    pub(crate) caseless: bool,
    /// Whom to blame if it does not compile.
    pub(crate) kind: String,
}

/// A compiled set of expressions.
pub(crate) struct Database {
    database: BlockDatabase,
    overlap: usize,
}

/// Working memory for one [`Database`] and one thread at a time.
pub(crate) struct DatabaseScratch(Scratch);

/// Whether this CPU can run the library.
pub(crate) fn available() -> Result<(), String> {
    Platform::is_valid().map_err(|error| error.to_string())
}

impl Database {
    /// Compiles expressions, none of which matches more than `len_max` bytes.
    /// `None` without expressions.
    pub(crate) fn compile(
        expressions: &[Expression],
        len_max: usize,
    ) -> Result<Option<Database>, MaskError> {
        if expressions.is_empty() {
            return Ok(None);
        }
        let patterns: Patterns = expressions
            .iter()
            .map(|expression| {
                let mut flags = PatternFlags::SINGLEMATCH | PatternFlags::DOTALL;
                if expression.caseless {
                    flags |= PatternFlags::CASELESS;
                }
                Pattern::with_flags(expression.text.as_str(), flags).map(|mut pattern| {
                    pattern.id = Some(expression.id);
                    pattern
                })
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Patterns)
            .map_err(|error| failed("rule set", &error.to_string()))?;
        let database = patterns.build().map_err(|error| {
            // The set is tried one by one only to name the culprit.
            let culprit = patterns
                .iter()
                .zip(expressions)
                .find(|(pattern, _)| pattern.build::<hyperscan::BlockMode>().is_err());
            failed(
                culprit.map_or("rule set", |(_, e)| e.kind.as_str()),
                &error.to_string(),
            )
        })?;
        Ok(Some(Database {
            database,
            overlap: len_max.saturating_sub(1),
        }))
    }

    /// Scratch for this database.
    pub(crate) fn scratch(&self) -> Result<DatabaseScratch, MaskError> {
        self.database
            .alloc_scratch()
            .map(DatabaseScratch)
            .map_err(|error| MaskError::Scratch {
                engine: "hyperscan",
                reason: error.to_string(),
            })
    }

    /// Scans, tells each number at least once if it matches anywhere, until
    /// `found` returns false. False if the library failed.
    pub(crate) fn scan(
        &self,
        scratch: &mut DatabaseScratch,
        bytes: &[u8],
        mut found: impl FnMut(usize) -> bool,
    ) -> bool {
        let scratch: &ScratchRef = &scratch.0;
        let mut from = 0usize;
        loop {
            let to = from.saturating_add(BLOCK_BYTES_MAX).min(bytes.len());
            let piece = bytes.get(from..to).unwrap_or(&[]);
            let mut go_on = true;
            let result = self.database.scan(piece, scratch, |id: u32, _, _, _| {
                go_on = found(id as usize);
                if go_on {
                    Matching::Continue
                } else {
                    Matching::Terminate
                }
            });
            if !go_on {
                return true;
            }
            if result.is_err() {
                return false;
            }
            if to == bytes.len() {
                return true;
            }
            from = to.saturating_sub(self.overlap);
        }
    }
}

fn failed(kind: &str, reason: &str) -> MaskError {
    MaskError::EngineCompile {
        engine: "hyperscan",
        kind: kind.to_string(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(texts: &[&str]) -> Database {
        let expressions: Vec<_> = texts
            .iter()
            .enumerate()
            .map(|(id, text)| Expression {
                text: (*text).into(),
                id,
                caseless: false,
                kind: format!("kind-{id}"),
            })
            .collect();
        Database::compile(&expressions, 16)
            .expect("compiles")
            .expect("not empty")
    }

    #[test]
    fn finds_a_match_across_the_pieces_of_a_large_block() {
        let database = database(&["needle-[0-9]{4}"]);
        let mut scratch = database.scratch().expect("memory");
        let mut hay = vec![b'.'; BLOCK_BYTES_MAX + 100];
        let mut seen = 0;
        for at in [
            BLOCK_BYTES_MAX - 11,
            BLOCK_BYTES_MAX - 1,
            BLOCK_BYTES_MAX,
            BLOCK_BYTES_MAX + 88,
        ] {
            hay[at..at + 11].copy_from_slice(b"needle-1234");
            let mut found = false;
            assert!(database.scan(&mut scratch, &hay, |_| {
                found = true;
                false
            }));
            seen += usize::from(found);
            hay[at..at + 11].fill(b'.');
        }
        assert_eq!(seen, 4);
    }

    #[test]
    fn names_the_expression_that_does_not_compile() {
        let expressions = ["good-one", "bad-(one"].map(|text| Expression {
            text: text.into(),
            id: 0,
            caseless: false,
            kind: text.into(),
        });
        let error = Database::compile(&expressions, 9).err().expect("an error");
        assert!(matches!(error, MaskError::EngineCompile { kind, .. } if kind == "bad-(one"));
    }

    #[test]
    fn scratch_and_database_return_their_memory() {
        // Twenty rounds would show as 2 MB a round in a leak checker; here it
        // is at least seen that making and dropping in any order works.
        for _ in 0..20 {
            let database = database(&["abcdefgh", "[a-f]{20}"]);
            let scratch = database.scratch().expect("memory");
            drop(database);
            drop(scratch);
        }
    }
}
