//! `/api/v1/approvals`: what waits, and its answers.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use utoipa::IntoParams;

use super::guard::{Body, Parameters, name};
use super::{
    AnswerBody, Api, ApprovalList, ApprovalStateName, ApprovalSummary, ApprovalView, Problem,
};
use crate::command::Admin;
use crate::store::{ApprovalFilter, ApprovalState};

/// Bytes of an approver's name.
const BY_BYTES_MAX: usize = 256;

/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 4096;

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 500;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Only those that stand here.
    state: Option<ApprovalStateName>,
    /// How many at most, from 1 to 500; 100 if not given.
    limit: Option<u32>,
}

/// Lists approvals, newest first.
#[utoipa::path(
    get, path = "/api/v1/approvals", tag = "approvals", params(Filter),
    security(("admin_token" = [])),
    responses(
        (status = 200, body = ApprovalList),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    Parameters(filter): Parameters<Filter>,
) -> Result<Json<ApprovalList>, Problem> {
    let limit = filter.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::bad(format!("limit must be from 1 to {LIMIT_MAX}")));
    }
    let state = filter.state.map(|state| match state {
        ApprovalStateName::Pending => ApprovalState::Pending,
        ApprovalStateName::Granted => ApprovalState::Granted,
        ApprovalStateName::Denied => ApprovalState::Denied,
        ApprovalStateName::Expired => ApprovalState::Expired,
        ApprovalStateName::Spent => ApprovalState::Spent,
    });
    let filter = ApprovalFilter { state, limit };
    let found = api.ask(|reply| Admin::Approvals { filter, reply }).await?;
    let approvals = found
        .iter()
        .map(|(approval, waiting)| ApprovalSummary::of(approval, *waiting))
        .collect();
    Ok(Json(ApprovalList { approvals }))
}

/// Shows one approval, whole.
#[utoipa::path(
    get, path = "/api/v1/approvals/{id}", tag = "approvals",
    security(("admin_token" = [])),
    params(("id" = String, Path, description = "The approval's id")),
    responses(
        (status = 200, body = ApprovalView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<ApprovalView>, Problem> {
    let (approval, waiting) = api.ask(|reply| Admin::Approval { id, reply }).await?;
    Ok(Json(ApprovalView::of(&approval, waiting)))
}

/// Says yes: one request of exactly this kind runs, once. If one waits it is
/// that one, and the answer shows the approval as spent.
#[utoipa::path(
    post, path = "/api/v1/approvals/{id}/approve", tag = "approvals", request_body = AnswerBody,
    security(("admin_token" = [])),
    params(("id" = String, Path, description = "The approval's id")),
    responses(
        (status = 200, body = ApprovalView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn approve(
    State(api): State<Api>,
    Path(id): Path<String>,
    Body(body): Body<AnswerBody>,
) -> Result<Json<ApprovalView>, Problem> {
    let (by, reason) = checked(&body)?;
    let (approval, waiting) = api
        .ask(|reply| Admin::Approve {
            id,
            by,
            reason,
            reply,
        })
        .await?;
    Ok(Json(ApprovalView::of(&approval, waiting)))
}

/// Says no, to all who wait; or takes back a yes that was not used yet.
#[utoipa::path(
    post, path = "/api/v1/approvals/{id}/deny", tag = "approvals", request_body = AnswerBody,
    security(("admin_token" = [])),
    params(("id" = String, Path, description = "The approval's id")),
    responses(
        (status = 200, body = ApprovalView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn deny(
    State(api): State<Api>,
    Path(id): Path<String>,
    Body(body): Body<AnswerBody>,
) -> Result<Json<ApprovalView>, Problem> {
    let (by, reason) = checked(&body)?;
    let (approval, waiting) = api
        .ask(|reply| Admin::Deny {
            id,
            by,
            reason,
            reply,
        })
        .await?;
    Ok(Json(ApprovalView::of(&approval, waiting)))
}

fn checked(body: &AnswerBody) -> Result<(String, String), Problem> {
    let by = name("by", &body.by, BY_BYTES_MAX)?;
    if body.reason.len() > REASON_BYTES_MAX {
        return Err(Problem::bad(format!(
            "reason must be at most {REASON_BYTES_MAX} bytes"
        )));
    }
    Ok((by, body.reason.clone()))
}
