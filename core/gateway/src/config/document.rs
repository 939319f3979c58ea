//! The file as a tree with places: parses TOML, holds it against the key
//! table, and finds line and column of any path, so that every complaint,
//! structural or not, points at its spot.

use super::keys::{self, Kind};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One complaint about the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Complaint {
    /// Byte range in the file.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it; may be empty.
    pub help: String,
}

/// Complaints with the text they are about; prints `file:line:column`,
/// the line, and a pointer under the spot.
#[derive(Debug, Clone)]
pub struct ConfigErrors {
    /// Name of the file as it was given.
    pub file: String,
    /// Its text.
    pub text: String,
    /// At least one.
    pub complaints: Vec<Complaint>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in &self.complaints {
            let start = c.span.start.min(self.text.len());
            let line_start = self.text[..start].rfind('\n').map_or(0, |i| i + 1);
            let line_end = self.text[start..]
                .find('\n')
                .map_or(self.text.len(), |i| start + i);
            let line_number = self.text[..start].matches('\n').count() + 1;
            let column = self.text[line_start..start].chars().count();
            let end = c.span.end.clamp(start, line_end);
            let width = self.text[start..end].chars().count().max(1);
            let gutter = line_number.to_string().len();
            writeln!(
                f,
                "{}:{}:{}: {}",
                self.file,
                line_number,
                column + 1,
                c.message
            )?;
            writeln!(f, " {line_number} | {}", &self.text[line_start..line_end])?;
            writeln!(f, " {:gutter$} | {:column$}{}", "", "", "^".repeat(width))?;
            if !c.help.is_empty() {
                writeln!(f, " {:gutter$} = {}", "", c.help)?;
            }
        }
        write!(
            f,
            "{}: {} error{}",
            self.file,
            self.complaints.len(),
            if self.complaints.len() == 1 { "" } else { "s" }
        )
    }
}

impl std::error::Error for ConfigErrors {}

/// A parsed file: the place of every value in it, by path.
pub struct Document {
    places: HashMap<String, Range<usize>>,
}

impl Document {
    /// Parses `text` and checks its structure against the key table.
    /// Returns the places beside every complaint found.
    pub fn parse(text: &str) -> (Document, Vec<Complaint>) {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut complaints: Vec<Complaint> = errors
            .into_iter()
            .map(|e| Complaint {
                span: e.span().unwrap_or(0..0),
                message: format!("not valid TOML: {}", e.message()),
                help: String::new(),
            })
            .collect();
        let mut places = HashMap::new();
        if complaints.is_empty() {
            remember_places("", root.get_ref(), &mut places);
            check_table("", root.span(), root.get_ref(), &mut complaints);
        }
        (Document { places }, complaints)
    }

    /// Byte range of the value at a path such as `roles[2].rules[0].when`;
    /// of its nearest parent where it is not written in the file.
    pub fn span(&self, path: &str) -> Range<usize> {
        let mut path = path;
        loop {
            if let Some(span) = self.places.get(path) {
                return span.clone();
            }
            match path.rfind(['.', '[']) {
                Some(cut) => path = &path[..cut],
                None => return 0..0,
            }
        }
    }
}

fn remember_places(path: &str, table: &DeTable<'_>, places: &mut HashMap<String, Range<usize>>) {
    for (name, value) in table {
        let full = if path.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{path}.{}", name.get_ref())
        };
        remember_value(&full, value, places);
    }
}

fn remember_value(
    path: &str,
    value: &Spanned<DeValue<'_>>,
    places: &mut HashMap<String, Range<usize>>,
) {
    places.insert(path.to_string(), value.span());
    match value.get_ref() {
        DeValue::Table(t) => remember_places(path, t, places),
        DeValue::Array(a) => {
            for (i, element) in a.iter().enumerate() {
                remember_value(&format!("{path}[{i}]"), element, places);
            }
        }
        _ => {}
    }
}

