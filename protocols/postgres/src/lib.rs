//! PostgreSQL, protocol 3.0 and 3.2, as sans-IO state machines.
//!
//! Nothing here owns a socket, a clock or randomness: bytes go in, bytes and
//! events come out. What a machine needs from outside (nonces, limits, what TLS
//! found) is handed in, so every path can be tested by feeding byte slices.
//!
//! | module | what it does |
//! |---|---|
//! | [`wire`] | splits a stream into messages; decodes and encodes each of them |
//! | [`startup`] | the untyped first packets: start-up, SSL, GSS and cancel requests |
//! | [`login::downstream`] | plays the server towards the agent until it has said who it is |
//! | [`login::upstream`] | plays the client towards the target until it is ready for queries |
//! | [`scram`] | SCRAM-SHA-256 and -PLUS, client role, with keys that can be cached |
//! | [`cancel`] | cancel requests, with the key lengths of protocol 3.2 |
//! | [`session`] | everything after login, both directions |
//!
//! What this crate leaves to others: TLS itself, dialling, who an agent is, what a
//! policy says, what a secret looks like, and the record.
//!
//! ```
//! use bytes::Bytes;
//! use postgres::wire::{Frames, Piece, Treatment};
//!
//! let mut frames = Frames::new();
//! frames.push(Bytes::from_static(b"Q\0\0\0\x0dselect 1\0"));
//! let piece = frames.next(|_tag, _body_bytes| Treatment::Whole).unwrap().unwrap();
//! let Piece::Frame(frame) = piece else { panic!("a whole frame was asked for") };
//! assert_eq!(frame.tag, b'Q');
//! assert_eq!(frame.body(), b"select 1\0");
//! ```
#![forbid(unsafe_code)]

pub mod cancel;
pub mod error;
pub mod login;
pub mod scram;
pub mod session;
pub mod startup;
pub mod wire;

pub use error::{LoginError, Refusal, WireError};
