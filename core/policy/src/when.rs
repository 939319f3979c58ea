//! CEL conditions: checked at load, evaluated once per request, erring closed.

use crate::gate::{Bind, Binds, SessionFacts};
use crate::spec::Principal;
use crate::sql::{SqlFacts, StatementFacts};
use cel::common::ast::{EntryExpr, Expr, IdedExpr};
use cel::{Context, Env, ExecutionError, Program, Value};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// Longest expression in bytes: a reader should still be able to read it.
const SOURCE_BYTES_MAX: usize = 8192;
/// Longest list handed to an expression: a comprehension walks it once.
const LIST_MAX: usize = 10_000;
/// Longest bound value or text handed over, in bytes.
const VALUE_BYTES_MAX: usize = 1 << 20;

/// The variables that an expression may name.
const VARIABLES: [&str; 11] = [
    "statement",
    "tables_read",
    "tables_written",
    "functions",
    "columns",
    "text_length",
    "binds",
    "principal",
    "target",
    "database",
    "account",
];

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A checked condition.
pub(crate) struct When {
    program: Program,
    /// Whether it names `binds`.
    pub reads_binds: bool,
    /// Whether it names `principal`.
    pub reads_principal: bool,
    /// Whether it names something that a literal's length changes.
    pub reads_length: bool,
}

impl std::fmt::Debug for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("When")
            .field("reads_binds", &self.reads_binds)
            .finish_non_exhaustive()
    }
}

impl When {
    /// Compiles and checks an expression.
    ///
    /// Errors: a sentence saying what is wrong: syntax, unknown variables or
    /// functions, nested comprehensions, a result that is not a bool.
    pub(crate) fn compile(source: &str) -> Result<When, String> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(format!(
                "the expression is longer than {SOURCE_BYTES_MAX} bytes"
            ));
        }
        let program = ENV
            .compile(source)
            .map_err(|e| format!("not a CEL expression: {e}"))?;
        let mut check = Check::default();
        check.walk(program.expression(), &mut Vec::new(), false)?;
        for name in &check.variables {
            if !VARIABLES.contains(&name.as_str()) {
                return Err(format!(
                    "unknown variable `{name}`; known are {}",
                    VARIABLES.join(", ")
                ));
            }
        }
        let names = |n: &str| check.variables.iter().any(|v| v == n);
        let when = When {
            reads_binds: names("binds"),
            reads_principal: names("principal"),
            reads_length: names("text_length") || source.contains("tokens"),
            program,
        };
        for (facts, statement, ctx) in samples() {
            let values = [
                Bind {
                    binary: false,
                    value: Some(b"1"),
                },
                Bind {
                    binary: false,
                    value: None,
                },
            ];
            let context = context(&facts, &statement, &ctx, Some(Binds::Values(&values)))?;
            match when.program.execute(&context) {
                Ok(Value::Bool(_)) => {}
                Ok(other) => return Err(format!("must yield a bool, yields {}", other.type_of())),
                // What depends on the data at hand is judged when it is there.
                Err(ExecutionError::NoSuchKey(_) | ExecutionError::IndexOutOfBounds(_)) => {}
                Err(ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_)) => {}
                Err(e) => return Err(format!("cannot be evaluated: {e}")),
            }
        }
        Ok(when)
    }

    /// Evaluates it. Errors are sentences without values in them.
    pub(crate) fn holds(&self, context: &Context<'_, '_>) -> Result<bool, String> {
        match self.program.execute(context) {
            Ok(Value::Bool(b)) => Ok(b),
            Ok(other) => Err(format!(
                "the condition yields {} instead of a bool",
                other.type_of()
            )),
            Err(ExecutionError::NoSuchKey(key)) => Err(format!(
                "the condition asks for `{key}`, which is not there"
            )),
            Err(ExecutionError::UndeclaredReference(name)) => Err(format!(
                "the condition asks for `{name}`, which is not known here"
            )),
            Err(_) => Err("the condition cannot be evaluated".to_owned()),
        }
    }
}

/// Walks an expression: free variables, and no comprehension inside another.
#[derive(Default)]
struct Check {
    variables: Vec<String>,
}

