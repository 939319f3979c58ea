//! `portcullis sessions`, `replay`, `verify`: reading the record. All need the
//! files only, not the gateway.

use super::{ConfigFile, Failure, load};
use postgres::wire::Values;
use postgres::wire::backend::RowDescription;
use recorder::{Archive, Body, SessionId, neutralise};
use std::io::Write;
use std::path::PathBuf;

/// Where the record is: its folder, or the configuration that names it.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The record's folder; without it the configuration file tells.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
}

impl Place {
    fn dir(&self) -> Result<PathBuf, Failure> {
        match &self.dir {
            Some(dir) if dir.is_dir() => Ok(dir.clone()),
            Some(dir) => Err(Failure::new(format!("{} is not a folder", dir.display()))),
            None => Ok(load(&self.config)?.recorder.dir),
        }
    }
}

/// Arguments of `sessions`.
#[derive(Debug, clap::Args)]
pub struct Sessions {
    #[command(flatten)]
    place: Place,
}

/// Arguments of `replay`.
#[derive(Debug, clap::Args)]
pub struct Replay {
    #[command(flatten)]
    place: Place,
    /// The session's id, or its first characters; without it the latest session.
    session: Option<String>,
}

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Verify {
    #[command(flatten)]
    place: Place,
    /// The gateway has stopped: an end without its closing record is damage too.
    #[arg(long)]
    closed: bool,
}

fn clock(us: u64) -> String {
    // Days and seconds of the day; the civil date by Howard Hinnant's algorithm.
    let (seconds, rest) = (us / 1_000_000, us % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let z = days as i64 + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * m + 2) / 5 + 1;
    let month = if m < 10 { m + 3 } else { m - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        rest / 1000
    )
}

/// Lists sessions, oldest first.
pub fn sessions(c: &Sessions) -> Result<(), Failure> {
    let archive = Archive::open(c.place.dir()?)?;
    let mut out = std::io::stdout().lock();
    for s in archive.sessions() {
        let (who, role, target) = match &s.start {
            Some(Body::SessionStart {
                principal,
                role,
                target,
                database,
                ..
            }) => (
                neutralise(principal.as_bytes()),
                role.clone(),
                format!("{target}/{}", neutralise(database.as_bytes())),
            ),
            _ => ("?".into(), "?".into(), "?".into()),
        };
        let end = match &s.end {
            Some(Body::SessionEnd { reason, .. }) => reason.clone(),
            _ => "unfinished".into(),
        };
        writeln!(
            out,
            "{}  {}  subject={who} role={role} target={target} requests={} denied={} records={} end=\"{end}\"",
            s.session,
            clock(s.first_us),
            s.requests,
            s.denied,
            s.records
        )?;
    }
    Ok(())
}

fn find(archive: &Archive, wanted: Option<&str>) -> Result<SessionId, Failure> {
    let all = archive.sessions();
    let Some(prefix) = wanted else {
        return all
            .last()
            .map(|s| s.session)
            .ok_or_else(|| Failure::new("the record holds no session"));
    };
    let fits: Vec<_> = all
        .iter()
        .filter(|s| s.session.to_string().starts_with(prefix))
        .collect();
    match fits.as_slice() {
        [one] => Ok(one.session),
        [] => Err(Failure::new(format!(
            "no session begins with {}",
            neutralise(prefix.as_bytes())
        ))),
        many => Err(Failure::new(format!(
            "{} sessions begin with {prefix}; give more of the id",
            many.len()
        ))),
    }
}

/// Prints one session, record by record.
pub fn replay(c: &Replay) -> Result<(), Failure> {
    let archive = Archive::open(c.place.dir()?)?;
    let session = find(&archive, c.session.as_deref())?;
    let base_us = archive.summary(session).map_or(0, |s| s.first_us);
    let mut out = std::io::stdout().lock();
    writeln!(out, "session {session}, begun {}", clock(base_us))?;
    let mut damaged = false;
    for record in archive.session(session) {
        match record {
            Ok(record) => recorder::render(
                &record,
                &mut out,
                recorder::Style {
                    base_us,
                    rows: Some(&rows),
                },
            )?,
            Err(error) => {
                damaged = true;
                writeln!(out, "!! {error}")?;
            }
        }
    }
    if damaged {
        Err(Failure::with_code(
            3,
            "the session's record is not whole; see `portcullis verify`",
        ))
    } else {
        Ok(())
    }
}

/// Rows of recorded PostgreSQL messages, one line each: names, then values.
fn rows(data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut lines = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let (head, _) = rest.split_first_chunk::<5>()?;
        let length = usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]]))
            .ok()?
            .checked_add(1)?;
        let Some(message) = rest.get(..length) else {
            lines.push(b"(cut here)".to_vec());
            break;
        };
        rest = rest.get(length..)?;
        let body = message.get(5..)?;
        match head[0] {
            b'T' => {
                let names: Vec<&[u8]> = RowDescription::decode(body)
                    .ok()?
                    .fields()
                    .map(|f| f.name)
                    .collect();
                lines.push(names.join(&b" | "[..]));
            }
            b'D' => {
                let mut reader = postgres::wire::Reader::new(body);
                let values = Values::take(&mut reader).ok()?;
                let shown: Vec<&[u8]> = values.iter().map(|v| v.unwrap_or(b"(null)")).collect();
                lines.push(shown.join(&b" | "[..]));
            }
            b'd' => lines.push(body.strip_suffix(b"\n").unwrap_or(body).to_vec()),
            _ => lines.push(body.to_vec()),
        }
    }
    Some(lines)
}

/// Checks the record; exit code 3 where it is not whole.
pub fn verify(c: &Verify) -> Result<(), Failure> {
    let dir = c.place.dir()?;
    let report = if c.closed {
        recorder::verify_closed(&dir)?
    } else {
        recorder::verify(&dir)?
    };
    println!("{report}");
    if report.is_whole() {
        Ok(())
    } else {
        Err(Failure::with_code(
            3,
            format!("{} is not whole", dir.display()),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_utc() {
        assert_eq!(clock(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(clock(951_827_696_789_000), "2000-02-29T12:34:56.789Z");
    }

    #[test]
    fn rows_of_messages_become_lines_and_rubbish_does_not_panic() {
        let mut data = b"D\0\0\0\x11\0\x02\0\0\0\x01a\xff\xff\xff\xff".to_vec();
        data[4] = (data.len() - 1) as u8;
        assert_eq!(rows(&data), Some(vec![b"a | (null)".to_vec()]));
        for cut in 0..data.len() {
            let _ = rows(&data[..cut]);
        }
    }
}
