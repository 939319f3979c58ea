use super::*;
use crate::spec::SqlLimits;

fn one(text: &str) -> StatementFacts {
    let facts =
        crate::gate::draw(text, &SqlLimits::default()).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(facts.statements.len(), 1, "{text}");
    (*facts.statements[0]).clone()
}

fn names<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// Text, kinds, tables read, tables written, whether opaque.
type Row = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
    bool,
);

const TABLE: &[Row] = &[
    ("select 1", &["select"], &[], &[], false),
    (
        "select * from a join s.b using (x)",
        &["select"],
        &["a", "s.b"],
        &[],
        false,
    ),
    ("table a", &["select"], &["a"], &[], false),
    ("values (1),(2)", &["select"], &[], &[], false),
    (
        "select * from a union select * from b union all select * from c",
        &["select"],
        &["a", "b", "c"],
        &[],
        false,
    ),
    (
        "insert into a select * from b",
        &["insert", "select"],
        &["b"],
        &["a"],
        false,
    ),
    (
        "insert into a values (1) on conflict (id) do update set x = (select max(y) from z)",
        &["insert", "select"],
        &["z"],
        &["a"],
        false,
    ),
    (
        "update a set x = b.y from b where a.id = b.id",
        &["update"],
        &["b"],
        &["a"],
        false,
    ),
    (
        "delete from a using b where a.id = b.id",
        &["delete"],
        &["b"],
        &["a"],
        false,
    ),
    (
        "merge into a using b on a.id = b.id when matched then delete",
        &["merge"],
        &["b"],
        &["a"],
        false,
    ),
    (
        "with x as (delete from a returning *) select * from x",
        &["delete", "select"],
        &[],
        &["a"],
        false,
    ),
    (
        "with a as (select 1) select * from a",
        &["select"],
        &[],
        &[],
        false,
    ),
    (
        "with a as (select * from a) select * from a",
        &["select"],
        &["a"],
        &[],
        false,
    ),
    (
        "with a as (select 1) select * from public.a",
        &["select"],
        &["public.a"],
        &[],
        false,
    ),
    (
        "select * from (with a as (select 1) select * from a) q, a",
        &["select"],
        &["a"],
        &[],
        false,
    ),
    (
        "with recursive a as (select 1 union all select n + 1 from a) select * from a",
        &["select"],
        &[],
        &[],
        false,
    ),
    (
        "with a as (select 1) delete from a where id = 1",
        &["select", "delete"],
        &[],
        &["a"],
        false,
    ),
    (
        "explain analyze delete from a where id = 1",
        &["delete", "explain"],
        &[],
        &["a"],
        false,
    ),
    (
        "prepare p as update a set x = 1 where id = $1",
        &["update", "prepare"],
        &[],
        &["a"],
        false,
    ),
    (
        "declare c cursor for select * from a",
        &["select", "declare"],
        &["a"],
        &[],
        false,
    ),
    ("copy a to stdout", &["copy"], &["a"], &[], false),
    ("copy a from stdin", &["copy"], &[], &["a"], false),
    (
        "copy (select * from a) to stdout",
        &["select", "copy"],
        &["a"],
        &[],
        false,
    ),
    (
        "copy a to program 'cat'",
        &["copy_program", "copy"],
        &["a"],
        &[],
        true,
    ),
    (
        "copy a from '/etc/passwd'",
        &["copy_file", "copy"],
        &[],
        &["a"],
        true,
    ),
    ("do $$ begin delete from a; end $$", &["do"], &[], &[], true),
    ("call f(1)", &["call"], &[], &[], true),
    (
        "select * into b from a",
        &["select", "select_into"],
        &["a"],
        &["b"],
        false,
    ),
    (
        "create table b as select * from a",
        &["select", "create_table_as"],
        &["a"],
        &["b"],
        false,
    ),
    (
        "create view v as select * from a",
        &["select", "create_view"],
        &["a"],
        &["v"],
        false,
    ),
    (
        "create materialized view v as select * from a",
        &["select", "create_materialized_view"],
        &["a"],
        &["v"],
        false,
    ),
    (
        "create table b (like a)",
        &["create_table"],
        &["a"],
        &["b"],
        false,
    ),
    (
        "create table b () inherits (a)",
        &["create_table"],
        &[],
        &["a", "b"],
        false,
    ),
    (
        "create table b (x int references a (id))",
        &["create_table"],
        &[],
        &["a", "b"],
        false,
    ),
    (
        "drop table a, s.b cascade",
        &["drop_table"],
        &[],
        &["a", "s.b"],
        false,
    ),
    ("drop view a", &["drop_view"], &[], &["a"], false),
    (
        "drop schema s cascade",
        &["drop_schema"],
        &[],
        &["*", "s.*"],
        false,
    ),
    ("truncate a, b", &["truncate"], &[], &["a", "b"], false),
    (
        "alter table a rename to b",
        &["alter_table"],
        &[],
        &["a"],
        false,
    ),
    (
        "alter table a drop column x",
        &["alter_table"],
        &[],
        &["a"],
        false,
    ),
    (
        "alter table p attach partition a for values in (1)",
        &["alter_table"],
        &[],
        &["a", "p"],
        false,
    ),
    (
        "create index on a (lower(x))",
        &["create_index"],
        &[],
        &["a"],
        false,
    ),
    ("lock table a", &["lock"], &[], &["a"], false),
    (
        "select * from a for update",
        &["select", "select_for_update"],
        &["a"],
        &[],
        false,
    ),
    ("grant select on a to b", &["grant"], &[], &["a"], false),
    (
        "grant select on all tables in schema s to b",
        &["grant"],
        &[],
        &["s.*"],
        false,
    ),
    ("vacuum a", &["vacuum"], &[], &["a"], false),
    ("analyze", &["analyze"], &[], &[], false),
    (
        "refresh materialized view v",
        &["refresh_materialized_view"],
        &[],
        &["v"],
        false,
    ),
    ("set role admin", &["set_role"], &[], &[], false),
    (
        "set session authorization admin",
        &["set_session_authorization", "set_role"],
        &[],
        &[],
        false,
    ),
    ("set x.y = 1", &["set"], &[], &[], false),
    (
        "set transaction isolation level serializable",
        &["set_transaction"],
        &[],
        &[],
        false,
    ),
    (
        "begin isolation level serializable",
        &["set_transaction", "begin"],
        &[],
        &[],
        false,
    ),
    ("discard all", &["discard"], &[], &[], false),
    (
        "create role r password 'x'",
        &["role_password", "create_role"],
        &[],
        &[],
        false,
    ),
    (
        "alter role r with encrypted password 'x'",
        &["role_password", "alter_role"],
        &[],
        &[],
        false,
    ),
    ("create role r", &["create_role"], &[], &[], false),
    (
        "create function f() returns int language sql as 'select 1'",
        &["create_function"],
        &[],
        &[],
        true,
    ),
    (
        "create trigger t before insert on a execute function f()",
        &["create_trigger"],
        &[],
        &["a"],
        true,
    ),
    (
        "create rule r as on insert to a do also delete from b",
        &["delete", "create_rule"],
        &[],
        &["a", "b"],
        true,
    ),
    (
        "select pg_read_file('/etc/passwd')",
        &["select"],
        &[],
        &[],
        true,
    ),
    (
        "select query_to_xml('select 1', true, true, '')",
        &["select"],
        &[],
        &[],
        true,
    ),
    (
        "create extension dblink",
        &["create_extension"],
        &[],
        &[],
        true,
    ),
    (
        "create server s foreign data wrapper w",
        &["create_foreign_server"],
        &[],
        &[],
        true,
    ),
    ("alter system set x = 1", &["alter_system"], &[], &[], true),
    ("load 'x'", &["load"], &[], &[], true),
    ("notify c, 'x'", &["notify"], &[], &[], false),
    (
        "select (select max(x) from a) from lateral (select * from b) q where exists (select 1 from c)",
        &["select"],
        &["a", "b", "c"],
        &[],
        false,
    ),
    (
        "select json_object('a': 1), json_array(select x from a), xmlelement(name e, 1), cast(x as int), array[1], row(1), x is null, coalesce(x, 1), greatest(1, 2), case when true then 1 end from b",
        &["select"],
        &["a", "b"],
        &[],
        false,
    ),
    (
        "select sum(x) over (partition by y order by z) from a group by grouping sets ((x), ()) limit 1",
        &["select"],
        &["a"],
        &[],
        false,
    ),
    (
        "select * from a tablesample system (1), generate_series(1, 2) g, json_table('[]', '$' columns (x int path '$'))  j",
        &["select"],
        &["a"],
        &[],
        true,
    ),
];

