//! What the session tests share: a small model of a server, a toy content that masks the
//! word SECRET, and a world that joins both with a session.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod messages;
pub mod model;
pub mod toy;
pub mod world;
