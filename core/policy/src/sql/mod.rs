//! Facts drawn from SQL text by PostgreSQL's own grammar.
//!
//! [`facts`] scans the text cheaply for size, tokens and nesting, parses it
//! with `pg_query` and walks the whole tree. Every node kind the walker does
//! not know makes the statement *opaque*: nothing is passed over.

mod functions;
mod kinds;
mod scan;
#[cfg(test)]
mod tests;
mod tree;
mod walk;

pub(crate) use kinds::in_group;
pub use kinds::{GROUPS, KINDS};
pub(crate) use scan::{Scan, scan, sensitivity, shape};

use crate::spec::SqlLimits;
use std::sync::Arc;
use thiserror::Error;

/// Longest name of a statement or portal that the server keeps apart, in
/// bytes (`NAMEDATALEN - 1`).
pub const NAME_BYTES_MAX: usize = 63;

/// What one text holds: every statement of it, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct SqlFacts {
    /// The statements; empty for an empty text.
    pub statements: Vec<Arc<StatementFacts>>,
    /// Length of the text in bytes.
    pub text_length: usize,
    /// Tokens counted by the scan.
    pub tokens: usize,
}

/// A table or view as far as the text names it, folded as the server folds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// The schema, when the text gives one.
    pub schema: Option<String>,
    /// The relation's name; `*` = every relation (`DROP SCHEMA`, CASCADE).
    pub name: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A function as far as the text names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionName {
    /// The schema, when the text gives one.
    pub schema: Option<String>,
    /// The function's name.
    pub name: String,
}

impl std::fmt::Display for FunctionName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A column that the text names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ColumnName {
    /// The tables it can belong to by its qualifier; empty = any table that
    /// the statement touches.
    pub tables: Vec<TableName>,
    /// The column's name; `*` = every column of these tables.
    pub name: String,
    /// Whether it is assigned (INSERT, UPDATE, MERGE, COPY FROM).
    pub written: bool,
}

/// One form of COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CopyForm {
    /// Rows go to the client.
    ToStdout,
    /// Rows come from the client.
    FromStdin,
    /// A file on the server, either way.
    File,
    /// A program on the server, either way.
    Program,
}

impl CopyForm {
    /// The word used in rules.
    pub fn as_str(self) -> &'static str {
        match self {
            CopyForm::ToStdout => "to_stdout",
            CopyForm::FromStdin => "from_stdin",
            CopyForm::File => "file",
            CopyForm::Program => "program",
        }
    }
}

/// What makes a statement opaque.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Opaque {
    /// A function of the built-in "dynamic" list: it runs text, reads files,
    /// or reaches other servers.
    Function(FunctionName),
    /// Anything else, in words.
    Because(String),
}

impl std::fmt::Display for Opaque {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Opaque::Function(name) => write!(f, "function {name}"),
            Opaque::Because(why) => f.write_str(why),
        }
    }
}

/// A setting that the text changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Setting {
    /// Its name in lower case; `all` for RESET ALL and DISCARD ALL, `*` where
    /// the text does not tell.
    pub name: String,
    /// The new value; `None` when it goes back to its default or the text does
    /// not tell.
    pub value: Option<String>,
    /// Whether the text tells the value (or that it is reset).
    pub known: bool,
}

/// What a statement does with the session's names.
#[derive(Clone, Debug, PartialEq)]
pub enum NameUse {
    /// `PREPARE name AS inner`.
    Prepare {
        /// The statement's name.
        name: String,
        /// What it will run.
        inner: Arc<StatementFacts>,
    },
    /// `EXECUTE name (…)`, also inside EXPLAIN and CREATE TABLE AS.
    Execute {
        /// The statement's name.
        name: String,
        /// Its arguments, when all are constants; `None` inside = NULL.
        args: Option<Vec<Option<String>>>,
    },
    /// `DEALLOCATE name`, or of all.
    Deallocate {
        /// The name; `None` = all.
        name: Option<String>,
    },
    /// `DECLARE name CURSOR FOR inner`.
    Declare {
        /// The portal's name.
        name: String,
        /// What it runs.
        inner: Arc<StatementFacts>,
    },
    /// `FETCH` or `MOVE` on a portal, and `WHERE CURRENT OF`.
    Fetch {
        /// The portal's name.
        name: String,
    },
    /// `CLOSE name`, or of all.
    Close {
        /// The name; `None` = all.
        name: Option<String>,
    },
}

/// What one statement does, as far as its text tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatementFacts {
    /// The kind of the outermost statement; one of [`KINDS`].
    pub kind: &'static str,
    /// Every kind in it: the outermost, those in CTEs, EXPLAIN, PREPARE, …
    pub kinds: Vec<&'static str>,
    /// Tables read. CTE names are not tables.
    pub tables_read: Vec<TableName>,
    /// Tables written, locked for writing, or touched by DDL.
    pub tables_written: Vec<TableName>,
    /// Columns named.
    pub columns: Vec<ColumnName>,
    /// Functions called.
    pub functions: Vec<FunctionName>,
    /// Whether an UPDATE or DELETE has a WHERE that names a column.
    pub where_found: bool,
    /// Whether an UPDATE or DELETE lacks one.
    pub where_missing: bool,
    /// Forms of COPY.
    pub copy: Vec<CopyForm>,
    /// The role that SET ROLE or SET SESSION AUTHORIZATION takes; the empty
    /// string for a reset.
    pub set_role: Option<String>,
    /// Whether it gives a role a password.
    pub password: bool,
    /// What a static look cannot know.
    pub opaque: Vec<Opaque>,
    /// Settings changed.
    pub settings: Vec<Setting>,
    /// What it does with the session's names.
    pub names: Vec<NameUse>,
    /// Whether it makes temporary tables, views, sequences or functions, or
    /// any function at all.
    pub makes_temporary: bool,
    /// Whether it cannot run anybody's code nor change how text is read:
    /// transaction control, SHOW, harmless SET, PREPARE, DEALLOCATE.
    pub inert: bool,
    /// Whether the facts depend on the value of a literal.
    pub literal_bound: bool,
}

/// Why no facts could be drawn.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FactsError {
    /// Over the cap in bytes.
    #[error("the statement is {length} bytes, the limit is {limit}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The cap.
        limit: usize,
    },
    /// Over the cap in tokens.
    #[error("the statement has more than {limit} tokens")]
    TooManyTokens {
        /// The cap.
        limit: usize,
    },
    /// Nested deeper than the cap.
    #[error("the statement nests deeper than {limit}")]
    TooDeep {
        /// The cap.
        limit: usize,
    },
    /// Not UTF-8, or with a NUL byte.
    #[error("the statement is not readable text")]
    NotText,
    /// PostgreSQL's grammar refuses it.
    #[error("the statement does not parse")]
    Unparsable,
}

/// Draws the facts of a text.
///
/// Errors: see [`FactsError`]; caps are checked before anything is parsed.
pub fn facts(text: &str, limits: &SqlLimits) -> Result<SqlFacts, FactsError> {
    let seen = scan(text.as_bytes(), limits)?;
    parsed(text, &seen)
}

/// Parses a text that [`scan()`] has let through.
pub(crate) fn parsed(text: &str, seen: &Scan) -> Result<SqlFacts, FactsError> {
    let statements = walk::statements(text)?;
    Ok(SqlFacts {
        statements,
        text_length: text.len(),
        tokens: seen.tokens,
    })
}
