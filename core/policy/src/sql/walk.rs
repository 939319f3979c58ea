//! The walk over the parse tree: from nodes to facts.
//!
//! Statements and the parts with a meaning of their own are named here;
//! expressions on the known list are walked through; *any node that is on no
//! list makes the statement opaque*.

mod utility;

use super::functions::{eats_rows, fields_of, is_dynamic};
use super::tree::Tree;
use super::{
    ColumnName, FactsError, FunctionName, NameUse, Opaque, Setting, StatementFacts, TableName,
};
use std::sync::Arc;

/// Parses `text` and draws the facts of each statement.
pub(super) fn statements(text: &str) -> Result<Vec<Arc<StatementFacts>>, FactsError> {
    if text.as_bytes().contains(&0) {
        return Err(FactsError::NotText);
    }
    let parsed = pg_query::parse(text, 0).map_err(|_| FactsError::Unparsable)?;
    let mut out = Vec::with_capacity(parsed.protobuf.stmts.len());
    for raw in &parsed.protobuf.stmts {
        let Some(statement) = &raw.stmt else { continue };
        let tree = Tree::of(statement).map_err(|_| FactsError::Unparsable)?;
        out.push(Arc::new(one(&tree)));
    }
    Ok(out)
}

/// The facts of one statement by itself.
fn one(tree: &Tree) -> StatementFacts {
    let mut walker = Walker::default();
    walker.collect_aliases(tree);
    let kind = walker.statement(tree);
    let mut facts = walker.facts;
    facts.kind = kind;
    facts.inert = facts.opaque.is_empty()
        && facts.kinds.iter().all(|k| inert(k))
        && facts.functions.is_empty();
    for list in [&mut facts.tables_read, &mut facts.tables_written] {
        list.sort();
        list.dedup();
    }
    facts.functions.sort();
    facts.functions.dedup();
    facts.columns.sort();
    facts.columns.dedup();
    facts
}

/// Kinds that run nobody's code and do not change how text is read, but by the
/// settings that they name.
fn inert(kind: &str) -> bool {
    matches!(
        kind,
        "begin"
            | "commit"
            | "rollback"
            | "savepoint"
            | "release"
            | "rollback_to"
            | "show"
            | "set"
            | "reset"
            | "set_transaction"
            | "deallocate"
            | "listen"
            | "unlisten"
            | "empty"
    )
}

/// Most tables told apart behind one alias.
const ALIAS_TABLES_MAX: usize = 8;

/// Whether relations met are read or written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Read,
    Write,
}

#[derive(Default)]
struct Walker {
    facts: StatementFacts,
    /// Names of CTEs in force, innermost last.
    scopes: Vec<Vec<String>>,
    /// Every alias or relation name in the statement with the table behind it;
    /// `None` = something derived.
    aliases: Vec<(String, Option<TableName>)>,
    /// Every function in FROM: its alias (of one without, its own name) and the
    /// columns that the alias declares.
    scans: Vec<(String, Vec<String>)>,
    /// Fields of the rows that functions of the statement are known to return.
    fields: Vec<&'static str>,
    /// The one name that `name` can have in the SELECT at hand:
    /// `SELECT set_config(name, …) FROM pg_settings WHERE name = '…'`, which
    /// pg_dump sends.
    settings_row: Option<String>,
}

