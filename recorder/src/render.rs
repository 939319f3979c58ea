//! A record as lines that a human reads. Every foreign byte goes through `neutralise`.

use std::io::{self, Write};

use crate::archive::Record;
use crate::body::{ActionCode, ApprovalState, Body, Fault, OutcomeCode, Ruling};
use crate::neutralise::{neutralise, neutralise_lines};

/// Reads row data for `render`: gives one line of bytes per row, or `None` if it is not row data.
/// What it gives may be raw; `render` neutralises it.
pub type RowsReader<'a> = &'a dyn Fn(&[u8]) -> Option<Vec<Vec<u8>>>;

/// How to render.
#[derive(Clone, Copy, Default)]
pub struct Style<'a> {
    /// Times are printed as offsets from here, in microseconds since 1970; a session's first
    /// record's `wall_clock_us` serves.
    pub base_us: u64,
    /// Knows the protocol's row data. Without it rows are printed as escaped text.
    pub rows: Option<RowsReader<'a>>,
}

/// Writes a record as lines: a first one with time, unit and what happened, then the texts that
/// belong to it, indented behind a bar so that no foreign newline can pass for a line of ours.
///
/// # Errors
/// Those of `out`.
pub fn render(record: &Record, out: &mut dyn Write, style: Style<'_>) -> io::Result<()> {
    let offset_us = i128::from(record.wall_clock_us) - i128::from(style.base_us);
    let sign = if offset_us < 0 { '-' } else { '+' };
    let offset_us = offset_us.unsigned_abs();
    write!(
        out,
        "{sign}{}.{:06} ",
        offset_us / 1_000_000,
        offset_us % 1_000_000
    )?;
    match record.body.unit() {
        Some(unit) => write!(out, "#{unit} ")?,
        None => write!(out, "   ")?,
    }
    body(&record.body, out, style)
}

fn show(text: &str) -> String {
    neutralise(text.as_bytes())
}