#[test]
fn kinds_and_tables_are_what_the_text_says() {
    for (text, kinds, read, written, opaque) in TABLE {
        let facts = one(text);
        assert_eq!(facts.kinds, *kinds, "{text}");
        assert_eq!(names(&facts.tables_read), *read, "{text}");
        assert_eq!(names(&facts.tables_written), *written, "{text}");
        assert_eq!(
            !facts.opaque.is_empty(),
            *opaque,
            "{text}: {:?}",
            facts.opaque
        );
        for kind in &facts.kinds {
            assert!(KINDS.contains(kind), "{kind} is not documented");
        }
    }
}

#[test]
fn where_counts_only_when_it_names_a_column() {
    for (text, present) in [
        ("update t set x = 1", false),
        ("update t set x = 1 where true", false),
        ("update t set x = 1 where 1 = 1", false),
        ("delete from t where id = id", false),
        ("delete from t where id + 1 = id + 2", false),
        ("delete from t where id = 1 or true", false),
        ("delete from t where id = 1 or 1 = 1", false),
        ("delete from t where not false", false),
        (
            "delete from t where exists (select 1 from u where u.x = 1)",
            false,
        ),
        ("delete from t where id = 1", true),
        ("delete from t where id = 1 and 1 = 1", true),
        (
            "delete from t where exists (select 1 from u where u.id = t.id)",
            true,
        ),
        (
            "delete from t a where exists (select 1 from u where u.id = a.id)",
            true,
        ),
        ("delete from t where id in (select id from u)", true),
        ("delete from t where current of c", true),
        ("delete from t where done", true),
    ] {
        let facts = one(text);
        assert_eq!(
            (facts.where_found, facts.where_missing),
            (present, !present),
            "{text}"
        );
    }
    let both = one("with x as (delete from a returning *) delete from b where id = 1");
    assert!(both.where_found && both.where_missing);
}

