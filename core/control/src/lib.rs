//! The control plane: what needs memory or a human.
//!
//! It keeps gateway tokens, requests that wait for a human's answer, the
//! answers, and a trail of every change, in an embedded SQLite store; it serves
//! them over a small HTTP/JSON API with its own token, on a Unix socket or a
//! loopback port. It lives on one thread of its own with an ordinary async
//! runtime. Shards never run here and never wait here: they hold a
//! [`ControlHandle`], whose calls return at once and whose answers come through
//! callbacks.
//!
//! ```text
//!  shard ──hold(request, answer)──▶ queue ──▶ ┌─────────┐ ◀── HTTP ── portcullis approve
//!    ▲                                        │ broker  │ ──▶ SQLite (durable first)
//!    └────────── answer(HoldAnswer) ◀──────── └─────────┘ ──▶ on_event (recorder)
//! ```
//!
//! # An approval's life
//! ```text
//!            hold                approve               an identical request
//!  (nothing) ────▶ pending ─────────────▶ granted ─────────────────────────▶ spent
//!                   │   │                    │
//!              deny │   │ expires            │ expires
//!                   ▼   ▼                    ▼
//!               denied  expired           expired
//! ```
//! (A grant that was not used yet can also be denied: the yes is taken back.)
//! Each arrow is one transaction that is on disk before anybody hears of it. A
//! request is let through only by the arrow into `spent`, which a row can take
//! once: so at most one request runs per approval, whatever is cut where.
//! A request whose agent went away stays `pending`, and its grant stays usable
//! until its absolute end, for the same principal and the same digest.
//!
//! What it leaves to others: what is shown has been masked by the gateway
//! before it comes here; the digest is made by the gateway; foreign bytes are
//! neutralised by who prints them (the API gives them in base64 and as lossy
//! text).

#![forbid(unsafe_code)]

mod api;
mod broker;
mod client;
mod command;
mod config;
mod control;
mod encoding;
mod error;
mod event;
mod fetch;
mod handle;
mod hold;
mod secret_file;
mod server;
mod store;

pub use api::{
    AnswerBody, ApprovalList, ApprovalStateName, ApprovalSummary, ApprovalView, AuditEntryView,
    AuditList, HealthView, MintBody, MintedView, Problem, ShownBytes, StateEntry, TokenList,
    TokenView,
};
pub use client::{Client, ClientError};
pub use config::{ControlConfig, ControlLimits, ControlListen};
pub use control::Control;
pub use error::ControlError;
pub use event::{ApprovalEvent, ApprovalEventKind, HealthCheck, HealthReport, Hooks};
pub use handle::{ControlHandle, FetchError, FetchLimits};
pub use hold::{AbandonReason, HoldAnswer, HoldNotice, HoldRequest, HoldTicket};