/// Expression nodes that mean no more than their parts.
fn is_plain(name: &str) -> bool {
    matches!(
        name,
        "AArrayExpr" | "AConst" | "AExpr" | "AIndices" | "AIndirection" | "AStar" | "Alias" | "BitString" | "BoolExpr"
            | "Boolean" | "BooleanTest" | "CaseExpr" | "CaseWhen" | "CoalesceExpr" | "CollateClause" | "CteCycleClause"
            | "CteSearchClause" | "Float" | "GroupingFunc" | "GroupingSet" | "InferClause" | "Integer" | "JsonAggConstructor"
            | "JsonArgument" | "JsonArrayAgg" | "JsonArrayConstructor" | "JsonArrayQueryConstructor" | "JsonBehavior"
            | "JsonFormat" | "JsonFuncExpr" | "JsonIsPredicate" | "JsonKeyValue" | "JsonObjectAgg" | "JsonObjectConstructor"
            | "JsonOutput" | "JsonParseExpr" | "JsonReturning" | "JsonScalarExpr" | "JsonSerializeExpr" | "JsonTable"
            | "JsonTableColumn" | "JsonTablePathSpec" | "JsonValueExpr" | "List" | "MinMaxExpr" | "MultiAssignRef"
            | "NamedArgExpr" | "NullTest" | "ParamRef" | "RangeFunction" | "RangeSubselect" | "RangeTableFunc"
            | "RangeTableFuncCol" | "RangeTableSample" | "ReturningClause" | "ReturningOption" | "RowExpr" | "SetToDefault"
            | "SortBy" | "SqlValueFunction" | "SqlvalueFunction" | "String" | "SubLink" | "TypeCast" | "TypeName"
            | "WindowDef" | "XmlExpr" | "XmlSerialize" | "ResTarget"
            // Parts of definitions.
            | "AccessPriv" | "AtAlterConstraint" | "ColumnDef" | "Constraint" | "CreateOpClassItem" | "DefElem"
            | "FunctionParameter" | "IndexElem" | "IntoClause" | "ObjectWithArgs" | "PartitionBoundSpec" | "PartitionCmd"
            | "PartitionElem" | "PartitionRangeDatum" | "PartitionSpec" | "PublicationObjSpec" | "PublicationTable"
            | "ReplicaIdentityStmt" | "RoleSpec" | "StatsElem" | "TableLikeClause" | "TriggerTransition" | "VacuumRelation"
            | "AlterTableCmd"
    )
}

