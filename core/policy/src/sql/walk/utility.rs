//! Statements other than SELECT and the changes of rows: one table of the
//! grammar's statements. What is on no list is opaque.

use super::{Mode, Walker, argument, constant, one, table_of};
use crate::sql::kinds::{kind_of, object_kind};
use crate::sql::tree::Tree;
use crate::sql::{CopyForm, FunctionName, NameUse, Opaque, StatementFacts, TableName};
use pg_query::protobuf::ObjectType;
use std::sync::Arc;

impl Walker {
    /// A statement inside another that is not run now: its facts count here
    /// too, and stand by themselves for the name.
    fn inner(&mut self, tree: &Tree) -> Arc<StatementFacts> {
        self.statement(tree);
        Arc::new(one(tree))
    }

    pub(super) fn utility(&mut self, tree: &Tree) -> &'static str {
        let kind = self.utility_kind(tree);
        self.kind(kind)
    }

    #[allow(clippy::too_many_lines)] // one table of the grammar's statements
    fn utility_kind(&mut self, tree: &Tree) -> &'static str {
        match tree.name() {
            "TransactionStmt" => match tree.int("kind") {
                1 | 2 => {
                    if tree.get("options").is_some() {
                        self.kind("set_transaction");
                    }
                    "begin"
                }
                3 => "commit",
                4 => "rollback",
                5 => "savepoint",
                6 => "release",
                7 => "rollback_to",
                8 => "prepare_transaction",
                9 => "commit_prepared",
                10 => "rollback_prepared",
                _ => self.unknown("transaction statement"),
            },
            "VariableSetStmt" => self.variable_set(tree),
            "VariableShowStmt" => "show",
            "DiscardStmt" => {
                match tree.int("target") {
                    1 => {
                        self.setting("all", None, true);
                        self.facts.names.push(NameUse::Deallocate { name: None });
                        self.facts.names.push(NameUse::Close { name: None });
                    }
                    2..=4 => {}
                    _ => self.opaque("DISCARD of something unknown"),
                }
                "discard"
            }
            "ExplainStmt" => {
                self.statement(tree.get("query"));
                "explain"
            }
            "PrepareStmt" => {
                let inner = self.inner(tree.get("query"));
                self.facts.names.push(NameUse::Prepare {
                    name: tree.text("name").to_owned(),
                    inner,
                });
                "prepare"
            }
            "ExecuteStmt" => {
                let args = tree.list("params").iter().map(argument).collect();
                self.facts.names.push(NameUse::Execute {
                    name: tree.text("name").to_owned(),
                    args,
                });
                self.part(tree.get("params"), Mode::Read);
                "execute"
            }
            "DeallocateStmt" => {
                let name = tree.text("name");
                let name = if name.is_empty() {
                    None
                } else {
                    Some(name.to_owned())
                };
                self.facts.names.push(NameUse::Deallocate { name });
                "deallocate"
            }
            "DeclareCursorStmt" => {
                let inner = self.inner(tree.get("query"));
                self.facts.names.push(NameUse::Declare {
                    name: tree.text("portalname").to_owned(),
                    inner,
                });
                "declare"
            }
            "FetchStmt" => {
                self.facts.names.push(NameUse::Fetch {
                    name: tree.text("portalname").to_owned(),
                });
                if tree.flag("ismove") { "move" } else { "fetch" }
            }
            "ClosePortalStmt" => {
                let name = tree.text("portalname");
                let name = if name.is_empty() {
                    None
                } else {
                    Some(name.to_owned())
                };
                self.facts.names.push(NameUse::Close { name });
                "close"
            }
            "CopyStmt" => self.copy(tree),
            "DoStmt" => {
                self.opaque("DO runs a block of code");
                "do"
            }
            "CallStmt" => {
                let call = tree.get("funccall");
                let names = call.list("funcname");
                let parts: Vec<&str> = names.iter().map(Tree::as_text).collect();
                if let Some((name, rest)) = parts.split_last() {
                    let schema = rest.last().map(|s| (*s).to_owned());
                    self.facts.opaque.push(Opaque::Function(FunctionName {
                        schema,
                        name: (*name).to_owned(),
                    }));
                } else {
                    self.opaque("CALL of something unnamed");
                }
                self.part(call, Mode::Read);
                "call"
            }
            "LoadStmt" => {
                self.opaque("LOAD runs a library");
                "load"
            }
            "ListenStmt" => "listen",
            "UnlistenStmt" => "unlisten",
            "NotifyStmt" => "notify",
            "CheckPointStmt" => "checkpoint",
            "ConstraintsSetStmt" => "set_constraints",
            "LockStmt" => {
                self.part(tree.get("relations"), Mode::Write);
                "lock"
            }
            "TruncateStmt" => {
                self.part(tree.get("relations"), Mode::Write);
                if tree.int("behavior") == 2 {
                    // CASCADE empties whatever refers to it.
                    self.everything(None);
                }
                "truncate"
            }
            "VacuumStmt" => {
                self.part(tree.get("rels"), Mode::Write);
                if tree.flag("is_vacuumcmd") {
                    "vacuum"
                } else {
                    "analyze"
                }
            }
            "ClusterStmt" => {
                self.relation(tree.get("relation"), Mode::Write);
                "cluster"
            }
            "ReindexStmt" => {
                self.relation(tree.get("relation"), Mode::Write);
                "reindex"
            }
            "RefreshMatViewStmt" => {
                self.relation(tree.get("relation"), Mode::Write);
                "refresh_materialized_view"
            }
            "CreateTableAsStmt" => {
                let into = tree.get("into");
                self.relation(into.get("rel"), Mode::Write);
                self.temporary(into.get("rel"));
                self.statement(tree.get("query"));
                if tree.int("objtype") == ObjectType::ObjectMatview as i64 {
                    "create_materialized_view"
                } else {
                    "create_table_as"
                }
            }
            "ViewStmt" => {
                self.relation(tree.get("view"), Mode::Write);
                self.temporary(tree.get("view"));
                self.statement(tree.get("query"));
                "create_view"
            }
            "CreateStmt" => {
                self.temporary(tree.get("relation"));
                self.fields(tree, Mode::Write, &[]);
                "create_table"
            }
            "CreateForeignTableStmt" => {
                let base = tree.get("base_stmt");
                self.fields(base, Mode::Write, &[]);
                "create_foreign_table"
            }
            "CreateSchemaStmt" => {
                for element in tree.list("schema_elts") {
                    self.statement(element);
                }
                "create_schema"
            }
            "CreateSeqStmt" => {
                self.temporary(tree.get("sequence"));
                self.fields(tree, Mode::Write, &[]);
                "create_sequence"
            }
            "AlterSeqStmt" => {
                self.fields(tree, Mode::Write, &[]);
                "alter_sequence"
            }
            "IndexStmt" => {
                self.fields(tree, Mode::Write, &[]);
                "create_index"
            }
            "CreateStatsStmt" => {
                self.fields(tree, Mode::Write, &["defnames"]);
                "create_statistics"
            }
            "AlterTableStmt" => {
                let relation = tree.get("relation");
                self.relation(relation, Mode::Write);
                self.column(vec![table_of(relation)], "*", true);
                self.fields(tree, Mode::Write, &["relation"]);
                match object_kind("alter", tree.int("objtype")) {
                    "alter_table" => "alter_table",
                    kind => kind,
                }
            }
            "RenameStmt"
            | "AlterObjectSchemaStmt"
            | "AlterOwnerStmt"
            | "AlterObjectDependsStmt" => {
                let relation = tree.get("relation");
                self.relation(relation, Mode::Write);
                if relation.is_some() {
                    self.column(vec![table_of(relation)], "*", true);
                }
                let field = if tree.name() == "RenameStmt" {
                    "rename_type"
                } else {
                    "object_type"
                };
                let mut object = tree.int(field);
                if object == ObjectType::ObjectColumn as i64
                    || object == ObjectType::ObjectTabconstraint as i64
                {
                    object = ObjectType::ObjectTable as i64;
                }
                object_kind("alter", object)
            }
            "DropStmt" => {
                let object = tree.int("remove_type");
                for name in tree.list("objects") {
                    self.object(object, name, tree.int("behavior") == 2);
                }
                object_kind("drop", object)
            }
            "CommentStmt" | "SecLabelStmt" => {
                self.object(tree.int("objtype"), tree.get("object"), false);
                if tree.name() == "CommentStmt" {
                    "comment"
                } else {
                    "security_label"
                }
            }
            "GrantStmt" => {
                self.part(tree.get("objects"), Mode::Write);
                if tree.int("targtype") == 2 {
                    for schema in tree.list("objects") {
                        self.everything(Some(schema.as_text().to_owned()));
                    }
                }
                if tree.flag("is_grant") {
                    "grant"
                } else {
                    "revoke"
                }
            }
            "GrantRoleStmt" => {
                if tree.flag("is_grant") {
                    "grant_role"
                } else {
                    "revoke_role"
                }
            }
            "AlterDefaultPrivilegesStmt" => "alter_default_privileges",
            "CreateRoleStmt" | "AlterRoleStmt" => {
                let password = |option: &Tree| {
                    option.text("defname").contains("password") && option.get("arg").is_some()
                };
                if tree.list("options").iter().any(password) {
                    self.facts.password = true;
                    self.kind("role_password");
                }
                if tree.name() == "CreateRoleStmt" {
                    "create_role"
                } else {
                    "alter_role"
                }
            }
            "AlterRoleSetStmt" => "alter_role",
            "DropRoleStmt" => "drop_role",
            "ReassignOwnedStmt" => {
                self.everything(None);
                "reassign_owned"
            }
            "DropOwnedStmt" => {
                self.everything(None);
                "drop_owned"
            }
            "CreateFunctionStmt" => {
                // A body runs later, under whoever calls it.
                self.opaque("the body of a function");
                self.facts.makes_temporary = true;
                if tree.flag("is_procedure") {
                    "create_procedure"
                } else {
                    "create_function"
                }
            }
            "AlterFunctionStmt" => "alter_function",
            "CreateTrigStmt" => {
                self.relation(tree.get("relation"), Mode::Write);
                self.function(tree.list("funcname"));
                self.opaque("a trigger runs a function later");
                "create_trigger"
            }
            "CreateEventTrigStmt" => {
                self.opaque("an event trigger runs a function later");
                "create_event_trigger"
            }
            "RuleStmt" => {
                self.relation(tree.get("relation"), Mode::Write);
                for action in tree.list("actions") {
                    self.statement(action);
                }
                self.part(tree.get("where_clause"), Mode::Read);
                self.opaque("a rule runs statements later");
                "create_rule"
            }
            "CreatePolicyStmt" | "AlterPolicyStmt" => {
                self.relation(tree.get("table"), Mode::Write);
                self.part(tree.get("qual"), Mode::Read);
                self.part(tree.get("with_check"), Mode::Read);
                if tree.name() == "CreatePolicyStmt" {
                    "create_policy"
                } else {
                    "alter_policy"
                }
            }
            "CreateExtensionStmt" => {
                self.opaque("an extension's script");
                "create_extension"
            }
            "AlterExtensionStmt" | "AlterExtensionContentsStmt" => {
                self.opaque("an extension's script");
                "alter_extension"
            }
            "DefineStmt" => {
                self.opaque("a definition that runs functions later");
                object_kind("create", tree.int("kind"))
            }
            "CreateDomainStmt" => {
                self.fields(tree, Mode::Read, &["domainname"]);
                "create_domain"
            }
            "CompositeTypeStmt" | "CreateEnumStmt" | "CreateRangeStmt" => {
                if tree.name() == "CreateRangeStmt" {
                    self.opaque("a range type runs functions later");
                }
                "create_type"
            }
            "AlterEnumStmt" | "AlterTypeStmt" => "alter_type",
            "CreatedbStmt" => "create_database",
            "AlterDatabaseStmt" | "AlterDatabaseSetStmt" | "AlterDatabaseRefreshCollStmt" => {
                "alter_database"
            }
            "DropdbStmt" => "drop_database",
            "CreateTableSpaceStmt" => "create_tablespace",
            "DropTableSpaceStmt" => "drop_tablespace",
            "AlterSystemStmt" => {
                self.opaque("ALTER SYSTEM changes the server");
                "alter_system"
            }
            other => self.reaching_out(other),
        }
    }

    /// Statements that reach other servers or run code in ways that nothing
    /// here reads, and those on no list: all opaque.
    fn reaching_out(&mut self, name: &'static str) -> &'static str {
        let kind = match name {
            "CreateForeignServerStmt" => "create_foreign_server",
            "CreateFdwStmt" => "create_foreign_data_wrapper",
            "CreateUserMappingStmt" => "create_user_mapping",
            "DropUserMappingStmt" => "drop_user_mapping",
            "ImportForeignSchemaStmt" => "import_foreign_schema",
            "CreatePublicationStmt" => "create_publication",
            "AlterPublicationStmt" => "alter_publication",
            "CreateSubscriptionStmt" => "create_subscription",
            "AlterSubscriptionStmt" => "alter_subscription",
            "DropSubscriptionStmt" => "drop_subscription",
            "CreateCastStmt" => "create_cast",
            "CreateTransformStmt" => "create_transform",
            "CreateOpClassStmt" | "CreateOpFamilyStmt" => "create_operator_class",
            "CreatePlangStmt" | "CreatePLangStmt" => "create_language",
            "CreateAmStmt" => "create_access_method",
            n if n.starts_with("Alter") => "alter",
            _ => "unknown",
        };
        self.opaque(format!(
            "a statement that the gateway does not see through ({name})"
        ));
        kind
    }

    fn unknown(&mut self, what: &str) -> &'static str {
        self.opaque(format!("an unknown {what}"));
        kind_of("unknown", "unknown")
    }

    fn variable_set(&mut self, tree: &Tree) -> &'static str {
        let name = tree.text("name").to_ascii_lowercase();
        let args = tree.list("args");
        let before = self.facts.kinds.len();
        match tree.int("kind") {
            1 => {
                let values: Vec<Option<String>> = args.iter().map(constant).collect();
                let known = !values.is_empty() && values.iter().all(Option::is_some);
                let value = values.into_iter().flatten().collect::<Vec<_>>().join(",");
                self.setting(&name, Some(value), known);
                if self.facts.kinds.len() > before {
                    "set_role"
                } else {
                    "set"
                }
            }
            2 | 5 => {
                self.setting(&name, None, true);
                if self.facts.kinds.len() > before {
                    "set_role"
                } else {
                    "reset"
                }
            }
            4 => {
                if !matches!(
                    name.as_str(),
                    "transaction" | "session characteristics" | "transaction snapshot"
                ) {
                    self.opaque("SET of something unknown");
                }
                "set_transaction"
            }
            6 => {
                self.setting("all", None, true);
                "reset"
            }
            _ => self.unknown("form of SET"),
        }
    }

    fn copy(&mut self, tree: &Tree) -> &'static str {
        let from = tree.flag("is_from");
        let relation = tree.get("relation");
        let form = if tree.flag("is_program") {
            self.kind("copy_program");
            CopyForm::Program
        } else if tree.get("filename").is_some() {
            self.kind("copy_file");
            CopyForm::File
        } else if from {
            CopyForm::FromStdin
        } else {
            CopyForm::ToStdout
        };
        self.facts.copy.push(form);
        if matches!(form, CopyForm::Program | CopyForm::File) {
            self.opaque(format!("COPY with a {} on the server", form.as_str()));
        }
        if relation.is_some() {
            let table = table_of(relation);
            self.relation(relation, if from { Mode::Write } else { Mode::Read });
            match tree.list("attlist") {
                [] => self.column(vec![table], "*", from),
                names => {
                    for name in names {
                        self.column(vec![table.clone()], name.as_text(), from);
                    }
                }
            }
        }
        if tree.get("query").is_some() {
            self.statement(tree.get("query"));
        }
        self.part(tree.get("where_clause"), Mode::Read);
        "copy"
    }

    /// Every table, of a schema or of all, is touched.
    fn everything(&mut self, schema: Option<String>) {
        self.facts.tables_written.push(TableName {
            schema,
            name: "*".into(),
        });
    }

    /// The object of a DROP or COMMENT, as far as it is a relation or belongs
    /// to one.
    fn object(&mut self, object: i64, name: &Tree, cascade: bool) {
        let parts: Vec<&str> = match name {
            Tree::Node("TypeName", _) => name.list("names").iter().map(Tree::as_text).collect(),
            _ => name.items().iter().map(Tree::as_text).collect(),
        };
        let relation = |parts: &[&str]| match parts {
            [] => None,
            [name] => Some(TableName {
                schema: None,
                name: (*name).to_owned(),
            }),
            [.., schema, name] => Some(TableName {
                schema: Some((*schema).to_owned()),
                name: (*name).to_owned(),
            }),
        };
        let table = match ObjectType::try_from(i32::try_from(object).unwrap_or(0)) {
            Ok(
                ObjectType::ObjectTable
                | ObjectType::ObjectView
                | ObjectType::ObjectMatview
                | ObjectType::ObjectForeignTable
                | ObjectType::ObjectSequence
                | ObjectType::ObjectIndex,
            ) => relation(&parts),
            Ok(
                ObjectType::ObjectColumn
                | ObjectType::ObjectTrigger
                | ObjectType::ObjectRule
                | ObjectType::ObjectPolicy
                | ObjectType::ObjectTabconstraint,
            ) => parts.split_last().and_then(|(_, rest)| relation(rest)),
            _ => {
                if cascade {
                    self.everything(None);
                }
                None
            }
        };
        self.facts.tables_written.extend(table);
        if object == ObjectType::ObjectSchema as i64
            && let Some(schema) = parts
                .last()
                .copied()
                .or_else(|| Some(name.as_text()))
                .filter(|s| !s.is_empty())
        {
            // Dropping a schema touches everything in it.
            self.everything(Some(schema.to_owned()));
        }
    }
}
