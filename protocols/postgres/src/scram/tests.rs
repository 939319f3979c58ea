//! SCRAM tests.