impl Walker {
    fn kind(&mut self, kind: &'static str) -> &'static str {
        if !self.facts.kinds.contains(&kind) {
            self.facts.kinds.push(kind);
        }
        kind
    }

    fn opaque(&mut self, why: impl Into<String>) {
        let why = Opaque::Because(why.into());
        if !self.facts.opaque.contains(&why) {
            self.facts.opaque.push(why);
        }
    }

    /// Notes every range variable's alias, wherever it stands.
    fn collect_aliases(&mut self, tree: &Tree) {
        match tree.name() {
            "RangeVar" => {
                let table = table_of(tree);
                let alias = tree.get("alias");
                let name = if alias.is_some() {
                    alias.text("aliasname")
                } else {
                    table.name.as_str()
                };
                self.aliases.push((name.to_owned(), Some(table)));
            }
            "RangeSubselect" | "RangeFunction" | "RangeTableFunc" | "JsonTable" | "JoinExpr" => {
                if tree.name() == "RangeFunction" {
                    self.scan(tree);
                }
                for field in ["alias", "join_using_alias"] {
                    let alias = tree.get(field);
                    if alias.is_some() {
                        self.aliases
                            .push((alias.text("aliasname").to_owned(), None));
                    }
                }
            }
            "CommonTableExpr" => self.aliases.push((tree.text("ctename").to_owned(), None)),
            "FuncCall" => {
                let name = tree.list("funcname").last().map(Tree::as_text);
                self.fields.extend(fields_of(name.unwrap_or_default()));
            }
            _ => {}
        }
        for child in tree.children() {
            self.collect_aliases(child);
        }
    }

    /// Notes a function in FROM.
    fn scan(&mut self, tree: &Tree) {
        let mut names = Vec::new();
        for item in tree.list("functions") {
            called(item, &mut names);
        }
        let alias = tree.get("alias");
        if !alias.is_some() {
            let scans = names.into_iter().map(|name| {
                let fields = fields_of(&name).iter().map(|f| (*f).to_owned()).collect();
                (name, fields)
            });
            self.scans.extend(scans);
            return;
        }
        let fields = names.iter().flat_map(|name| fields_of(name)).copied();
        let declared = alias.list("colnames").iter().map(Tree::as_text);
        let defined = tree.list("coldeflist").iter().map(|c| c.text("colname"));
        let columns = fields.chain(declared).chain(defined);
        self.scans.push((
            alias.text("aliasname").to_owned(),
            columns.map(str::to_owned).collect(),
        ));
    }

    /// Whether `alias.name` may call the function `name`: an alias of a
    /// function in FROM can stand for one value, on which any function of one
    /// argument can be called so; a column of that name comes first.
    fn may_call(&self, alias: &str, name: &str) -> bool {
        self.scans.iter().any(|(scan, columns)| {
            scan == alias && name != alias && !columns.iter().any(|column| column == name)
        })
    }

    /// The tables behind an alias; `None` when the alias is unknown.
    fn behind(&self, alias: &str) -> Option<Vec<TableName>> {
        let mut found = None;
        for (name, table) in &self.aliases {
            if name == alias {
                let list: &mut Vec<TableName> = found.get_or_insert_with(Vec::new);
                match table {
                    Some(table) if list.contains(table) => {}
                    // An alias of so many tables is no honest one; any table
                    // may be behind it then.
                    Some(_) if list.len() >= ALIAS_TABLES_MAX => return Some(Vec::new()),
                    Some(table) => list.push(table.clone()),
                    // Something derived: any table may be behind it.
                    None => return Some(Vec::new()),
                }
            }
        }
        found
    }

    fn is_cte(&self, name: &str) -> bool {
        self.scopes
            .iter()
            .any(|frame| frame.iter().any(|n| n == name))
    }

    fn relation(&mut self, tree: &Tree, mode: Mode) {
        if !tree.is_some() {
            return;
        }
        let table = table_of(tree);
        if table.name.is_empty() {
            return;
        }
        if tree.get("alias").get("colnames").is_some() {
            // The alias renames columns: any of them may be meant.
            self.column(vec![table.clone()], "*", false);
        }
        if mode == Mode::Read && table.schema.is_none() && self.is_cte(&table.name) {
            return;
        }
        match mode {
            Mode::Read => self.facts.tables_read.push(table),
            Mode::Write => self.facts.tables_written.push(table),
        }
    }

    fn column(&mut self, tables: Vec<TableName>, name: &str, written: bool) {
        self.facts.columns.push(ColumnName {
            tables,
            name: name.to_owned(),
            written,
        });
    }

    fn function(&mut self, names: &[Tree]) {
        let parts: Vec<&str> = names.iter().map(Tree::as_text).collect();
        let Some((name, rest)) = parts.split_last() else {
            return;
        };
        self.function_named(rest.last().map(|s| (*s).to_owned()), name);
    }

    fn function_named(&mut self, schema: Option<String>, name: &str) {
        let function = FunctionName {
            schema,
            name: name.to_owned(),
        };
        if is_dynamic(&name.to_ascii_lowercase()) {
            let why = Opaque::Function(function.clone());
            if !self.facts.opaque.contains(&why) {
                self.facts.opaque.push(why);
            }
        }
        self.facts.functions.push(function);
    }

    /// Walks any part of a statement.
    fn part(&mut self, tree: &Tree, mode: Mode) {
        match tree {
            Tree::List(items) => {
                for item in items {
                    self.part(item, mode);
                }
                return;
            }
            Tree::Node(..) => {}
            _ => return,
        }
        match tree.name() {
            "SelectStmt" | "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" => {
                self.statement(tree);
            }
            "RangeVar" => self.relation(tree, mode),
            "ColumnRef" => self.column_ref(tree),
            "FuncCall" => self.call(tree),
            "AIndirection" => {
                // `(value).name` is a field of a row or a call of `name`.
                for step in tree.list("indirection") {
                    let name = step.as_text();
                    if !name.is_empty() && !self.fields.contains(&name) {
                        self.function_named(None, name);
                    }
                }
                self.fields(tree, mode, &[]);
            }
            "CurrentOfExpr" => {
                let name = tree.text("cursor_name").to_owned();
                if name.is_empty() {
                    self.opaque("WHERE CURRENT OF a parameter");
                }
                self.facts.names.push(NameUse::Fetch { name });
            }
            "JoinExpr" => {
                if tree.flag("is_natural") {
                    self.column(Vec::new(), "*", false);
                }
                for name in tree.list("using_clause") {
                    self.column(Vec::new(), name.as_text(), false);
                }
                if tree.get("alias").get("colnames").is_some() {
                    self.column(Vec::new(), "*", false);
                }
                self.fields(tree, mode, &["using_clause", "alias", "join_using_alias"]);
            }
            // Its relations are aliases of what FROM names.
            "LockingClause" => {}
            "RangeTableSample" => {
                self.function(tree.list("method"));
                self.fields(tree, mode, &["method"]);
            }
            "IndexElem" | "PartitionElem" | "StatsElem" => {
                if !tree.text("name").is_empty() {
                    self.column(Vec::new(), tree.text("name"), false);
                }
                self.fields(tree, mode, &[]);
            }
            "TableLikeClause" => self.relation(tree.get("relation"), Mode::Read),
            "ObjectWithArgs" => {}
            "DefElem" => {
                if matches!(
                    tree.text("defname"),
                    "sfunc" | "finalfunc" | "function" | "procedure"
                ) {
                    self.opaque("a definition that runs a function later");
                }
                self.fields(tree, mode, &[]);
            }
            name if is_plain(name) => self.fields(tree, mode, &[]),
            name => self.opaque(format!("a part unknown to the gateway ({name})")),
        }
    }

    fn fields(&mut self, tree: &Tree, mode: Mode, except: &[&str]) {
        if let Tree::Node(_, fields) = tree {
            for (name, value) in fields {
                if !except.contains(name) {
                    self.part(value, mode);
                }
            }
        }
    }

    fn column_ref(&mut self, tree: &Tree) {
        let fields = tree.list("fields");
        let Some((last, before)) = fields.split_last() else {
            return;
        };
        let before: Vec<&str> = before.iter().map(Tree::as_text).collect();
        let tables = match before.as_slice() {
            [] => Vec::new(),
            [alias] => self.behind(alias).unwrap_or_default(),
            [.., schema, table] => {
                vec![TableName {
                    schema: Some((*schema).to_owned()),
                    name: (*table).to_owned(),
                }]
            }
        };
        if last.name() == "AStar" {
            self.column(tables, "*", false);
            return;
        }
        let name = last.as_text();
        if before.is_empty()
            && let Some(tables) = self.behind(name)
        {
            // A table's name in a column's place is its whole row.
            self.column(tables, "*", false);
        }
        if !before.is_empty() && eats_rows(name) {
            self.column(tables.clone(), "*", false);
            self.function_named(None, name);
        } else if before
            .last()
            .is_some_and(|alias| self.may_call(alias, name))
        {
            self.function_named(None, name);
        }
        self.column(tables, name, false);
    }

    fn call(&mut self, tree: &Tree) {
        let names = tree.list("funcname");
        self.function(names);
        let name = names.last().map(Tree::as_text).unwrap_or_default();
        if name == "set_config" {
            self.facts.literal_bound = true;
            let args = tree.list("args");
            let setting = args.first().and_then(|name| match name.name() {
                "ColumnRef" => self.settings_row.clone(),
                _ => constant(name),
            });
            let value = args.get(1).and_then(constant);
            match setting {
                Some(setting) => self.setting(&setting, value.clone(), value.is_some()),
                None => self.setting("*", None, false),
            }
        }
        self.fields(tree, Mode::Read, &["funcname"]);
    }

    fn setting(&mut self, name: &str, value: Option<String>, known: bool) {
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            "role" => {
                self.kind("set_role");
                self.facts.set_role = Some(value.clone().unwrap_or_default());
            }
            "session_authorization" => {
                self.kind("set_session_authorization");
                self.facts.set_role = Some(value.clone().unwrap_or_default());
            }
            _ => {}
        }
        self.facts.settings.push(Setting { name, value, known });
    }

