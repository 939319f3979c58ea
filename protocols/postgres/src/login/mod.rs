//! The two logins: [`downstream`] plays the server towards the agent, [`upstream`] the
//! client towards the target. They know nothing of each other; the gateway puts what
//! the upstream learnt into the downstream's welcome.

pub mod downstream;
mod oauth;
pub mod upstream;
