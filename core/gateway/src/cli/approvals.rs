//! `portcullis approvals`, `approve`, `deny`: the human's side of a hold.
//!
//! What is to be approved is shown whole, or its cut is announced; characters
//! that could drive the terminal or hide text are made visible.

use super::{ConfigFile, Failure, load};
use control::{ApprovalView, ControlListen};
use control::{Client, ClientError};
use recorder::{neutralise, neutralise_lines};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Arguments of `approvals`.
#[derive(Debug, clap::Args)]
pub struct Approvals {
    #[command(flatten)]
    config: ConfigFile,
    /// Those that have been answered or have expired as well.
    #[arg(long)]
    all: bool,
    /// Print ids only.
    #[arg(long)]
    ids: bool,
}

/// Arguments of `approve` and `deny`.
#[derive(Debug, clap::Args)]
pub struct Answer {
    #[command(flatten)]
    config: ConfigFile,
    /// The approval's id.
    id: String,
    /// Who answers; never the one who asked.
    #[arg(long)]
    by: String,
    /// Why; some rules require it.
    #[arg(long, default_value = "")]
    reason: String,
}

/// A client of the running gateway's control plane.
pub(super) fn client(file: &ConfigFile) -> Result<Client, Failure> {
    let config = load(file)?;
    let listen: ControlListen = crate::serve::control_config(&config).listen;
    Client::new(listen, &config.control.admin_token_file).map_err(explain)
}

pub(super) fn explain(error: ClientError) -> Failure {
    Failure::from(error)
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_millis() as u64
}

/// Lists approvals.
pub fn list(c: &Approvals) -> Result<(), Failure> {
    let client = client(&c.config)?;
    let list = client.approvals(!c.all).map_err(explain)?;
    if c.ids {
        for a in &list.approvals {
            println!("{}", neutralise(a.id.as_bytes()));
        }
        return Ok(());
    }
    if list.approvals.is_empty() {
        println!("nothing waits for approval");
    }
    for summary in &list.approvals {
        show(&client.approval(&summary.id).map_err(explain)?);
    }
    Ok(())
}

fn show(a: &ApprovalView) {
    let text = |s: &str| neutralise(s.as_bytes());
    let left_s = a.expires_unix_ms.saturating_sub(now_ms()) / 1000;
    println!(
        "approval   {}  ({:?}, {left_s} s left, {} waiting)",
        text(&a.id),
        a.state,
        a.waiting
    );
    print!(
        "asks       {} ({})",
        text(&a.principal_subject),
        text(&a.principal_issuer)
    );
    match &a.on_behalf_of {
        Some(who) => println!(" on behalf of {}", text(who)),
        None => println!(),
    }
    println!(
        "wants      target {}, database {}, account {}",
        text(&a.target),
        text(&a.database),
        text(&a.account)
    );
    println!(
        "by rule    {} (role {}, policy {})",
        text(&a.rule),
        text(&a.role),
        text(&a.policy_version)
    );
    println!(
        "session    {}{}",
        text(&a.session),
        if a.in_transaction {
            ", inside a transaction that holds locks"
        } else {
            ""
        }
    );
    for entry in &a.session_state {
        println!("state      {} = {}", text(&entry.name), text(&entry.value));
    }
    let statement = a
        .text
        .bytes()
        .unwrap_or_else(|| a.text.text.clone().into_bytes());
    println!("statement  ({} bytes, whole)", statement.len());
    for line in neutralise_lines(&statement).split('\n') {
        println!("  | {line}");
    }
    for (i, bind) in a.binds.iter().enumerate() {
        match bind {
            None => println!("  ${} = (null)", i + 1),
            Some(value) => {
                let bytes = value
                    .bytes()
                    .unwrap_or_else(|| value.text.clone().into_bytes());
                println!("  ${} = {}", i + 1, neutralise(&bytes));
            }
        }
    }
    if !a.decided_by.is_empty() {
        println!("answered   by {} {}", text(&a.decided_by), text(&a.reason));
    }
    println!();
}

/// Answers one.
pub fn answer(c: &Answer, yes: bool) -> Result<(), Failure> {
    let client = client(&c.config)?;
    let done = if yes {
        client.approve(&c.id, &c.by, &c.reason)
    } else {
        client.deny(&c.id, &c.by, &c.reason)
    };
    let view = done.map_err(explain)?;
    println!(
        "{} is {:?}, by {}",
        neutralise(view.id.as_bytes()),
        view.state,
        neutralise(view.decided_by.as_bytes())
    );
    Ok(())
}