impl Check {
    fn walk(&mut self, e: &IdedExpr, bound: &mut Vec<String>, inside: bool) -> Result<(), String> {
        match &e.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => {
                if !name.starts_with('@') && !bound.contains(name) && !self.variables.contains(name)
                {
                    self.variables.push(name.clone());
                }
            }
            Expr::Call(call) => {
                for part in call.target.as_deref().into_iter().chain(&call.args) {
                    self.walk(part, bound, inside)?;
                }
            }
            Expr::Comprehension(c) => {
                if inside {
                    return Err(
                        "a comprehension (all, exists, map, filter) inside another is refused: \
                                its cost is the product of both lists"
                            .to_owned(),
                    );
                }
                self.walk(&c.iter_range, bound, inside)?;
                let depth = bound.len();
                bound.push(c.iter_var.clone());
                bound.extend(c.iter_var2.clone());
                bound.push(c.accu_var.clone());
                for part in [&c.accu_init, &c.loop_cond, &c.loop_step, &c.result] {
                    self.walk(part, bound, true)?;
                }
                bound.truncate(depth);
            }
            Expr::List(list) => {
                for part in &list.elements {
                    self.walk(part, bound, inside)?;
                }
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.walk(&entry.key, bound, inside)?;
                        self.walk(&entry.value, bound, inside)?;
                    }
                }
            }
            Expr::Select(select) => self.walk(&select.operand, bound, inside)?,
            Expr::Struct(_) => return Err("message values are not supported".to_owned()),
        }
        Ok(())
    }
}

fn list<T: ToString>(items: impl Iterator<Item = T>) -> Result<Value, String> {
    let items: Vec<Value> = items
        .take(LIST_MAX + 1)
        .map(|i| Value::from(i.to_string()))
        .collect();
    if items.len() > LIST_MAX {
        return Err(format!("a list of more than {LIST_MAX} entries"));
    }
    Ok(Value::from(items))
}

/// Builds what an expression can see of one statement. `binds` is `None` where
/// the values are not known.
///
/// Errors: a list over its cap, or a bound value that cannot be read.
pub(crate) fn context(
    facts: &SqlFacts,
    statement: &StatementFacts,
    session: &SessionFacts,
    binds: Option<Binds<'_>>,
) -> Result<Context<'static, 'static>, String> {
    let mut context = Context::with_env(ENV.clone());
    let mut map: HashMap<&str, Value> = HashMap::new();
    map.insert("kind", Value::from(statement.kind));
    map.insert("kinds", list(statement.kinds.iter())?);
    map.insert("opaque", list(statement.opaque.iter())?);
    map.insert("copy", list(statement.copy.iter().map(|c| c.as_str()))?);
    map.insert(
        "settings",
        list(statement.settings.iter().map(|s| s.name.as_str()))?,
    );
    map.insert("where_missing", Value::Bool(statement.where_missing));
    map.insert(
        "where_present",
        Value::Bool(statement.where_found && !statement.where_missing),
    );
    map.insert(
        "set_role",
        Value::from(statement.set_role.clone().unwrap_or_default()),
    );
    map.insert("password", Value::Bool(statement.password));
    map.insert(
        "tokens",
        Value::Int(i64::try_from(facts.tokens).unwrap_or(i64::MAX)),
    );
    let tables_read = list(statement.tables_read.iter())?;
    let tables_written = list(statement.tables_written.iter())?;
    let functions = list(statement.functions.iter())?;
    map.insert("tables_read", tables_read.clone());
    map.insert("tables_written", tables_written.clone());
    map.insert("functions", functions.clone());
    context.add_variable_from_value("statement", map);
    context.add_variable_from_value("tables_read", tables_read);
    context.add_variable_from_value("tables_written", tables_written);
    context.add_variable_from_value("functions", functions);
    context.add_variable_from_value(
        "columns",
        list(statement.columns.iter().map(|c| c.name.as_str()))?,
    );
    context.add_variable_from_value(
        "text_length",
        Value::Int(i64::try_from(facts.text_length).unwrap_or(i64::MAX)),
    );
    context.add_variable_from_value("principal", principal(&session.principal)?);
    context.add_variable_from_value("target", session.target.as_str());
    context.add_variable_from_value("database", session.database.as_str());
    context.add_variable_from_value("account", session.account.as_str());
    if let Some(Binds::Values(values)) = binds {
        if values.len() > LIST_MAX {
            return Err(format!("more than {LIST_MAX} bind values"));
        }
        let values = values
            .iter()
            .map(bound)
            .collect::<Result<Vec<Value>, String>>()?;
        context.add_variable_from_value("binds", values);
    }
    Ok(context)
}

/// One bound value as an expression sees it: text as sent, or null. A value in
/// binary format cannot be read without its type and is an error.
fn bound(bind: &Bind<'_>) -> Result<Value, String> {
    let Some(value) = bind.value else {
        return Ok(Value::Null);
    };
    if value.len() > VALUE_BYTES_MAX {
        return Err(format!("a bind value of more than {VALUE_BYTES_MAX} bytes"));
    }
    match std::str::from_utf8(value) {
        Ok(text) if !bind.binary => Ok(Value::from(text)),
        _ => Err("a bind value in binary format, or not in UTF-8".to_owned()),
    }
}

