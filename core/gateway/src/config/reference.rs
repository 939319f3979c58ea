//! The reference of the configuration file, written from the key table.

use super::keys::{Applies, KEYS, Kind};
use std::fmt::Write;

/// The text of `docs/CONFIGURATION.md`.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         One TOML file. Unknown keys are errors; `portcullis check --config FILE` lists every error with its place.\n\
         Secrets stand in it by reference only: `{ env = \"NAME\" }`, `{ file = \"PATH\" }`, `{ command = [\"PROGRAM\", …] }`.\n\
         *Reload*: a change takes effect on SIGHUP; *restart*: at the next start. A file with an error leaves the old one in force.\n\
         This page is written from the code by `portcullis reference`; a test keeps the two equal.\n",
    );
    for key in KEYS {
        match key.kind {
            Kind::Table => {
                let _ = write!(
                    out,
                    "\n## `[{}]`\n{}\n\n| key | what may stand there | default | takes effect | meaning |\n|---|---|---|---|---|\n",
                    key.path, key.doc
                );
            }
            Kind::Tables => {
                let _ = write!(
                    out,
                    "\n## `[[{}]]`\n{}\n\n| key | what may stand there | default | takes effect | meaning |\n|---|---|---|---|---|\n",
                    key.path.replace("[]", ""),
                    key.doc
                );
            }
            kind => {
                let name = key.path.rsplit('.').next().unwrap_or(key.path);
                let default = match (key.required, key.default) {
                    (true, _) => "(required)".to_string(),
                    (false, "") => "none".to_string(),
                    (false, d)
                        if d.starts_with('"')
                            || d.starts_with('[')
                            || d.parse::<i64>().is_ok()
                            || d == "true"
                            || d == "false" =>
                    {
                        format!("`{d}`")
                    }
                    (false, d) => d.to_string(),
                };
                let applies = if key.applies == Applies::Reload {
                    "reload"
                } else {
                    "restart"
                };
                let _ = writeln!(
                    out,
                    "| `{name}` | {} | {default} | {applies} | {} |",
                    kind_text(kind),
                    key.doc.replace('|', "\\|")
                );
            }
        }
    }
    out
}

fn kind_text(kind: Kind) -> String {
    match kind {
        Kind::Text => "text".into(),
        Kind::Choice(names) => names
            .iter()
            .map(|n| format!("`\"{n}\"`"))
            .collect::<Vec<_>>()
            .join(", "),
        Kind::Integer(min, max) => format!("{min} to {max}"),
        Kind::Boolean => "true, false".into(),
        Kind::TextList => "list of texts".into(),
        Kind::Secret => "reference to a secret".into(),
        Kind::Table | Kind::Tables => "section".into(),
    }
}