    /// Walks one statement; returns its kind.
    fn statement(&mut self, tree: &Tree) -> &'static str {
        match tree.name() {
            "SelectStmt" => self.select(tree),
            "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" => self.change(tree),
            _ => self.utility(tree),
        }
    }

    fn with_clause(&mut self, tree: &Tree) -> bool {
        let with = tree.get("with_clause");
        if !with.is_some() {
            return false;
        }
        let ctes = with.list("ctes");
        self.scopes.push(Vec::new());
        let names = |c: &Tree| c.text("ctename").to_owned();
        if with.flag("recursive")
            && let Some(frame) = self.scopes.last_mut()
        {
            frame.extend(ctes.iter().map(names));
        }
        for cte in ctes {
            self.statement(cte.get("ctequery"));
            self.fields(cte, Mode::Read, &["ctequery", "aliascolnames"]);
            if let Some(frame) = self.scopes.last_mut() {
                frame.push(names(cte));
            }
        }
        true
    }

    fn select(&mut self, tree: &Tree) -> &'static str {
        let scoped = self.with_clause(tree);
        let kind = self.kind("select");
        if tree.get("locking_clause").is_some() {
            self.kind("select_for_update");
        }
        let into = tree.get("into_clause");
        if into.is_some() {
            self.kind("select_into");
            self.relation(into.get("rel"), Mode::Write);
            self.temporary(into.get("rel"));
        }
        let before = std::mem::replace(&mut self.settings_row, settings_row(tree));
        self.fields(tree, Mode::Read, &["with_clause", "into_clause"]);
        self.settings_row = before;
        if scoped {
            self.scopes.pop();
        }
        kind
    }

    fn change(&mut self, tree: &Tree) -> &'static str {
        let scoped = self.with_clause(tree);
        let kind = self.kind(match tree.name() {
            "InsertStmt" => "insert",
            "UpdateStmt" => "update",
            "DeleteStmt" => "delete",
            _ => "merge",
        });
        let relation = tree.get("relation");
        let table = table_of(relation);
        self.relation(relation, Mode::Write);
        if kind == "insert" {
            match tree.list("cols") {
                [] => self.column(vec![table.clone()], "*", true),
                cols => self.targets(&table, cols),
            }
            self.targets(&table, tree.get("on_conflict_clause").list("target_list"));
        }
        if kind == "update" {
            self.targets(&table, tree.list("target_list"));
        }
        for when in tree.list("merge_when_clauses") {
            self.targets(&table, when.list("target_list"));
            if when.list("target_list").is_empty() && when.list("values").iter().next().is_some() {
                self.column(vec![table.clone()], "*", true);
            }
            self.fields(when, Mode::Read, &[]);
        }
        let conflict = tree.get("on_conflict_clause");
        if conflict.is_some() {
            self.fields(conflict, Mode::Read, &[]);
        }
        if matches!(kind, "update" | "delete") {
            let alias = relation.get("alias").text("aliasname");
            let me = if alias.is_empty() {
                table.name.as_str()
            } else {
                alias
            };
            if names_column(tree.get("where_clause"), me, false) {
                self.facts.where_found = true;
            } else {
                self.facts.where_missing = true;
            }
        }
        // The rows of `INSERT … VALUES` are the insert's own: they select nothing,
        // though the grammar writes them as a SELECT. A query inside one of the
        // values is met below and counts.
        let source = tree.get("select_stmt");
        let own_rows =
            !source.list("values_lists").is_empty() && !source.get("with_clause").is_some();
        if own_rows {
            self.fields(source, Mode::Read, &[]);
        }
        self.fields(
            tree,
            Mode::Read,
            &[
                "with_clause",
                "relation",
                "merge_when_clauses",
                "on_conflict_clause",
                "cols",
                if own_rows { "select_stmt" } else { "" },
            ],
        );
        if scoped {
            self.scopes.pop();
        }
        kind
    }

    fn targets(&mut self, table: &TableName, list: &[Tree]) {
        for target in list {
            self.column(vec![table.clone()], target.text("name"), true);
        }
    }

    fn temporary(&mut self, relation: &Tree) {
        if relation.text("relpersistence") == "t"
            || relation.text("schemaname").starts_with("pg_temp")
        {
            self.facts.makes_temporary = true;
        }
    }
}

