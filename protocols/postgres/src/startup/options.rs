//! The start-up parameter `options`: a command line for the backend in one string.
//!
//! PostgreSQL splits it at white space, a backslash taking the next byte literally, and
//! reads the words as the switches of `postgres`. Only settings (`-c name=value` and
//! `--name=value`) are understood here. From the first word that is anything else on,
//! all words are handed out as *unread*: a policy that reads settings must refuse them,
//! since they may set anything.
//! Source: `pg_split_opts` and `process_postgres_switches` as documented under
//! "Connection Settings" (`options`) and the `postgres` reference page.

use bytes::Bytes;

/// `options`, read as far as possible.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartupOptions {
    /// The parameter as it came; empty when it was not given.
    pub raw: Bytes,
    /// Settings in order: name (dashes turned into underscores, as the server does) and
    /// value.
    pub settings: Vec<(Bytes, Bytes)>,
    /// Words that are no settings, and all that follow them.
    pub unread: Vec<Bytes>,
}

impl StartupOptions {
    /// Reads the parameter. Never fails: what is not understood is `unread`.
    #[must_use]
    pub fn read(raw: Bytes) -> StartupOptions {
        let words = split(&raw);
        let mut words = words.into_iter().peekable();
        let mut settings = Vec::new();
        let mut unread = Vec::new();
        while let Some(word) = words.next() {
            let setting = match word.as_slice() {
                b"-c" => match words.peek().and_then(|next| long_option(next)) {
                    Some(setting) => {
                        words.next();
                        Some(setting)
                    }
                    None => None,
                },
                [b'-', b'c' | b'-', rest @ ..] => long_option(rest),
                _ => None,
            };
            match setting {
                Some(setting) => settings.push(setting),
                None => {
                    unread.push(Bytes::from(word));
                    unread.extend(words.by_ref().map(Bytes::from));
                }
            }
        }
        StartupOptions {
            raw,
            settings,
            unread,
        }
    }
}

/// Words between white space as C's `isspace` knows it; `\` takes the next byte
/// literally, a last one is dropped.
fn split(raw: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r' => words.extend(word.take()),
            b'\\' => {
                let word = word.get_or_insert_default();
                word.extend(bytes.next());
            }
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    words
}

/// `name=value`, the name not empty.
fn long_option(text: &[u8]) -> Option<(Bytes, Bytes)> {
    let equals = memchr::memchr(b'=', text)?;
    let (name, value) = text.split_at_checked(equals)?;
    if name.is_empty() {
        return None;
    }
    let name: Vec<u8> = name
        .iter()
        .map(|byte| if *byte == b'-' { b'_' } else { *byte })
        .collect();
    let value = value.get(1..).unwrap_or_default();
    Some((Bytes::from(name), Bytes::copy_from_slice(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &'static str) -> (Vec<(String, String)>, Vec<String>) {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let options = StartupOptions::read(Bytes::from_static(raw.as_bytes()));
        (
            options
                .settings
                .iter()
                .map(|(n, v)| (text(n), text(v)))
                .collect(),
            options.unread.iter().map(text).collect(),
        )
    }

    #[test]
    fn reads_settings_as_the_server_does() {
        type Case = (
            &'static str,
            &'static [(&'static str, &'static str)],
            &'static [&'static str],
        );
        let cases: &[Case] = &[
            ("", &[], &[]),
            ("  \t ", &[], &[]),
            ("-c geqo=off", &[("geqo", "off")], &[]),
            ("-cgeqo=off", &[("geqo", "off")], &[]),
            ("--geqo=off", &[("geqo", "off")], &[]),
            (
                "--statement-timeout=5min",
                &[("statement_timeout", "5min")],
                &[],
            ),
            (
                "-c a=1  -c b=2\n--c=3",
                &[("a", "1"), ("b", "2"), ("c", "3")],
                &[],
            ),
            (r"-c datestyle=ISO,\ MDY", &[("datestyle", "ISO, MDY")], &[]),
            (r"-c a=\\b", &[("a", r"\b")], &[]),
            (r"-c a=b\", &[("a", "b")], &[]),
            ("-c a=b=c", &[("a", "b=c")], &[]),
            ("-c a=", &[("a", "")], &[]),
            // Not settings: everything from there on is unread.
            ("-c", &[], &["-c"]),
            ("-c a", &[], &["-c", "a"]),
            ("-c =a", &[], &["-c", "=a"]),
            ("--geqo", &[], &["--geqo"]),
            ("--", &[], &["--"]),
            ("-c a=1 -E -c b=2", &[("a", "1")], &["-E", "-c", "b=2"]),
            ("-Ec b=2", &[], &["-Ec", "b=2"]),
            ("word -c a=1", &[], &["word", "-c", "a=1"]),
            ("-d 5", &[], &["-d", "5"]),
        ];
        for (raw, settings, unread) in cases {
            let (got_settings, got_unread) = read(raw);
            let settings: Vec<(String, String)> = settings
                .iter()
                .map(|(n, v)| (n.to_string(), v.to_string()))
                .collect();
            assert_eq!(got_settings, settings, "{raw:?}");
            assert_eq!(got_unread, *unread, "{raw:?}");
        }
    }
}
