//! `/healthz` and `/metrics`.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::{Api, HealthView};
use crate::command::Admin;
use crate::event::HealthCheck;

/// 200 if every part works, else 503; names and yes or no, nothing more.
pub(super) async fn healthz(State(api): State<Api>) -> impl IntoResponse {
    let mut report = (api.hooks.health)();
    let store = api.ask(|reply| Admin::Ping { reply }).await.is_ok();
    report.checks.push(HealthCheck {
        name: "store".to_owned(),
        ok: store,
    });
    let (code, status) = match report.ok() {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "failing"),
    };
    (
        code,
        Json(HealthView {
            status: status.to_owned(),
            checks: report.checks,
        }),
    )
}

/// Prometheus' text format, as the gateway writes it.
pub(super) async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    let text = (api.hooks.metrics)();
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
}
