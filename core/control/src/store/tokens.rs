//! Gateway tokens: everything about them but their secrets.

use identity::{GatewayToken, TokenHash};
use sqlx::Connection as _;
use sqlx::any::AnyRow;

use super::{Change, Store, StoreError, audit, number, stored, text};
use crate::encoding::{from_hex, hex};

impl Store {
    /// All tokens, newest first.
    pub(crate) async fn tokens(&mut self) -> Result<Vec<GatewayToken>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, hash, subject, group_names, created_s, expires_s, revoked_s
             FROM tokens ORDER BY created_s DESC, id",
        )
        .fetch_all(&mut self.connection)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Keeps a new token.
    pub(crate) async fn insert_token(
        &mut self,
        token: &GatewayToken,
        change: Change<'_>,
    ) -> Result<(), StoreError> {
        let groups =
            serde_json::to_string(&token.groups).map_err(|_| StoreError::Damaged("group_names"))?;
        let sequence = self.audit_sequence.saturating_add(1);
        let mut transaction = self.connection.begin().await?;
        sqlx::query(
            "INSERT INTO tokens (id, hash, subject, group_names, created_s, created_by,
                expires_s, revoked_s, revoked_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7, 0, '')",
        )
        .bind(token.id.as_str())
        .bind(hex(token.hash.as_bytes()))
        .bind(token.subject.as_str())
        .bind(groups.as_str())
        .bind(stored(token.created_unix_s))
        .bind(change.actor)
        .bind(stored(token.expires_unix_s.unwrap_or(0)))
        .execute(&mut *transaction)
        .await?;
        let detail = serde_json::json!({ "subject": token.subject, "groups": token.groups });
        let detail = detail.to_string();
        audit::append(
            &mut transaction,
            sequence,
            change,
            "token.mint",
            &token.id,
            &detail,
        )
        .await?;
        transaction.commit().await?;
        self.audit_sequence = sequence;
        Ok(())
    }

    /// Takes a token back. False if there is none of this id that was still in
    /// force.
    pub(crate) async fn revoke_token(
        &mut self,
        id: &str,
        change: Change<'_>,
    ) -> Result<bool, StoreError> {
        let sequence = self.audit_sequence.saturating_add(1);
        let mut transaction = self.connection.begin().await?;
        let done = sqlx::query(
            "UPDATE tokens SET revoked_s = $1, revoked_by = $2 WHERE id = $3 AND revoked_s = 0",
        )
        .bind(stored((change.at_ms / 1000).max(1)))
        .bind(change.actor)
        .bind(id)
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() != 1 {
            return Ok(false);
        }
        audit::append(&mut transaction, sequence, change, "token.revoke", id, "").await?;
        transaction.commit().await?;
        self.audit_sequence = sequence;
        Ok(true)
    }

    /// Forgets tokens that ended before `before_s`.
    pub(crate) async fn prune_tokens(&mut self, before_s: u64) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "DELETE FROM tokens WHERE (expires_s > 0 AND expires_s < $1)
                OR (revoked_s > 0 AND revoked_s < $2)",
        )
        .bind(stored(before_s))
        .bind(stored(before_s))
        .execute(&mut self.connection)
        .await?;
        Ok(done.rows_affected())
    }
}

fn read(row: &AnyRow) -> Result<GatewayToken, StoreError> {
    let some = |number: u64| (number > 0).then_some(number);
    let hash = from_hex(&text(row, "hash")?).and_then(|bytes| TokenHash::from_bytes(&bytes));
    Ok(GatewayToken {
        id: text(row, "id")?,
        hash: hash.ok_or(StoreError::Damaged("hash"))?,
        subject: text(row, "subject")?,
        groups: serde_json::from_str(&text(row, "group_names")?)
            .map_err(|_| StoreError::Damaged("group_names"))?,
        created_unix_s: number(row, "created_s")?,
        expires_unix_s: some(number(row, "expires_s")?),
        revoked_unix_s: some(number(row, "revoked_s")?),
    })
}
