//! The API's documents, for server and client alike.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::encoding::hex;
use crate::event::HealthCheck;
use crate::store::{Approval, AuditEntry};

/// Where an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalStateName {
    /// Waits for an answer.
    Pending,
    /// A yes that was not used yet.
    Granted,
    /// A no.
    Denied,
    /// No answer, or no use, in time.
    Expired,
    /// A yes that was used.
    Spent,
}

/// Foreign bytes. Whoever prints `text` must neutralise control and
/// bidirectional characters first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShownBytes {
    /// The bytes themselves, base64.
    pub base64: String,
    /// The same as text; what is no UTF-8 is U+FFFD.
    pub text: String,
}

impl ShownBytes {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self {
            base64: STANDARD.encode(bytes),
            text: String::from_utf8_lossy(bytes).into_owned(),
        }
    }

    /// The bytes; `None` if the base64 is broken.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.base64).ok()
    }
}

/// One part of the session's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateEntry {
    /// Such as `role` or `search_path`.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// An approval in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalSummary {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: ApprovalStateName,
    /// Who asks: the principal's subject.
    pub principal_subject: String,
    /// Who vouches for the subject.
    pub principal_issuer: String,
    /// The session that asked first.
    pub session: String,
    /// The target.
    pub target: String,
    /// The database.
    pub database: String,
    /// The rule that wants an answer.
    pub rule: String,
    /// The text, or its first 4095 bytes: see `text_truncated`.
    pub text: ShownBytes,
    /// Bytes of the whole text.
    pub text_bytes: u64,
    /// Whether `text` is not the whole.
    pub text_truncated: bool,
    /// How many bind values there are; they are in the single document.
    pub bind_count: u64,
    /// Whether the asking session holds a transaction open.
    pub in_transaction: bool,
    /// Live connections that wait for the answer.
    pub waiting: u64,
    /// Unix ms.
    pub created_unix_ms: u64,
    /// Unix ms; the end of a pending request or of an unspent grant.
    pub expires_unix_ms: u64,
    /// Who answered; empty before.
    pub decided_by: String,
}

/// An approval, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalView {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: ApprovalStateName,
    /// SHA-256 of the exact request, hex.
    pub digest: String,
    /// Who vouches for the subject.
    pub principal_issuer: String,
    /// Who asks.
    pub principal_subject: String,
    /// On whose behalf.
    pub on_behalf_of: Option<String>,
    /// The session that asked first.
    pub session: String,
    /// The role that decided.
    pub role: String,
    /// The target.
    pub target: String,
    /// The database.
    pub database: String,
    /// The account used at the target.
    pub account: String,
    /// The policy version that decided.
    pub policy_version: String,
    /// The rule that wants an answer.
    pub rule: String,
    /// The text, whole, masked.
    pub text: ShownBytes,
    /// The bind values, masked; null is NULL.
    pub binds: Vec<Option<ShownBytes>>,
    /// State that gives the text its meaning.
    pub session_state: Vec<StateEntry>,
    /// Whether the asking session holds a transaction open.
    pub in_transaction: bool,
    /// Live connections that wait for the answer.
    pub waiting: u64,
    /// Unix ms.
    pub created_unix_ms: u64,
    /// Unix ms; the end of a pending request or of an unspent grant.
    pub expires_unix_ms: u64,
    /// Unix ms; null before the answer.
    pub decided_unix_ms: Option<u64>,
    /// Who answered; empty before.
    pub decided_by: String,
    /// Why; may be empty.
    pub reason: String,
    /// Unix ms of its end (denied, expired or spent); null before.
    pub ended_unix_ms: Option<u64>,
    /// The session that used the grant; empty before.
    pub spent_session: String,
    /// The approval under which others who asked the same wait on; or null.
    pub followed_by: Option<String>,
}

/// Approvals, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalList {
    /// At most as many as were asked for.
    pub approvals: Vec<ApprovalSummary>,
}

/// An answer to an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerBody {
    /// Who answers: a person's name, never the requester's own.
    pub by: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// What a gateway token is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MintBody {
    /// The principal's subject.
    pub subject: String,
    /// The principal's groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Seconds it is to live, from 1 to 366 days.
    pub ttl_s: u64,
    /// Who asks for it.
    #[serde(default)]
    pub by: String,
}

/// A token just made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MintedView {
    /// Its id.
    pub id: String,
    /// The token itself: shown here once, kept nowhere.
    pub token: String,
    /// The principal's subject.
    pub subject: String,
    /// The principal's groups.
    pub groups: Vec<String>,
    /// Unix seconds of its end.
    pub expires_unix_s: u64,
}