/// Names of the functions called by the entries of a RangeFunction, not those
/// inside their arguments.
fn called(tree: &Tree, names: &mut Vec<String>) {
    match tree {
        Tree::List(items) => items.iter().for_each(|item| called(item, names)),
        call if call.name() == "FuncCall" => {
            if let Some(name) = call.list("funcname").last() {
                names.push(name.as_text().to_owned());
            }
        }
        list if list.name() == "List" => list.children().for_each(|item| called(item, names)),
        _ => {}
    }
}

fn table_of(tree: &Tree) -> TableName {
    let schema = tree.text("schemaname");
    TableName {
        schema: if schema.is_empty() {
            None
        } else {
            Some(schema.to_owned())
        },
        name: tree.text("relname").to_owned(),
    }
}

/// The name that a SELECT from `pg_settings` alone asks for by `name = '…'`.
fn settings_row(select: &Tree) -> Option<String> {
    let [from] = select.list("from_clause") else {
        return None;
    };
    let filter = select.get("where_clause");
    let column = filter.get("lexpr").list("fields");
    let operator = filter.list("name");
    let is = |list: &[Tree], word: &str| matches!(list, [only] if only.as_text() == word);
    let fits = from.name() == "RangeVar"
        && from.text("relname") == "pg_settings"
        && !from.get("alias").is_some()
        && filter.name() == "AExpr"
        && filter.int("kind") == 1
        && is(operator, "=")
        && is(column, "name");
    if fits {
        constant(filter.get("rexpr"))
    } else {
        None
    }
}

