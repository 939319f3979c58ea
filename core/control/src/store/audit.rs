//! The trail of every change made through the control plane.

use sqlx::AnyConnection;

use super::{Store, StoreError, number, stored, text};

/// Who changes something, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change<'a> {
    /// A person's name as given with the admin token, or who asked.
    pub(crate) actor: &'a str,
    /// Unix ms.
    pub(crate) at_ms: u64,
}

/// One line of the trail.
#[derive(Debug, Clone)]
pub(crate) struct AuditEntry {
    pub(crate) sequence: u64,
    pub(crate) at_ms: u64,
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) object: String,
    pub(crate) detail: String,
}

/// Adds a line, inside the transaction of the change it tells.
pub(super) async fn append(
    connection: &mut AnyConnection,
    sequence: i64,
    change: Change<'_>,
    action: &str,
    object: &str,
    detail: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit (sequence, at_ms, actor, action, object, detail)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(sequence)
    .bind(stored(change.at_ms))
    .bind(change.actor)
    .bind(action)
    .bind(object)
    .bind(detail)
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    pub(super) async fn last_audit_sequence(&mut self) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT sequence FROM audit ORDER BY sequence DESC LIMIT 1")
            .fetch_optional(&mut self.connection)
            .await?;
        let last = row.map(|row| number(&row, "sequence")).transpose()?;
        Ok(stored(last.unwrap_or(0)))
    }

    /// A line about something that changed nothing, such as a refused answer.
    pub(crate) async fn note(
        &mut self,
        change: Change<'_>,
        action: &str,
        object: &str,
        detail: &str,
    ) -> Result<(), StoreError> {
        let sequence = self.audit_sequence.saturating_add(1);
        append(
            &mut self.connection,
            sequence,
            change,
            action,
            object,
            detail,
        )
        .await?;
        self.audit_sequence = sequence;
        Ok(())
    }

    /// Up to `limit` lines after `sequence`, oldest first.
    pub(crate) async fn audit_after(
        &mut self,
        sequence: u64,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let rows = sqlx::query(
            "SELECT sequence, at_ms, actor, action, object, detail FROM audit
             WHERE sequence > $1 ORDER BY sequence LIMIT $2",
        )
        .bind(stored(sequence))
        .bind(i64::from(limit))
        .fetch_all(&mut self.connection)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(AuditEntry {
                    sequence: number(row, "sequence")?,
                    at_ms: number(row, "at_ms")?,
                    actor: text(row, "actor")?,
                    action: text(row, "action")?,
                    object: text(row, "object")?,
                    detail: text(row, "detail")?,
                })
            })
            .collect()
    }
}
