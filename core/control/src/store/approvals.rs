//! Approvals: requests, answers, and the one arrow into `spent`.
//!
//! Each move names the state it starts from in its `WHERE`; whether it
//! happened is read from the number of rows it changed. So a move that comes
//! late, twice, or beside another one does nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, Connection as _};

use super::{Change, Store, StoreError, audit, number, stored, text};
use crate::encoding::{from_hex, hex};
use crate::hold::HoldRequest;

/// Which request of which principal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) digest: [u8; 32],
}

impl Key {
    pub(crate) fn of(request: &HoldRequest) -> Self {
        Self {
            issuer: request.principal_issuer.clone(),
            subject: request.principal_subject.clone(),
            digest: request.digest,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApprovalState {
    Pending,
    Granted,
    Denied,
    Expired,
    Spent,
}

impl ApprovalState {
    const ALL: [Self; 5] = [
        Self::Pending,
        Self::Granted,
        Self::Denied,
        Self::Expired,
        Self::Spent,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Spent => "spent",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// One approval as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Approval {
    pub(crate) id: String,
    /// What was asked. `wait_deadline_unix_ms` and `reuse` are not kept: they
    /// belong to one wait. In lists the text is cut and the values are left out.
    pub(crate) request: HoldRequest,
    /// Bytes of the whole text.
    pub(crate) text_bytes: u64,
    pub(crate) bind_count: u64,
    pub(crate) state: ApprovalState,
    pub(crate) created_ms: u64,
    /// The end of the present state, for `pending` and `granted`.
    pub(crate) expires_ms: u64,
    pub(crate) decided_ms: u64,
    pub(crate) decided_by: String,
    pub(crate) reason: String,
    /// When it was denied, expired or spent; 0 before.
    pub(crate) ended_ms: u64,
    pub(crate) spent_session: String,
    /// The approval under which those wait on whom this one did not serve.
    pub(crate) followed_by: String,
}

impl Approval {
    pub(crate) fn pending(id: String, request: HoldRequest, now: u64, expires_ms: u64) -> Self {
        Self {
            id,
            text_bytes: request.text.len() as u64,
            bind_count: request.binds.len() as u64,
            request,
            state: ApprovalState::Pending,
            created_ms: now,
            expires_ms,
            decided_ms: 0,
            decided_by: String::new(),
            reason: String::new(),
            ended_ms: 0,
            spent_session: String::new(),
            followed_by: String::new(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ApprovalFilter {
    pub(crate) state: Option<ApprovalState>,
    pub(crate) limit: u32,
}

/// Bytes of the text that lists carry; the whole is read one at a time.
pub(crate) const LISTED_TEXT_BYTES_MAX: usize = 4095;

/// The same in base64, whose groups of four characters are three bytes.
const LISTED_TEXT_CHARS_MAX: usize = LISTED_TEXT_BYTES_MAX / 3 * 4;
const _: () = assert!(LISTED_TEXT_BYTES_MAX.is_multiple_of(3));

const COLUMNS: &str = "id, digest, principal_issuer, principal_subject, on_behalf_of, session, \
    role, target, database_name, account, policy_version, rule_name, shown_text, \
    shown_text_bytes, shown_binds, shown_bind_count, session_state, in_transaction, state, \
    created_ms, expires_ms, decided_ms, decided_by, reason, ended_ms, spent_session, followed_by";

impl Store {
    /// The approvals that can still move, pending and granted, as in a list.
    pub(crate) async fn live_approvals(&mut self) -> Result<Vec<Approval>, StoreError> {
        self.select("state = 'pending' OR state = 'granted' ORDER BY created_ms, id")
            .await
    }

    /// The approval of this id.
    pub(crate) async fn approval(&mut self, id: &str) -> Result<Option<Approval>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM approvals WHERE id = $1");
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(id)
            .fetch_optional(&mut self.connection)
            .await?;
        row.map(|row| read(&row)).transpose()
    }

    /// The newest approvals first, as in a list.
    pub(crate) async fn approvals(
        &mut self,
        filter: ApprovalFilter,
    ) -> Result<Vec<Approval>, StoreError> {
        let which = match filter.state {
            Some(state) => format!("state = '{}'", state.name()),
            None => "1 = 1".to_owned(),
        };
        let limit = filter.limit;
        self.select(&format!(
            "{which} ORDER BY created_ms DESC, id LIMIT {limit}"
        ))
        .await
    }

    /// The oldest grant of this request that is unspent and in its time.
    pub(crate) async fn usable_grant(
        &mut self,
        key: &Key,
        now: u64,
    ) -> Result<Option<Approval>, StoreError> {
        self.newest(
            key,
            "state = 'granted' AND expires_ms > $4 ORDER BY decided_ms, id",
            now,
        )
        .await
    }

    /// The last denial of this request after `since`.
    pub(crate) async fn denial_since(
        &mut self,
        key: &Key,
        since: u64,
    ) -> Result<Option<Approval>, StoreError> {
        self.newest(
            key,
            "state = 'denied' AND ended_ms > $4 ORDER BY ended_ms DESC, id",
            since,
        )
        .await
    }

    /// Puts a request on file. Where it follows another approval, that one
    /// names it.
    pub(crate) async fn insert_approval(
        &mut self,
        approval: &Approval,
        follows: Option<&str>,
        change: Change<'_>,
    ) -> Result<(), StoreError> {
        let request = &approval.request;
        let binds: Vec<Option<String>> = request
            .binds
            .iter()
            .map(|bind| bind.as_ref().map(|bytes| STANDARD.encode(bytes)))
            .collect();
        let binds =
            serde_json::to_string(&binds).map_err(|_| StoreError::Damaged("shown_binds"))?;
        let state = serde_json::to_string(&request.state)
            .map_err(|_| StoreError::Damaged("session_state"))?;
        let sequence = self.audit_sequence.saturating_add(1);
        let mut transaction = self.connection.begin().await?;
        let sql = format!(
            "INSERT INTO approvals ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, \
             $11, $12, $13, $14, $15, $16, $17, $18, 'pending', $19, $20, 0, '', '', 0, '', '')"
        );
        sqlx::query(AssertSqlSafe(sql))
            .bind(approval.id.as_str())
            .bind(hex(&request.digest))
            .bind(request.principal_issuer.as_str())
            .bind(request.principal_subject.as_str())
            .bind(request.on_behalf_of.as_deref().unwrap_or(""))
            .bind(request.session.as_str())
            .bind(request.role.as_str())
            .bind(request.target.as_str())
            .bind(request.database.as_str())
            .bind(request.account.as_str())
            .bind(request.policy_version.as_str())
            .bind(request.rule.as_str())
            .bind(STANDARD.encode(&request.text))
            .bind(stored(approval.text_bytes))
            .bind(binds)
            .bind(stored(approval.bind_count))
            .bind(state)
            .bind(i64::from(request.in_transaction))
            .bind(stored(approval.created_ms))
            .bind(stored(approval.expires_ms))
            .execute(&mut *transaction)
            .await?;
        if let Some(old) = follows {
            sqlx::query("UPDATE approvals SET followed_by = $1 WHERE id = $2")
                .bind(approval.id.as_str())
                .bind(old)
                .execute(&mut *transaction)
                .await?;
        }
        let detail = serde_json::json!({
            "session": request.session, "target": request.target, "rule": request.rule,
            "digest": hex(&request.digest), "follows": follows,
        });
        let detail = detail.to_string();
        audit::append(
            &mut transaction,
            sequence,
            change,
            "approval.ask",
            &approval.id,
            &detail,
        )
        .await?;
        transaction.commit().await?;
        self.audit_sequence = sequence;
        Ok(())
    }

    /// pending → granted, usable until `expires_ms`.
    pub(crate) async fn grant(
        &mut self,
        id: &str,
        reason: &str,
        expires_ms: u64,
        change: Change<'_>,
    ) -> Result<bool, StoreError> {
        let update = sqlx::query(
            "UPDATE approvals SET state = 'granted', decided_ms = $1, expires_ms = $2,
                decided_by = $3, reason = $4
             WHERE id = $5 AND state = 'pending'",
        )
        .bind(stored(change.at_ms))
        .bind(stored(expires_ms))
        .bind(change.actor)
        .bind(reason)
        .bind(id);
        self.step(update, change, "approval.grant", id, reason)
            .await
    }

    /// pending or granted → denied: a no, or a yes taken back before its use.
    pub(crate) async fn deny(
        &mut self,
        id: &str,
        reason: &str,
        change: Change<'_>,
    ) -> Result<bool, StoreError> {
        let update = sqlx::query(
            "UPDATE approvals SET state = 'denied', decided_ms = $1, ended_ms = $2,
                decided_by = $3, reason = $4
             WHERE id = $5 AND (state = 'pending' OR state = 'granted')",
        )
        .bind(stored(change.at_ms))
        .bind(stored(change.at_ms))
        .bind(change.actor)
        .bind(reason)
        .bind(id);
        self.step(update, change, "approval.deny", id, reason).await
    }

    /// pending or granted → expired.
    pub(crate) async fn expire(
        &mut self,
        id: &str,
        change: Change<'_>,
    ) -> Result<bool, StoreError> {
        let update = sqlx::query(
            "UPDATE approvals SET state = 'expired', ended_ms = $1
             WHERE id = $2 AND (state = 'pending' OR state = 'granted')",
        )
        .bind(stored(change.at_ms))
        .bind(id);
        self.step(update, change, "approval.expire", id, "").await
    }

    /// granted → spent, for one session, once. True means: on disk, run it.
    pub(crate) async fn spend(
        &mut self,
        id: &str,
        session: &str,
        change: Change<'_>,
    ) -> Result<bool, StoreError> {
        let update = sqlx::query(
            "UPDATE approvals SET state = 'spent', ended_ms = $1, spent_session = $2
             WHERE id = $3 AND state = 'granted' AND expires_ms > $4",
        )
        .bind(stored(change.at_ms))
        .bind(session)
        .bind(id)
        .bind(stored(change.at_ms));
        self.step(update, change, "approval.spend", id, session)
            .await
    }

    /// Forgets approvals that ended before `before_ms`.
    pub(crate) async fn prune_approvals(&mut self, before_ms: u64) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM approvals WHERE ended_ms > 0 AND ended_ms < $1")
            .bind(stored(before_ms))
            .execute(&mut self.connection)
            .await?;
        Ok(done.rows_affected())
    }

    /// One arrow of the diagram and its audit line, as one transaction; false
    /// if the approval is not where the arrow starts.
    async fn step(
        &mut self,
        update: Query<'_, Any, AnyArguments>,
        change: Change<'_>,
        action: &str,
        id: &str,
        note: &str,
    ) -> Result<bool, StoreError> {
        let sequence = self.audit_sequence.saturating_add(1);
        let mut transaction = self.connection.begin().await?;
        let done = update.execute(&mut *transaction).await?;
        if done.rows_affected() != 1 {
            return Ok(false);
        }
        audit::append(&mut transaction, sequence, change, action, id, note).await?;
        transaction.commit().await?;
        self.audit_sequence = sequence;
        Ok(true)
    }

    async fn newest(
        &mut self,
        key: &Key,
        which: &str,
        when: u64,
    ) -> Result<Option<Approval>, StoreError> {
        let row = sqlx::query(AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM approvals WHERE principal_issuer = $1 AND \
             principal_subject = $2 AND digest = $3 AND {which} LIMIT 1"
        )))
        .bind(key.issuer.as_str())
        .bind(key.subject.as_str())
        .bind(hex(&key.digest))
        .bind(stored(when))
        .fetch_optional(&mut self.connection)
        .await?;
        row.map(|row| read(&row)).transpose()
    }

    async fn select(&mut self, which: &str) -> Result<Vec<Approval>, StoreError> {
        // Hundreds of whole requests would be hundreds of megabytes.
        let columns = COLUMNS
            .replace(
                "shown_text,",
                &format!("substr(shown_text, 1, {LISTED_TEXT_CHARS_MAX}) AS shown_text,"),
            )
            .replace("shown_binds,", "'[]' AS shown_binds,");
        let sql = format!("SELECT {columns} FROM approvals WHERE {which}");
        let rows = sqlx::query(AssertSqlSafe(sql))
            .fetch_all(&mut self.connection)
            .await?;
        rows.iter().map(read).collect()
    }
}

fn read(row: &AnyRow) -> Result<Approval, StoreError> {
    let digest = from_hex(&text(row, "digest")?).and_then(|bytes| bytes.try_into().ok());
    let bytes = |encoded: &str, column| {
        STANDARD
            .decode(encoded)
            .map_err(|_| StoreError::Damaged(column))
    };
    let binds: Vec<Option<String>> = serde_json::from_str(&text(row, "shown_binds")?)
        .map_err(|_| StoreError::Damaged("shown_binds"))?;
    let binds = binds
        .into_iter()
        .map(|bind| {
            bind.map(|encoded| bytes(&encoded, "shown_binds"))
                .transpose()
        })
        .collect::<Result<_, _>>()?;
    let on_behalf_of = text(row, "on_behalf_of")?;
    Ok(Approval {
        id: text(row, "id")?,
        request: HoldRequest {
            digest: digest.ok_or(StoreError::Damaged("digest"))?,
            session: text(row, "session")?,
            principal_issuer: text(row, "principal_issuer")?,
            principal_subject: text(row, "principal_subject")?,
            on_behalf_of: Some(on_behalf_of).filter(|name| !name.is_empty()),
            role: text(row, "role")?,
            target: text(row, "target")?,
            database: text(row, "database_name")?,
            account: text(row, "account")?,
            policy_version: text(row, "policy_version")?,
            rule: text(row, "rule_name")?,
            text: bytes(&text(row, "shown_text")?, "shown_text")?,
            binds,
            state: serde_json::from_str(&text(row, "session_state")?)
                .map_err(|_| StoreError::Damaged("session_state"))?,
            in_transaction: number(row, "in_transaction")? != 0,
            wait_deadline_unix_ms: 0,
            reuse: true,
        },
        text_bytes: number(row, "shown_text_bytes")?,
        bind_count: number(row, "shown_bind_count")?,
        state: ApprovalState::named(&text(row, "state")?).ok_or(StoreError::Damaged("state"))?,
        created_ms: number(row, "created_ms")?,
        expires_ms: number(row, "expires_ms")?,
        decided_ms: number(row, "decided_ms")?,
        decided_by: text(row, "decided_by")?,
        reason: text(row, "reason")?,
        ended_ms: number(row, "ended_ms")?,
        spent_session: text(row, "spent_session")?,
        followed_by: text(row, "followed_by")?,
    })
}