/// A constant's text, through casts.
fn constant(tree: &Tree) -> Option<String> {
    match tree.name() {
        "TypeCast" => constant(tree.get("arg")),
        "AConst" => {
            if tree.flag("isnull") {
                return None;
            }
            let value = tree.get("val");
            match value.name() {
                "Integer" => Some(value.int("ival").to_string()),
                "Float" => Some(value.text("fval").to_owned()),
                "Boolean" => Some(value.flag("boolval").to_string()),
                "String" => Some(value.text("sval").to_owned()),
                "BitString" => Some(value.text("bsval").to_owned()),
                _ => None,
            }
        }
        _ => None,
    }
}

/// One argument of EXECUTE, when it is a constant: its text, or NULL.
fn argument(tree: &Tree) -> Option<Option<String>> {
    if tree.name() == "AConst" && tree.flag("isnull") {
        Some(None)
    } else {
        constant(tree).map(Some)
    }
}

/// Whether two expressions are the same but for integer constants.
fn same(a: &Tree, b: &Tree) -> bool {
    match (a, b) {
        (Tree::Node("Integer", _), Tree::Node("Integer", _)) => true,
        (Tree::Node(n, f), Tree::Node(m, g)) => {
            n == m
                && f.len() == g.len()
                && f.iter().zip(g).all(|((p, x), (q, y))| p == q && same(x, y))
        }
        (Tree::List(a), Tree::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(x, y)| same(x, y))
        }
        _ => a == b,
    }
}

/// Whether a WHERE restricts by a column: `1 = 1`, `id = id` and
/// `id = 1 OR true` do not. Inside a sub-query only columns of `me` count.
fn names_column(tree: &Tree, me: &str, inside: bool) -> bool {
    match tree.name() {
        "CurrentOfExpr" => true,
        "ColumnRef" => {
            let fields = tree.list("fields");
            !inside || (fields.len() > 1 && fields.first().is_some_and(|f| f.as_text() == me))
        }
        "BoolExpr" if tree.int("boolop") == 2 => tree
            .list("args")
            .iter()
            .all(|arg| names_column(arg, me, inside)),
        "AExpr" if tree.get("lexpr").is_some() && same(tree.get("lexpr"), tree.get("rexpr")) => {
            false
        }
        "SelectStmt" => tree.children().any(|child| names_column(child, me, true)),
        _ => tree.children().any(|child| names_column(child, me, inside)),
    }
}
