//! The store's tables, and how an older store becomes a present one.

use sqlx::{AnyConnection, Connection as _, Row as _};

/// Each step is applied once, in order; a released step is never changed.
const STEPS: &[&[&str]] = &[&[
    // id: `ap_` and 16 characters. digest: hex. text: base64. binds, state:
    // JSON. in_transaction: 0 or 1. Times: Unix ms, 0 where there is none.
    "CREATE TABLE approvals (
        id TEXT NOT NULL PRIMARY KEY,
        digest TEXT NOT NULL,
        principal_issuer TEXT NOT NULL,
        principal_subject TEXT NOT NULL,
        on_behalf_of TEXT NOT NULL,
        session TEXT NOT NULL,
        role TEXT NOT NULL,
        target TEXT NOT NULL,
        database_name TEXT NOT NULL,
        account TEXT NOT NULL,
        policy_version TEXT NOT NULL,
        rule_name TEXT NOT NULL,
        shown_text TEXT NOT NULL,
        shown_text_bytes BIGINT NOT NULL,
        shown_binds TEXT NOT NULL,
        shown_bind_count BIGINT NOT NULL,
        session_state TEXT NOT NULL,
        in_transaction BIGINT NOT NULL,
        state TEXT NOT NULL,
        created_ms BIGINT NOT NULL,
        expires_ms BIGINT NOT NULL,
        decided_ms BIGINT NOT NULL,
        decided_by TEXT NOT NULL,
        reason TEXT NOT NULL,
        ended_ms BIGINT NOT NULL,
        spent_session TEXT NOT NULL,
        followed_by TEXT NOT NULL
    )",
    // One request waits once: what asks again joins it.
    "CREATE UNIQUE INDEX approvals_pending
        ON approvals (principal_issuer, principal_subject, digest)
        WHERE state = 'pending'",
    "CREATE INDEX approvals_by_key
        ON approvals (principal_issuer, principal_subject, digest, state)",
    "CREATE INDEX approvals_by_time ON approvals (created_ms, id)",
    "CREATE INDEX approvals_by_state ON approvals (state, ended_ms)",
    // hash: hex. groups: JSON. Times: Unix seconds, 0 where there is none.
    "CREATE TABLE tokens (
        id TEXT NOT NULL PRIMARY KEY,
        hash TEXT NOT NULL,
        subject TEXT NOT NULL,
        group_names TEXT NOT NULL,
        created_s BIGINT NOT NULL,
        created_by TEXT NOT NULL,
        expires_s BIGINT NOT NULL,
        revoked_s BIGINT NOT NULL,
        revoked_by TEXT NOT NULL
    )",
    "CREATE TABLE audit (
        sequence BIGINT NOT NULL PRIMARY KEY,
        at_ms BIGINT NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        object TEXT NOT NULL,
        detail TEXT NOT NULL
    )",
]];

/// Brings the store to the present schema; on failure it is as it was.
pub(super) async fn upgrade(connection: &mut AnyConnection) -> Result<(), String> {
    let said = |error: sqlx::Error| error.to_string();
    let mut transaction = connection.begin().await.map_err(said)?;
    sqlx::query("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
        .execute(&mut *transaction)
        .await
        .map_err(said)?;
    let row = sqlx::query("SELECT version FROM schema_version")
        .fetch_optional(&mut *transaction)
        .await
        .map_err(said)?;
    let found = match &row {
        Some(row) => row.try_get::<i64, _>(0).map_err(said)?,
        None => 0,
    };
    let have = usize::try_from(found)
        .ok()
        .filter(|have| *have <= STEPS.len());
    let Some(have) = have else {
        return Err(format!(
            "schema version {found} is newer than this program's {}",
            STEPS.len()
        ));
    };
    for step in STEPS.iter().skip(have) {
        for statement in *step {
            sqlx::query(*statement)
                .execute(&mut *transaction)
                .await
                .map_err(said)?;
        }
    }
    let write = match row {
        Some(_) => "UPDATE schema_version SET version = $1",
        None => "INSERT INTO schema_version (version) VALUES ($1)",
    };
    sqlx::query(write)
        .bind(i64::try_from(STEPS.len()).unwrap_or(i64::MAX))
        .execute(&mut *transaction)
        .await
        .map_err(said)?;
    transaction.commit().await.map_err(said)
}