#[test]
fn columns_are_found_behind_aliases_and_whole_rows() {
    let ssn = |text: &str| {
        one(text).columns.iter().any(|c| {
            (c.name == "ssn" || c.name == "*")
                && (c.tables.is_empty() || c.tables.iter().any(|t| t.name == "users"))
        })
    };
    for text in [
        "select ssn from users",
        "select u.ssn from users u",
        "select * from users",
        "select u.* from users u",
        "select u from users u",
        "select users from users",
        "select to_json(u) from users u",
        "select u.to_json from users u",
        "select (u).ssn from users u",
        "select c from users as u(a, b, c)",
        "table users",
        "select x from (select ssn as x from users) q",
        "select 1 from users where ssn = '1'",
        "select 1 from users order by ssn",
        "select 1 from users natural join other",
        "select 1 from users join o using (ssn)",
        "insert into users values (1)",
        "insert into users (ssn) values (1)",
        "update users set ssn = 1 where id = 1",
        "copy users to stdout",
        "copy users (ssn) to stdout",
        "insert into o (x) select ssn from users",
        "delete from users where id = 1 returning ssn",
    ] {
        assert!(ssn(text), "{text}");
    }
    for text in [
        "select name from users",
        "select u.name, o.ssn from users u, orders o",
        "select count(*) from users",
        "select o.* from users u, orders o",
        "insert into users (name) values (1)",
        "copy users (name) to stdout",
    ] {
        assert!(!ssn(text), "{text}");
    }
}

#[test]
fn multiple_statements_are_each_seen() {
    let facts = facts("select 1; drop table x; ; select 2", &SqlLimits::default()).expect("parses");
    let kinds: Vec<&str> = facts.statements.iter().map(|s| s.kind).collect();
    assert_eq!(kinds, ["select", "drop_table", "select"]);
}

#[test]
fn settings_are_told_however_they_are_written() {
    for (text, name, value) in [
        ("set search_path to a, b", "search_path", Some("a,b")),
        ("set schema 'a'", "search_path", Some("a")),
        ("set local SEARCH_PATH = a", "search_path", Some("a")),
        (
            "set \"Standard_Conforming_Strings\" = off",
            "standard_conforming_strings",
            Some("off"),
        ),
        ("set names 'sjis'", "client_encoding", Some("sjis")),
        ("set time zone 'UTC'", "timezone", Some("UTC")),
        ("reset all", "all", None),
        ("discard all", "all", None),
        ("reset search_path", "search_path", None),
        ("set search_path to default", "search_path", None),
        (
            "select set_config('search_path', 'a', false)",
            "search_path",
            Some("a"),
        ),
        (
            "select pg_catalog.set_config('Search_Path', '', false)",
            "search_path",
            Some(""),
        ),
        ("select set_config(x, 'a', false) from t", "*", None),
        (
            "select set_config('role', 'admin', false)",
            "role",
            Some("admin"),
        ),
    ] {
        let facts = one(text);
        let found: Vec<(&str, Option<&str>)> = facts
            .settings
            .iter()
            .map(|s| (s.name.as_str(), s.value.as_deref()))
            .collect();
        assert_eq!(found, [(name, value)], "{text}");
    }
}

