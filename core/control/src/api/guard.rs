//! What every request passes: the bearer token, a deadline; and the JSON body
//! whose refusals are problem documents too.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde::de::DeserializeOwned;

use super::{Api, Problem, REQUEST_TIMEOUT};

pub(super) async fn admin_token(State(api): State<Api>, request: Request, next: Next) -> Response {
    match bearer(request.headers()) {
        Some(token) if api.token.is(token) => next.run(request).await,
        _ => Problem::of(
            StatusCode::UNAUTHORIZED,
            "the admin token is missing or wrong",
        )
        .into_response(),
    }
}

/// The one bearer token of a request (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return None;
    };
    let (scheme, token) = field.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

pub(super) async fn deadline(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Problem::of(StatusCode::REQUEST_TIMEOUT, "the request took too long").into_response()
        }
    }
}

/// A JSON body. What was sent is not repeated in the refusal.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => {
                let detail = match &rejection {
                    JsonRejection::MissingJsonContentType(_) => {
                        "the body must be application/json".to_owned()
                    }
                    JsonRejection::JsonSyntaxError(_) => "the body is not JSON".to_owned(),
                    JsonRejection::JsonDataError(error) => error.body_text(),
                    _ => "the body is too large or broken".to_owned(),
                };
                Err(Problem::of(rejection.status(), detail))
            }
        }
    }
}

/// Query parameters.
pub(super) struct Parameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let parsed: Result<Query<T>, QueryRejection> =
            Query::from_request_parts(parts, state).await;
        match parsed {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(Problem::bad(rejection.body_text())),
        }
    }
}

/// A name that a person gives: `by`, a subject, a group.
pub(super) fn name(what: &str, name: &str, bytes_max: usize) -> Result<String, Problem> {
    let name = name.trim();
    if name.is_empty() || name.len() > bytes_max || name.chars().any(char::is_control) {
        return Err(Problem::bad(format!(
            "{what} must be 1 to {bytes_max} bytes without control characters"
        )));
    }
    Ok(name.to_owned())
}
