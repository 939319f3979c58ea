//! The words for statements, and the groups of them that rules may use.

/// Object words by `ObjectType` of the grammar.
const OBJECTS: &[&str] = &[
    "",
    "access_method",
    "aggregate",
    "amop",
    "amproc",
    "attribute",
    "cast",
    "column",
    "collation",
    "conversion",
    "database",
    "default",
    "default_acl",
    "domain",
    "domain_constraint",
    "event_trigger",
    "extension",
    "foreign_data_wrapper",
    "foreign_server",
    "foreign_table",
    "function",
    "index",
    "language",
    "large_object",
    "materialized_view",
    "operator_class",
    "operator",
    "operator_family",
    "parameter_acl",
    "policy",
    "procedure",
    "publication",
    "publication_namespace",
    "publication_rel",
    "role",
    "routine",
    "rule",
    "schema",
    "sequence",
    "subscription",
    "statistics",
    "table_constraint",
    "table",
    "tablespace",
    "transform",
    "trigger",
    "text_search_configuration",
    "text_search_dictionary",
    "text_search_parser",
    "text_search_template",
    "type",
    "user_mapping",
    "view",
];

/// Every kind of statement that rules may name.
///
/// A statement has one kind for itself and one for each statement inside it
/// (`explain` and `delete` for `EXPLAIN ANALYZE DELETE …`). Extra kinds mark
/// what a statement does beside its name: `select_into`, `select_for_update`,
/// `role_password` (a password given to a role), `copy_program`, `copy_file`.
pub const KINDS: &[&str] = &[
    "alter",
    "alter_database",
    "alter_default_privileges",
    "alter_extension",
    "alter_function",
    "alter_materialized_view",
    "alter_policy",
    "alter_publication",
    "alter_role",
    "alter_sequence",
    "alter_subscription",
    "alter_system",
    "alter_table",
    "alter_type",
    "alter_view",
    "analyze",
    "begin",
    "call",
    "checkpoint",
    "close",
    "cluster",
    "comment",
    "commit",
    "commit_prepared",
    "copy",
    "copy_file",
    "copy_program",
    "create",
    "create_access_method",
    "create_cast",
    "create_database",
    "create_domain",
    "create_event_trigger",
    "create_extension",
    "create_foreign_data_wrapper",
    "create_foreign_server",
    "create_foreign_table",
    "create_function",
    "create_index",
    "create_language",
    "create_materialized_view",
    "create_operator_class",
    "create_policy",
    "create_procedure",
    "create_publication",
    "create_role",
    "create_rule",
    "create_schema",
    "create_sequence",
    "create_statistics",
    "create_subscription",
    "create_table",
    "create_table_as",
    "create_tablespace",
    "create_transform",
    "create_trigger",
    "create_type",
    "create_user_mapping",
    "create_view",
    "deallocate",
    "declare",
    "delete",
    "discard",
    "do",
    "drop",
    "drop_access_method",
    "drop_aggregate",
    "drop_cast",
    "drop_collation",
    "drop_conversion",
    "drop_database",
    "drop_domain",
    "drop_event_trigger",
    "drop_extension",
    "drop_foreign_data_wrapper",
    "drop_foreign_server",
    "drop_foreign_table",
    "drop_function",
    "drop_index",
    "drop_language",
    "drop_materialized_view",
    "drop_operator",
    "drop_operator_class",
    "drop_operator_family",
    "drop_owned",
    "drop_policy",
    "drop_procedure",
    "drop_publication",
    "drop_role",
    "drop_routine",
    "drop_rule",
    "drop_schema",
    "drop_sequence",
    "drop_statistics",
    "drop_subscription",
    "drop_table",
    "drop_tablespace",
    "drop_transform",
    "drop_trigger",
    "drop_type",
    "drop_user_mapping",
    "drop_view",
    "empty",
    "execute",
    "explain",
    "fetch",
    "grant",
    "grant_role",
    "import_foreign_schema",
    "insert",
    "listen",
    "load",
    "lock",
    "merge",
    "move",
    "notify",
    "prepare",
    "prepare_transaction",
    "reassign_owned",
    "refresh_materialized_view",
    "reindex",
    "release",
    "reset",
    "revoke",
    "revoke_role",
    "role_password",
    "rollback",
    "rollback_prepared",
    "rollback_to",
    "savepoint",
    "security_label",
    "select",
    "select_for_update",
    "select_into",
    "set",
    "set_constraints",
    "set_role",
    "set_session_authorization",
    "set_transaction",
    "show",
    "truncate",
    "unknown",
    "unlisten",
    "update",
    "vacuum",
];

