//! `/api/v1/tokens`: gateway tokens. Hashes never leave the store.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use identity::limits::{GROUP_BYTES_MAX, GROUPS_MAX, NAME_BYTES_MAX};

use super::guard::{Body, name};
use super::{Api, MintBody, MintedView, Problem, TokenList};
use crate::command::Admin;

/// Longest life of a token, in seconds: 366 days.
const TTL_S_MAX: u64 = 366 * 24 * 3600;

/// Who acts, where the request does not say.
const ADMIN: &str = "admin";

/// Lists gateway tokens, newest first.
#[utoipa::path(
    get, path = "/api/v1/tokens", tag = "tokens",
    security(("admin_token" = [])),
    responses(
        (status = 200, body = TokenList),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<TokenList>, Problem> {
    let found = api.ask(|reply| Admin::Tokens { reply }).await?;
    Ok(Json(TokenList {
        tokens: found.into_iter().map(Into::into).collect(),
    }))
}

/// Makes a gateway token and shows it, this once.
#[utoipa::path(
    post, path = "/api/v1/tokens", tag = "tokens", request_body = MintBody,
    security(("admin_token" = [])),
    responses(
        (status = 201, body = MintedView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn mint(
    State(api): State<Api>,
    Body(body): Body<MintBody>,
) -> Result<(StatusCode, Json<MintedView>), Problem> {
    let subject = name("subject", &body.subject, NAME_BYTES_MAX)?;
    if body.groups.len() > GROUPS_MAX {
        return Err(Problem::bad(format!("groups must be at most {GROUPS_MAX}")));
    }
    let groups = body
        .groups
        .iter()
        .map(|group| name("a group", group, GROUP_BYTES_MAX))
        .collect::<Result<Vec<_>, _>>()?;
    let ttl_s = body.ttl_s;
    if !(1..=TTL_S_MAX).contains(&ttl_s) {
        return Err(Problem::bad(format!("ttl_s must be from 1 to {TTL_S_MAX}")));
    }
    let by = if body.by.is_empty() {
        ADMIN.to_owned()
    } else {
        name("by", &body.by, 256)?
    };
    let (token, text) = api
        .ask(|reply| Admin::Mint {
            subject,
            groups,
            ttl_s,
            by,
            reply,
        })
        .await?;
    let minted = MintedView {
        id: token.id,
        token: text.as_str().to_owned(),
        subject: token.subject,
        groups: token.groups,
        expires_unix_s: token.expires_unix_s.unwrap_or(0),
    };
    Ok((StatusCode::CREATED, Json(minted)))
}

/// Takes a token back, for good. Sessions that live on it end.
#[utoipa::path(
    delete, path = "/api/v1/tokens/{id}", tag = "tokens",
    security(("admin_token" = [])),
    params(("id" = String, Path, description = "The token's id")),
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn revoke(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    api.ask(|reply| Admin::RevokeToken {
        id,
        by: ADMIN.to_owned(),
        reply,
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
