//! `portcullis token`, `tokens`, `revoke`, `env`: how agents get in.

use super::approvals::{client, explain};
use super::{ConfigFile, Failure, load};
use control::MintBody;
use recorder::neutralise;

/// Arguments of `token`.
#[derive(Debug, clap::Args)]
pub struct Token {
    #[command(flatten)]
    config: ConfigFile,
    /// Whom the token names.
    #[arg(long)]
    subject: String,
    /// A group of the subject; may be repeated.
    #[arg(long = "group")]
    groups: Vec<String>,
    /// Seconds until it ends.
    #[arg(long, default_value_t = 3600)]
    ttl_s: u64,
    /// Who makes it, for the audit trail.
    #[arg(long, default_value = "")]
    by: String,
}

/// Arguments of `tokens`.
#[derive(Debug, clap::Args)]
pub struct Tokens {
    #[command(flatten)]
    config: ConfigFile,
}

/// Arguments of `revoke`.
#[derive(Debug, clap::Args)]
pub struct Revoke {
    #[command(flatten)]
    config: ConfigFile,
    /// The token's id (`portcullis tokens`).
    id: String,
}

/// Arguments of `env`.
#[derive(Debug, clap::Args)]
pub struct Env {
    #[command(flatten)]
    config: ConfigFile,
    /// The target.
    target: String,
}

/// Makes a token; standard output has it and nothing else.
pub fn token(c: &Token) -> Result<(), Failure> {
    let wish = MintBody {
        subject: c.subject.clone(),
        groups: c.groups.clone(),
        ttl_s: c.ttl_s,
        by: c.by.clone(),
    };
    let minted = client(&c.config)?.mint(&wish).map_err(explain)?;
    eprintln!(
        "token {} for {}, ends in {} s; it is not shown again",
        minted.id,
        neutralise(minted.subject.as_bytes()),
        c.ttl_s
    );
    println!("{}", minted.token);
    Ok(())
}

/// Lists tokens.
pub fn tokens(c: &Tokens) -> Result<(), Failure> {
    for t in client(&c.config)?.tokens().map_err(explain)?.tokens {
        let state = match (t.revoked_unix_s, t.expires_unix_s) {
            (Some(at), _) => format!("revoked at {at}"),
            (None, Some(at)) => format!("ends at {at}"),
            (None, None) => "no end".into(),
        };
        let groups: Vec<String> = t.groups.iter().map(|g| neutralise(g.as_bytes())).collect();
        println!(
            "{}  subject={} groups={} {state}",
            t.id,
            neutralise(t.subject.as_bytes()),
            groups.join(",")
        );
    }
    Ok(())
}

/// Revokes a token.
pub fn revoke(c: &Revoke) -> Result<(), Failure> {
    client(&c.config)?.revoke(&c.id).map_err(explain)?;
    println!("revoked");
    Ok(())
}

/// What a client needs, as shell assignments.
pub fn env(c: &Env) -> Result<(), Failure> {
    let config = load(&c.config)?;
    let target = config.target(&c.target).ok_or_else(|| {
        let known: Vec<&str> = config.targets.iter().map(|t| t.name.as_str()).collect();
        Failure::new(format!(
            "no target is named `{}`; known: {}",
            c.target,
            known.join(", ")
        ))
    })?;
    let listener = config
        .listeners
        .iter()
        .find(|l| l.target.as_deref().is_none_or(|t| t == target.name))
        .ok_or_else(|| Failure::new("no listener leads to this target"))?;
    println!("export PGHOST={}", listener.address.ip());
    println!("export PGPORT={}", listener.address.port());
    match listener.target {
        Some(_) => println!(
            "export PGDATABASE={}",
            target.database.as_deref().unwrap_or(&target.name)
        ),
        None => println!("export PGDATABASE={}", target.name),
    }
    println!("export PGUSER=agent");
    if listener.certificate.is_some() {
        println!("export PGSSLMODE=verify-full PGSSLROOTCERT=system");
    }
    println!(
        "# PGPASSWORD is a token: of a configured issuer, or `portcullis token --subject NAME --group GROUP`"
    );
    Ok(())
}