/// Groups of kinds that rules may name in `statements`.
///
/// | group | kinds |
/// |---|---|
/// | `all` | every kind |
/// | `read` | select, explain, show, declare, fetch, move, close, empty |
/// | `write` | insert, update, delete, merge, truncate, select_for_update |
/// | `dml` | insert, update, delete, merge |
/// | `ddl` | create…, alter…, drop…, select_into, comment, grant…, revoke…, reindex, refresh…, cluster, truncate |
/// | `privilege` | grant…, revoke…, …role, alter_default_privileges, reassign_owned, drop_owned, role_password |
/// | `transaction` | begin, commit, rollback, savepoint, …prepared, set_transaction, set_constraints |
/// | `session` | set, reset, discard, prepare, execute, deallocate, listen, unlisten, notify |
/// | `maintenance` | vacuum, analyze, cluster, reindex, checkpoint, refresh_materialized_view |
pub const GROUPS: &[&str] = &[
    "all",
    "read",
    "write",
    "dml",
    "ddl",
    "privilege",
    "transaction",
    "session",
    "maintenance",
];

/// Whether `kind` is in `group`.
pub(crate) fn in_group(group: &str, kind: &str) -> bool {
    match group {
        "all" => true,
        "read" => {
            matches!(
                kind,
                "select" | "explain" | "show" | "declare" | "fetch" | "move" | "close" | "empty"
            )
        }
        "write" => matches!(
            kind,
            "insert" | "update" | "delete" | "merge" | "truncate" | "select_for_update"
        ),
        "dml" => matches!(kind, "insert" | "update" | "delete" | "merge"),
        "ddl" => {
            kind == "alter"
                || kind == "create"
                || kind == "drop"
                || kind.starts_with("alter_")
                || kind.starts_with("create_")
                || kind.starts_with("drop_")
                || matches!(
                    kind,
                    "select_into"
                        | "comment"
                        | "grant"
                        | "grant_role"
                        | "revoke"
                        | "revoke_role"
                        | "reindex"
                        | "cluster"
                        | "truncate"
                        | "refresh_materialized_view"
                        | "import_foreign_schema"
                        | "security_label"
                        | "reassign_owned"
                        | "role_password"
                )
        }
        "privilege" => matches!(
            kind,
            "grant"
                | "revoke"
                | "grant_role"
                | "revoke_role"
                | "create_role"
                | "alter_role"
                | "drop_role"
                | "alter_default_privileges"
                | "reassign_owned"
                | "drop_owned"
                | "role_password"
        ),
        "transaction" => matches!(
            kind,
            "begin"
                | "commit"
                | "rollback"
                | "savepoint"
                | "release"
                | "rollback_to"
                | "prepare_transaction"
                | "commit_prepared"
                | "rollback_prepared"
                | "set_transaction"
                | "set_constraints"
        ),
        "session" => matches!(
            kind,
            "set"
                | "reset"
                | "discard"
                | "prepare"
                | "execute"
                | "deallocate"
                | "listen"
                | "unlisten"
                | "notify"
        ),
        "maintenance" => matches!(
            kind,
            "vacuum"
                | "analyze"
                | "cluster"
                | "reindex"
                | "checkpoint"
                | "refresh_materialized_view"
        ),
        _ => false,
    }
}

/// Interns a kind: the word of [`KINDS`], or the given one when it is none
/// (`fallback`).
pub(crate) fn kind_of(word: &str, fallback: &'static str) -> &'static str {
    KINDS
        .binary_search(&word)
        .ok()
        .and_then(|i| KINDS.get(i))
        .copied()
        .unwrap_or(fallback)
}

/// `prefix_object`, as far as it is a kind, else the bare prefix.
pub(super) fn object_kind(prefix: &'static str, object: i64) -> &'static str {
    let word = usize::try_from(object)
        .ok()
        .and_then(|i| OBJECTS.get(i))
        .copied()
        .unwrap_or("");
    kind_of(&format!("{prefix}_{word}"), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_sorted_for_the_binary_search() {
        for pair in KINDS.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
        }
    }

    #[test]
    fn objects_stand_where_the_grammar_has_them() {
        use pg_query::protobuf::ObjectType;
        for (object, word) in [
            (ObjectType::ObjectTable, "table"),
            (ObjectType::ObjectView, "view"),
            (ObjectType::ObjectRole, "role"),
            (ObjectType::ObjectUserMapping, "user_mapping"),
            (ObjectType::ObjectMatview, "materialized_view"),
        ] {
            assert_eq!(OBJECTS[object as usize], word);
        }
    }

    #[test]
    fn every_kind_is_in_the_group_all_and_groups_hold_no_unknown_word() {
        for kind in KINDS {
            assert!(in_group("all", kind));
        }
        for group in GROUPS {
            assert!(KINDS.iter().any(|k| in_group(group, k)), "{group} is empty");
        }
    }
}
