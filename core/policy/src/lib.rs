//! Roles and rules become decisions; SQL text becomes facts.
//!
//! The crate is pure: no clock, no IO, no async, no randomness. The gateway
//! hands in a [`PolicySpec`] (what the operator wrote), gets a [`PolicySet`]
//! (what was checked), and gives every session one [`SqlGate`], the only door
//! it uses afterwards. The gate answers each decision unit of the PostgreSQL
//! protocol with a [`Step`]: decided, or a [`ParseJob`] to run off the shard.
//!
//! The law: deny beats approve beats allow; what cannot be read, parsed or
//! evaluated is denied; a name stands for every text that the server may still
//! hold under it.
//!
//! ```
//! # use portcullis_policy as policy;
//! use policy::{PolicySet, PolicySpec, RoleSpec, RuleSpec, Action};
//! let spec = PolicySpec {
//!     roles: vec![RoleSpec {
//!         name: "analyst".into(),
//!         groups: vec!["analysts".into()],
//!         targets: vec!["warehouse".into()],
//!         default: Action::Deny,
//!         rules: vec![RuleSpec {
//!             name: "reading".into(),
//!             action: Action::Allow,
//!             statements: vec!["read".into()],
//!             tables: vec!["public.*".into()],
//!             ..RuleSpec::default()
//!         }],
//!         ..RoleSpec::default()
//!     }],
//!     ..PolicySpec::default()
//! };
//! let set = PolicySet::compile(&spec).expect("a valid policy");
//! let role = set.role_for(&["analysts".into()], "warehouse").expect("a role");
//! let why = policy::explain(&set, &role, &policy::SessionFacts::default(), "select * from orders");
//! assert_eq!(why.decision.action, Action::Allow);
//! ```
//!
//! What it leaves to others: the wire protocol (`protocols/postgres`), waiting
//! for humans (`control`), and writing decisions down (`recorder`).

#![forbid(unsafe_code)]

mod cache;
mod compile;
mod decision;
mod evaluate;
mod explain;
mod gate;
mod glob;
mod packs;
mod spec;
pub mod sql;
mod when;

pub use cache::VerdictCache;
pub use compile::{PolicyError, PolicySet, Role, RoleRef};
pub use decision::{Decision, DenyKind};
pub use explain::{Explanation, RuleLine, explain};
pub use gate::{
    Bind, Binds, Outcome, ParseDone, ParseJob, PreparedText, SessionFacts, SqlGate, Step,
};
pub use packs::pack_names;
pub use spec::{Action, ApprovalSpec, PolicySpec, Principal, RoleSpec, RuleSpec, SqlLimits};