fn check_table(path: &str, span: Range<usize>, table: &DeTable<'_>, out: &mut Vec<Complaint>) {
    for (name, value) in table {
        let full = if path.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{path}.{}", name.get_ref())
        };
        match keys::find(&full) {
            None => out.push(Complaint {
                span: name.span(),
                message: format!("unknown key `{}`{}", name.get_ref(), section_text(path)),
                help: nearest(path, name.get_ref()),
            }),
            Some(key) => check_value(&full, key.kind, value, out),
        }
    }
    for key in keys::children(path).filter(|k| k.required) {
        let name = key.path.rsplit('.').next().unwrap_or(key.path);
        if !table.iter().any(|(k, _)| k.get_ref() == name) {
            out.push(Complaint {
                span: span.clone(),
                message: format!("missing key `{name}`{}", section_text(path)),
                help: key.doc.to_string(),
            });
        }
    }
}

fn section_text(path: &str) -> String {
    match path {
        "" => String::new(),
        p => format!(" in `{}`", p.replace("[]", "")),
    }
}

/// A suggestion: the known key that differs least, if it differs little.
fn nearest(path: &str, name: &str) -> String {
    let known = keys::children(path).map(|k| k.path.rsplit('.').next().unwrap_or(k.path));
    let best = known.map(|k| (distance(k, name), k)).min();
    match best {
        Some((d, k)) if d <= 1 + name.len() / 3 => format!("did you mean `{k}`?"),
        _ => {
            let all: Vec<_> = keys::children(path)
                .map(|k| k.path.rsplit('.').next().unwrap_or(k.path))
                .collect();
            format!("known here: {}", all.join(", "))
        }
    }
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let cost = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn check_value(path: &str, kind: Kind, value: &Spanned<DeValue<'_>>, out: &mut Vec<Complaint>) {
    let v = value.get_ref();
    let mut wrong = |what: &str| {
        out.push(Complaint {
            span: value.span(),
            message: format!("`{}` must be {what}", path.replace("[]", "")),
            help: keys::find(path)
                .map(|k| k.doc.to_string())
                .unwrap_or_default(),
        });
    };
    match kind {
        Kind::Text if v.as_str().is_none() => wrong("a string"),
        Kind::Boolean if v.as_bool().is_none() => wrong("true or false"),
        Kind::Choice(names) if !v.as_str().is_some_and(|s| names.contains(&s)) => {
            wrong(&format!(
                "one of {}",
                names
                    .iter()
                    .map(|n| format!("\"{n}\""))
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        }
        Kind::Integer(min, max) => {
            let number = integer(v);
            if !number.is_some_and(|n| (min..=max).contains(&n)) {
                wrong(&format!("an integer from {min} to {max}"));
            }
        }
        Kind::TextList
            if !v
                .as_array()
                .is_some_and(|a| a.iter().all(|e| e.get_ref().is_str())) =>
        {
            wrong("an array of strings");
        }
        Kind::Secret if !is_secret_reference(v) => {
            wrong(
                "a reference to a secret: { env = \"NAME\" }, { file = \"PATH\" } or { command = [\"PROGRAM\"] }",
            );
        }
        Kind::Table => match v.as_table() {
            Some(t) => check_table(path, value.span(), t, out),
            None => wrong("a table"),
        },
        Kind::Tables => match v.as_array() {
            Some(a) => {
                for element in a {
                    match element.get_ref().as_table() {
                        Some(t) => check_table(&format!("{path}[]"), element.span(), t, out),
                        None => out.push(Complaint {
                            span: element.span(),
                            message: format!("`{path}` must be an array of tables"),
                            help: format!("write [[{path}]]"),
                        }),
                    }
                }
            }
            None => wrong("an array of tables, each begun by [[…]]"),
        },
        _ => {}
    }
}

fn integer(v: &DeValue<'_>) -> Option<i64> {
    match v {
        DeValue::Integer(i) => i64::from_str_radix(&i.as_str().replace('_', ""), i.radix()).ok(),
        _ => None,
    }
}

fn is_secret_reference(v: &DeValue<'_>) -> bool {
    let Some(table) = v.as_table() else {
        return false;
    };
    if table.len() != 1 {
        return false;
    }
    table.iter().all(|(k, v)| match k.get_ref().as_ref() {
        "env" | "file" => v.get_ref().as_str().is_some_and(|s| !s.is_empty()),
        "command" => v
            .get_ref()
            .as_array()
            .is_some_and(|a| !a.is_empty() && a.iter().all(|e| e.get_ref().is_str())),
        _ => false,
    })
}
