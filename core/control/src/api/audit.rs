//! `/api/v1/audit`: the trail of changes.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::guard::Parameters;
use super::{Api, AuditList, Problem};
use crate::command::Admin;

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 1000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Only lines after this number; 0 if not given.
    after: Option<u64>,
    /// How many at most, from 1 to 1000; 100 if not given.
    limit: Option<u32>,
}

/// Lists changes, oldest first.
#[utoipa::path(
    get, path = "/api/v1/audit", tag = "audit", params(Filter),
    security(("admin_token" = [])),
    responses(
        (status = 200, body = AuditList),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    Parameters(filter): Parameters<Filter>,
) -> Result<Json<AuditList>, Problem> {
    let limit = filter.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::bad(format!("limit must be from 1 to {LIMIT_MAX}")));
    }
    let after = filter.after.unwrap_or(0);
    let found = api
        .ask(|reply| Admin::Audit {
            after,
            limit,
            reply,
        })
        .await?;
    Ok(Json(AuditList {
        entries: found.into_iter().map(Into::into).collect(),
    }))
}
