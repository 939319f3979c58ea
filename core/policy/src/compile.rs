//! From what was written to what was checked.
use crate::spec::PolicySpec;
use std::sync::Arc;

/// One fault in the policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct PolicyError {
    /// Where, like `roles.analyst.rules[2].when`.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// A checked role.
#[derive(Debug)]
pub struct Role {}
impl Role {
    /// Its name.
    pub fn name(&self) -> &str {
        ""
    }
    /// Whether any rule needs to read SQL.
    pub fn reads_sql(&self) -> bool {
        true
    }
    /// Whether any `when` reads bind values.
    pub fn reads_binds(&self) -> bool {
        true
    }
    /// Whether the start-up parameter `replication` may pass.
    pub fn allow_replication(&self) -> bool {
        false
    }
}
/// A shared role.
pub type RoleRef = Arc<Role>;

/// A checked policy.
#[derive(Debug)]
pub struct PolicySet {
    version: Arc<str>,
}

impl PolicySet {
    /// Checks a policy. Errors: every fault found, with its path.
    pub fn compile(_spec: &PolicySpec) -> Result<Arc<PolicySet>, Vec<PolicyError>> {
        Err(Vec::new())
    }
    /// Hex SHA-256 of the canonical spec.
    pub fn version(&self) -> &str {
        &self.version
    }
    /// The version as records share it.
    pub fn version_arc(&self) -> Arc<str> {
        self.version.clone()
    }
    /// The first role in file order for one of the groups and the target.
    pub fn role_for(&self, _groups: &[String], _target: &str) -> Option<RoleRef> {
        None
    }
    /// A role by name.
    pub fn role(&self, _name: &str) -> Option<RoleRef> {
        None
    }
}
