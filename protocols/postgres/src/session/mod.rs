//! The session machine: everything after login, both directions.