#[test]
fn caps_hold_before_anything_is_parsed() {
    let limits = SqlLimits {
        statement_bytes_max: 1000,
        tokens_max: 100,
        nesting_max: 20,
        ..SqlLimits::default()
    };
    let check = |text: &str| facts(text, &limits).expect_err(text);
    assert!(matches!(
        check(&"x".repeat(1001)),
        FactsError::TooLong {
            length: 1001,
            limit: 1000
        }
    ));
    assert!(matches!(
        check(&format!("select {}1", "1,".repeat(60))),
        FactsError::TooManyTokens { limit: 100 }
    ));
    assert!(matches!(
        check(&format!("select {}1", "(".repeat(60))),
        FactsError::TooDeep { limit: 20 }
    ));
    assert!(matches!(
        check(&format!("select {}1", "1+".repeat(40))),
        FactsError::TooDeep { limit: 20 }
    ));
    assert_eq!(check("selec 1"), FactsError::Unparsable);
    assert_eq!(check("select 'a\0b'"), FactsError::NotText);
}

#[test]
fn ten_million_bytes_of_or_terms_are_refused_by_the_scan_alone() {
    let limits = SqlLimits {
        statement_bytes_max: 64 << 20,
        ..SqlLimits::default()
    };
    let text = format!("select 1 where a=1{}", " or a=1".repeat(1_400_000));
    assert!(text.len() > 9_800_000);
    assert!(matches!(
        facts(&text, &limits),
        Err(FactsError::TooManyTokens { .. })
    ));
}

#[test]
fn a_literal_of_thirty_megabytes_passes_with_the_cap_raised() {
    let limits = SqlLimits {
        statement_bytes_max: 64 << 20,
        ..SqlLimits::default()
    };
    let text = format!("insert into t (x) values ('{}')", "a".repeat(30 << 20));
    let facts = facts(&text, &limits).expect("parses");
    assert_eq!(names(&facts.statements[0].tables_written), ["t"]);
}

#[test]
fn text_that_hides_tokens_from_the_scan_does_not_exist() {
    // The literal goes on behind the line end, still escaping; a scan that
    // thought otherwise would take all that follows for one literal.
    let many = " or 1=1".repeat(2000);
    for start in [
        "select E'a'\n'\\'' where true",
        "select E'a' -- c\n  '\\'' where true",
        "select 'a''b' where true",
        "select $a$'$a$ where true",
        "select 1 /* ' /* */ ' */ where true",
        "select \"a'b\" where true",
        "select U&'a' where true",
        "select a$, '$' where true",
    ] {
        let limits = SqlLimits {
            tokens_max: 1000,
            ..SqlLimits::default()
        };
        let text = format!("{start}{many}");
        assert!(
            matches!(facts(&text, &limits), Err(FactsError::TooManyTokens { .. })),
            "{start}"
        );
    }
}

#[test]
fn deep_texts_that_the_caps_allow_parse_on_a_stack_that_fits() {
    let limits = SqlLimits {
        nesting_max: 500,
        ..SqlLimits::default()
    };
    for text in [
        format!("select 1{}", "+1".repeat(300)),
        format!("select {}1{}", "(select ".repeat(150), ")".repeat(150)),
        format!("select {}1{}", "f(".repeat(200), ")".repeat(200)),
        format!("select 1{}", " union select 1".repeat(200)),
        format!("select {}true", "not ".repeat(300)),
        format!("select * from t{}", " natural join t".repeat(300)),
        format!(
            "select {}1{}",
            "case when true then 1 else ".repeat(100),
            " end".repeat(100)
        ),
    ] {
        // The parser has a limit of its own; below it the facts must come.
        let drawn = crate::gate::draw(&text, &limits);
        assert!(drawn.is_ok(), "{}: {drawn:?}", &text[..40]);
    }
}

#[test]
fn the_rows_of_an_insert_are_its_own_and_a_query_in_them_counts() {
    let kinds = |text: &str| {
        let found = facts(text, &SqlLimits::default()).expect("parses");
        found.statements[0].kinds.clone()
    };
    assert_eq!(kinds("insert into t values (1), (2)"), ["insert"]);
    for reading in [
        "insert into t values ((select secret from x))",
        "insert into t select * from x",
        "insert into t with a as (select 1) values (1)",
        "values (1)",
    ] {
        assert!(kinds(reading).contains(&"select"), "{reading}");
    }
}