fn body(body: &Body, out: &mut dyn Write, style: Style<'_>) -> io::Result<()> {
    match body {
        Body::SessionStart {
            protocol,
            principal,
            issuer,
            on_behalf_of,
            role,
            target,
            database,
            account,
            source,
            tls,
            policy_version,
            application,
            mode,
        } => {
            write!(
                out,
                "session starts: {} as {} ({})",
                show(protocol),
                show(principal),
                show(issuer)
            )?;
            if let Some(other) = on_behalf_of {
                write!(out, " on behalf of {}", show(other))?;
            }
            writeln!(
                out,
                ", role {}, target {}, database {}, account {}, from {}{}, application {}, recording {}, policy {}",
                show(role),
                show(target),
                show(database),
                show(account),
                show(source),
                if *tls { " (tls)" } else { "" },
                show(application),
                show(mode),
                show(policy_version)
            )
        }
        Body::Request {
            kind,
            name,
            text_masked,
            text_length,
            digest,
            binds_masked,
            truncated,
            decision,
            ..
        } => {
            write!(out, "{}", show(kind))?;
            if !name.is_empty() {
                write!(out, " \"{}\"", neutralise(name))?;
            }
            write!(out, ", {text_length} bytes, sha256 ")?;
            for byte in digest {
                write!(out, "{byte:02x}")?;
            }
            writeln!(out, "{}", cut(*truncated))?;
            lines(text_masked, out)?;
            for (index, bind) in binds_masked.iter().enumerate() {
                match bind {
                    Some(bind) => writeln!(out, "    ${} = {}", index + 1, neutralise(bind))?,
                    None => writeln!(out, "    ${} = NULL", index + 1)?,
                }
            }
            match decision {
                Some(decision) => {
                    write!(out, "    ")?;
                    ruling(decision, out)
                }
                None => Ok(()),
            }
        }
        Body::Decision {
            ruling: decision, ..
        } => ruling(decision, out),
        Body::Approval {
            approval,
            state,
            by,
            reason,
            ..
        } => {
            let state = match state {
                ApprovalState::Requested => "requested",
                ApprovalState::Granted => "granted",
                ApprovalState::Denied => "denied",
                ApprovalState::Expired => "expired",
                ApprovalState::Spent => "spent",
                ApprovalState::Abandoned => "abandoned",
            };
            write!(out, "approval {} {state}", show(approval))?;
            if !by.is_empty() {
                write!(out, " by {}", show(by))?;
            }
            if !reason.is_empty() {
                write!(out, ": {}", show(reason))?;
            }
            writeln!(out)
        }
        Body::Rows {
            data_masked,
            truncated,
            ..
        } => {
            writeln!(out, "rows, {} bytes{}", data_masked.len(), cut(*truncated))?;
            rows(data_masked, out, style)
        }
        Body::CopyIn {
            data_masked,
            truncated,
            ..
        } => {
            writeln!(
                out,
                "copy data from the agent, {} bytes{}",
                data_masked.len(),
                cut(*truncated)
            )?;
            rows(data_masked, out, style)
        }
        Body::Outcome {
            outcome,
            rows: count,
            bytes,
            masked,
            data_masked,
            truncated,
            ..
        } => {
            match outcome {
                OutcomeCode::Completed { tag } => write!(out, "completed {}", show(tag))?,
                OutcomeCode::Failed { sqlstate } => {
                    write!(out, "failed in the target, {}", show(sqlstate))?;
                }
                OutcomeCode::Skipped => write!(out, "skipped by the target")?,
                OutcomeCode::Suspended => write!(out, "suspended at its row limit")?,
                OutcomeCode::Refused { sqlstate } => {
                    write!(out, "refused by the gateway, {}", show(sqlstate))?;
                }
                OutcomeCode::Unknown => write!(out, "ended without an answer")?,
            }
            write!(out, "; {count} rows, {bytes} bytes")?;
            for (kind, times) in masked {
                write!(out, ", masked {} x{times}", show(kind))?;
            }
            writeln!(out, "{}", cut(*truncated))?;
            rows(data_masked, out, style)
        }
        Body::Notice {
            sqlstate,
            text_masked,
            ..
        } => {
            writeln!(out, "notice {}", show(sqlstate))?;
            lines(text_masked, out)
        }
        Body::Notification {
            channel_masked,
            payload_masked,
        } => {
            writeln!(out, "notification on {}", neutralise(channel_masked))?;
            lines(payload_masked, out)
        }
        Body::Cancel {
            source, accepted, ..
        } => writeln!(
            out,
            "cancel from {}, {}",
            show(source),
            if *accepted { "passed on" } else { "refused" }
        ),
        Body::Error {
            fault,
            code,
            text_masked,
            ..
        } => {
            let fault = match fault {
                Fault::Agent => "agent",
                Fault::Target => "target",
                Fault::Policy => "policy",
                Fault::Gateway => "gateway",
                Fault::Resource => "resource",
            };
            writeln!(out, "error ({fault}) {}", show(code))?;
            lines(text_masked, out)
        }
        Body::Event {
            name,
            detail_masked,
        } => {
            writeln!(out, "{}", show(name))?;
            lines(detail_masked, out)
        }
        Body::SessionEnd {
            reason,
            requests,
            denied,
            bytes_down,
            bytes_up,
        } => writeln!(
            out,
            "session ends: {}; {requests} requests, {denied} denied, {bytes_down} bytes to the agent, {bytes_up} to the target",
            show(reason)
        ),
    }
}

fn cut(truncated: bool) -> &'static str {
    if truncated {
        " (cut in the record)"
    } else {
        ""
    }
}

fn ruling(ruling: &Ruling, out: &mut dyn Write) -> io::Result<()> {
    let action = match ruling.action {
        ActionCode::Allow => "allowed",
        ActionCode::Deny => "DENIED",
        ActionCode::Approve => "held for approval",
        ActionCode::Alert => "allowed with an alert",
    };
    write!(out, "{action} by {}", show(&ruling.rule))?;
    if !ruling.reason.is_empty() {
        write!(out, ": {}", show(&ruling.reason))?;
    }
    if let Some(approval) = &ruling.approval {
        write!(out, ", approval {}", show(approval))?;
    }
    writeln!(out, ", policy {}", show(&ruling.policy_version))
}

fn lines(text: &[u8], out: &mut dyn Write) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    for line in neutralise_lines(text).split('\n') {
        writeln!(out, "    | {line}")?;
    }
    Ok(())
}

fn rows(data: &[u8], out: &mut dyn Write, style: Style<'_>) -> io::Result<()> {
    match style.rows.and_then(|reader| reader(data)) {
        Some(rows) => {
            for row in rows {
                writeln!(out, "    | {}", neutralise(&row))?;
            }
            Ok(())
        }
        None => lines(data, out),
    }
}