impl std::fmt::Debug for MintedView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MintedView")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its id.
    pub id: String,
    /// The principal's subject.
    pub subject: String,
    /// The principal's groups.
    pub groups: Vec<String>,
    /// Unix seconds.
    pub created_unix_s: u64,
    /// Unix seconds; null: never.
    pub expires_unix_s: Option<u64>,
    /// Unix seconds; null: not revoked.
    pub revoked_unix_s: Option<u64>,
}

/// Tokens, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    /// All of them.
    pub tokens: Vec<TokenView>,
}

/// One line of the trail of changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntryView {
    /// Its number; numbers have no gaps.
    pub sequence: u64,
    /// Unix ms.
    pub at_unix_ms: u64,
    /// Who did it.
    pub actor: String,
    /// What: `approval.grant`, `token.mint`, ...
    pub action: String,
    /// To what: an approval's or a token's id.
    pub object: String,
    /// More about it: a reason, or JSON.
    pub detail: String,
}

/// Lines of the trail, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditList {
    /// At most as many as were asked for.
    pub entries: Vec<AuditEntryView>,
}

/// The gateway's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthView {
    /// `ok` or `failing`.
    pub status: String,
    /// The parts.
    pub checks: Vec<HealthCheck>,
}

impl From<crate::store::ApprovalState> for ApprovalStateName {
    fn from(state: crate::store::ApprovalState) -> Self {
        use crate::store::ApprovalState as Stored;
        match state {
            Stored::Pending => Self::Pending,
            Stored::Granted => Self::Granted,
            Stored::Denied => Self::Denied,
            Stored::Expired => Self::Expired,
            Stored::Spent => Self::Spent,
        }
    }
}

impl ApprovalSummary {
    pub(super) fn of(approval: &Approval, waiting: usize) -> Self {
        let request = &approval.request;
        Self {
            id: approval.id.clone(),
            state: approval.state.into(),
            principal_subject: request.principal_subject.clone(),
            principal_issuer: request.principal_issuer.clone(),
            session: request.session.clone(),
            target: request.target.clone(),
            database: request.database.clone(),
            rule: request.rule.clone(),
            text: ShownBytes::of(&request.text),
            text_bytes: approval.text_bytes,
            text_truncated: (request.text.len() as u64) < approval.text_bytes,
            bind_count: approval.bind_count,
            in_transaction: request.in_transaction,
            waiting: waiting as u64,
            created_unix_ms: approval.created_ms,
            expires_unix_ms: approval.expires_ms,
            decided_by: approval.decided_by.clone(),
        }
    }
}

impl ApprovalView {
    pub(super) fn of(approval: &Approval, waiting: usize) -> Self {
        let request = &approval.request;
        let some = |time: u64| (time > 0).then_some(time);
        Self {
            id: approval.id.clone(),
            state: approval.state.into(),
            digest: hex(&request.digest),
            principal_issuer: request.principal_issuer.clone(),
            principal_subject: request.principal_subject.clone(),
            on_behalf_of: request.on_behalf_of.clone(),
            session: request.session.clone(),
            role: request.role.clone(),
            target: request.target.clone(),
            database: request.database.clone(),
            account: request.account.clone(),
            policy_version: request.policy_version.clone(),
            rule: request.rule.clone(),
            text: ShownBytes::of(&request.text),
            binds: request
                .binds
                .iter()
                .map(|bind| bind.as_ref().map(|bytes| ShownBytes::of(bytes)))
                .collect(),
            session_state: request
                .state
                .iter()
                .map(|(name, value)| StateEntry {
                    name: name.clone(),
                    value: value.clone(),
                })
                .collect(),
            in_transaction: request.in_transaction,
            waiting: waiting as u64,
            created_unix_ms: approval.created_ms,
            expires_unix_ms: approval.expires_ms,
            decided_unix_ms: some(approval.decided_ms),
            decided_by: approval.decided_by.clone(),
            reason: approval.reason.clone(),
            ended_unix_ms: some(approval.ended_ms),
            spent_session: approval.spent_session.clone(),
            followed_by: Some(approval.followed_by.clone()).filter(|id| !id.is_empty()),
        }
    }
}

impl From<AuditEntry> for AuditEntryView {
    fn from(entry: AuditEntry) -> Self {
        Self {
            sequence: entry.sequence,
            at_unix_ms: entry.at_ms,
            actor: entry.actor,
            action: entry.action,
            object: entry.object,
            detail: entry.detail,
        }
    }
}

impl From<identity::GatewayToken> for TokenView {
    fn from(token: identity::GatewayToken) -> Self {
        Self {
            id: token.id,
            subject: token.subject,
            groups: token.groups,
            created_unix_s: token.created_unix_s,
            expires_unix_s: token.expires_unix_s,
            revoked_unix_s: token.revoked_unix_s,
        }
    }
}
