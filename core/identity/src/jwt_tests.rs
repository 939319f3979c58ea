//! JWT tests.
