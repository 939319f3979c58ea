//! The command line.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed: the message says what, why, and what to do |
//! | 2 | the command line is wrong |
//! | 3 | `verify`: the record is not whole |
//! | 4 | `check`: the configuration has errors |
//! | 5 | `explain`: the request would be refused; 6: held |

mod approvals;
mod explain;
mod record;
mod tokens;

use crate::config::{self, reference};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// A gateway between AI agents and infrastructure: knows who the agent is,
/// injects the real credentials, refuses or holds dangerous requests, masks
/// secrets in what flows back, and records everything.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// The configuration file that a command works on.
#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(
        long = "config",
        value_name = "FILE",
        env = "PORTCULLIS_CONFIG",
        default_value = "portcullis.toml"
    )]
    file: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM (drain) or a second one (end at once); SIGHUP reloads the file.
    Run(ConfigFile),
    /// Check a configuration file and list every error with its place. Touches nothing.
    Check(ConfigFile),
    /// Say which rule decides a statement for a role, and why.
    Explain(explain::Explain),
    /// Make a gateway token for an agent; it is shown once, only its hash is kept.
    Token(tokens::Token),
    /// List gateway tokens (never the tokens themselves).
    Tokens(tokens::Tokens),
    /// Revoke a gateway token; sessions that live on it end within a second.
    Revoke(tokens::Revoke),
    /// List held requests, whole, as their approvers must see them.
    Approvals(approvals::Approvals),
    /// Let a held request run, once.
    Approve(approvals::Answer),
    /// Refuse a held request.
    Deny(approvals::Answer),
    /// List recorded sessions.
    Sessions(record::Sessions),
    /// Print a recorded session. What agents and targets wrote cannot drive your terminal.
    Replay(record::Replay),
    /// Check that a record is whole, and say where it is not. Needs only the files.
    Verify(record::Verify),
    /// Print what a client needs to reach a target.
    Env(tokens::Env),
    /// Print the reference of the configuration file (docs/CONFIGURATION.md).
    Reference,
}

/// A message for stderr and an exit code.
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Exit code 1.
    pub fn new(message: impl ToString) -> Failure {
        Failure {
            code: 1,
            message: message.to_string(),
        }
    }

    /// Another exit code.
    pub fn with_code(code: u8, message: impl ToString) -> Failure {
        Failure {
            code,
            message: message.to_string(),
        }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        Failure { code: 1, message }
    }
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(c) => crate::serve::run(&c.file).map_err(|e| match e {
            crate::serve::RunError::Config(e) => config_failure(e),
            other => Failure::from(other),
        }),
        Command::Check(c) => check(&c),
        Command::Explain(c) => explain::run(&c),
        Command::Token(c) => tokens::token(&c),
        Command::Tokens(c) => tokens::tokens(&c),
        Command::Revoke(c) => tokens::revoke(&c),
        Command::Approvals(c) => approvals::list(&c),
        Command::Approve(c) => approvals::answer(&c, true),
        Command::Deny(c) => approvals::answer(&c, false),
        Command::Sessions(c) => record::sessions(&c),
        Command::Replay(c) => record::replay(&c),
        Command::Verify(c) => record::verify(&c),
        Command::Env(c) => tokens::env(&c),
        Command::Reference => {
            print!("{}", reference::markdown());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("portcullis: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn config_failure(error: config::LoadError) -> Failure {
    Failure::with_code(4, error)
}

fn load(file: &ConfigFile) -> Result<config::Config, Failure> {
    config::load(&file.file).map_err(config_failure)
}

fn check(c: &ConfigFile) -> Result<(), Failure> {
    let config = load(c)?;
    // What the parts themselves would refuse at the start; still touches nothing.
    crate::serve::control_config(&config)
        .check()
        .map_err(|e| Failure::with_code(4, e))?;
    crate::serve::recorder_config(&config)
        .check()
        .map_err(|e| Failure::with_code(4, e))?;
    println!(
        "{}: ok ({} listeners, {} targets, {} roles, {} rules)",
        c.file.display(),
        config.listeners.len(),
        config.targets.len(),
        config.policy.roles.len(),
        config
            .policy
            .roles
            .iter()
            .map(|r| r.rules.len())
            .sum::<usize>()
    );
    Ok(())
}
