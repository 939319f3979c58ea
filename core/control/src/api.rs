//! The HTTP/JSON API under `/api/v1`, with `/healthz` and `/metrics` beside it.
//!
//! Everything but `/healthz` (and `/metrics`, where so configured) wants
//! `Authorization: Bearer TOKEN`. Refusals are problem documents (RFC 9457).
//! The OpenAPI description at `/api/v1/openapi.json` is made from this code.

#[allow(unused_qualifications, reason = "utoipa's macro writes them")]
mod approvals;
#[allow(unused_qualifications, reason = "utoipa's macro writes them")]
mod audit;
mod guard;
mod health;
mod problem;
mod tokens;
mod types;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router, middleware};
use tokio::sync::{mpsc, oneshot};
use utoipa::OpenApi as _;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use problem::Problem;
pub use types::{
    AnswerBody, ApprovalList, ApprovalStateName, ApprovalSummary, ApprovalView, AuditEntryView,
    AuditList, HealthView, MintBody, MintedView, ShownBytes, StateEntry, TokenList, TokenView,
};

use crate::command::{Admin, Refusal, Reply};
use crate::event::Hooks;
use crate::secret_file::AdminToken;

/// Bytes of a request's body: answers and token wishes are small.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// From a whole request head to the end of its answer, body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    admin: mpsc::Sender<Admin>,
    token: Arc<AdminToken>,
    hooks: Hooks,
    metrics_need_token: bool,
}

impl Api {
    pub(crate) fn new(
        admin: mpsc::Sender<Admin>,
        token: AdminToken,
        hooks: Hooks,
        metrics_need_token: bool,
    ) -> Self {
        Self {
            admin,
            token: Arc::new(token),
            hooks,
            metrics_need_token,
        }
    }

    /// Asks the broker and waits for its answer.
    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Admin) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        let gone = |_| Problem::unavailable("the control plane is stopping");
        self.admin
            .send(request(reply))
            .await
            .map_err(|_| gone(()))?;
        answer.await.map_err(|_| gone(()))?.map_err(Problem::from)
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "Portcullis control plane",
    description = "Approvals, gateway tokens, the audit trail and health of one gateway.",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct Description;

/// The whole API as a service.
pub(crate) fn router(api: Api) -> Router {
    let mut description = Description::openapi();
    description
        .components
        .get_or_insert_default()
        .add_security_scheme(
            "admin_token",
            SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
        );
    let (guarded, description) = OpenApiRouter::with_openapi(description)
        .routes(routes!(approvals::list))
        .routes(routes!(approvals::show))
        .routes(routes!(approvals::approve))
        .routes(routes!(approvals::deny))
        .routes(routes!(tokens::list, tokens::mint))
        .routes(routes!(tokens::revoke))
        .routes(routes!(audit::list))
        .split_for_parts();
    let description = Arc::new(description);
    let guarded = guarded
        .route(
            "/api/v1/openapi.json",
            get(move || {
                let description = Arc::clone(&description);
                async move { Json(description.as_ref().clone()) }
            }),
        )
        .layer(middleware::from_fn_with_state(
            api.clone(),
            guard::admin_token,
        ));
    let mut metrics = Router::new().route("/metrics", get(health::metrics));
    if api.metrics_need_token {
        metrics = metrics.layer(middleware::from_fn_with_state(
            api.clone(),
            guard::admin_token,
        ));
    }
    guarded
        .merge(metrics)
        .route("/healthz", get(health::healthz))
        .fallback(|| async { Problem::of(StatusCode::NOT_FOUND, "there is nothing here") })
        .method_not_allowed_fallback(|| async {
            Problem::of(
                StatusCode::METHOD_NOT_ALLOWED,
                "this method is not offered here",
            )
        })
        .layer(middleware::from_fn(guard::deadline))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(api)
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::of(StatusCode::NOT_FOUND, "there is none of this id"),
            Refusal::Conflict { state, followed_by } if followed_by.is_empty() => {
                Self::of(StatusCode::CONFLICT, format!("the approval is {state}"))
            }
            Refusal::Conflict { state, followed_by } => Self::of(
                StatusCode::CONFLICT,
                format!("the approval is {state}; the same request waits as {followed_by}"),
            ),
            Refusal::OwnRequest => Self::of(
                StatusCode::FORBIDDEN,
                "the requester may not approve the request",
            ),
            Refusal::Full { what } => Self::of(
                StatusCode::INSUFFICIENT_STORAGE,
                format!("no room for more {what}"),
            ),
            Refusal::Store => Self::unavailable("the store failed; the log says why"),
        }
    }
}