fn principal(p: &Principal) -> Result<HashMap<&'static str, Value>, String> {
    let claims: HashMap<String, Value> = p
        .claims
        .iter()
        .map(|(k, v)| Ok((k.clone(), json(v, 0)?)))
        .collect::<Result<_, String>>()?;
    Ok(HashMap::from([
        ("issuer", Value::from(p.issuer.as_str())),
        ("subject", Value::from(p.subject.as_str())),
        ("groups", list(p.groups.iter())?),
        ("claims", Value::from(claims)),
        (
            "on_behalf_of",
            Value::from(p.on_behalf_of.clone().unwrap_or_default()),
        ),
    ]))
}

fn json(value: &serde_json::Value, depth: usize) -> Result<Value, String> {
    if depth > 16 {
        return Err("a claim nested deeper than 16".to_owned());
    }
    Ok(match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Number(n) => match n.as_i64() {
            Some(n) => Value::Int(n),
            None => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(s) => Value::from(s.as_str()),
        serde_json::Value::Array(items) if items.len() > LIST_MAX => {
            return Err(format!("a claim of more than {LIST_MAX} entries"));
        }
        serde_json::Value::Array(items) => Value::from(
            items
                .iter()
                .map(|v| json(v, depth + 1))
                .collect::<Result<Vec<_>, _>>()?,
        ),
        serde_json::Value::Object(map) => Value::from(
            map.iter()
                .map(|(k, v)| Ok((k.clone(), json(v, depth + 1)?)))
                .collect::<Result<HashMap<String, Value>, String>>()?,
        ),
    })
}

/// Facts that every expression is tried on at load.
fn samples() -> Vec<(SqlFacts, StatementFacts, SessionFacts)> {
    let table = |name: &str| crate::sql::TableName {
        schema: Some("public".into()),
        name: name.into(),
    };
    let full = StatementFacts {
        kind: "update",
        kinds: vec!["update", "select"],
        tables_read: vec![table("orders")],
        tables_written: vec![table("customers")],
        functions: vec![crate::sql::FunctionName {
            schema: None,
            name: "lower".into(),
        }],
        where_found: true,
        ..StatementFacts::default()
    };
    let session = SessionFacts {
        principal: Principal {
            subject: "agent".into(),
            groups: vec!["agents".into()],
            ..Principal::default()
        },
        target: "target".into(),
        database: "database".into(),
        account: "account".into(),
    };
    let facts = SqlFacts {
        statements: Vec::new(),
        text_length: 100,
        tokens: 10,
    };
    let bare = StatementFacts {
        kind: "select",
        kinds: vec!["select"],
        ..StatementFacts::default()
    };
    vec![
        (facts.clone(), full, session),
        (facts, bare, SessionFacts::default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::When;

    #[test]
    fn refuses_what_could_not_be_evaluated_later() {
        for (source, part) in [
            ("", "not a CEL"),
            ("1 +", "not a CEL"),
            ("'yes'", "bool"),
            ("text_length", "bool"),
            ("nosuch == 1", "unknown variable"),
            ("false && nosuch == 1", "unknown variable"),
            (
                "tables_read.exists(t, tables_written.exists(u, u == t))",
                "inside another",
            ),
            ("frobnicate(target)", "evaluated"),
            ("target + 1 == 'x'", "evaluated"),
        ] {
            let error = When::compile(source).expect_err(source);
            assert!(error.contains(part), "{source}: {error}");
        }
    }

    #[test]
    fn accepts_conditions_over_every_variable() {
        for source in [
            "statement.kind == 'update' && !statement.where_missing",
            "tables_read.exists(t, t == 'public.orders')",
            "'agents' in principal.groups",
            "principal.claims.team == 'blue'",
            "binds.exists(b, b == '42')",
            "text_length > 1000 || database == 'postgres' || account == 'x' || target.startsWith('prod')",
            "functions.filter(f, f.startsWith('pg_')).size() > 0",
            "binds[7] == 'x'",
            "target.matches('^prod-[0-9]+$')",
        ] {
            if let Err(error) = When::compile(source) {
                panic!("{source}: {error}");
            }
        }
        assert!(When::compile("binds.size() > 0").is_ok_and(|w| w.reads_binds));
        assert!(When::compile("text_length > 0").is_ok_and(|w| w.reads_length && !w.reads_binds));
    }
}
