//! Tests of the configuration: the table, the raw types, the reference and
//! the sample file say the same; every complaint points at its place.

use super::keys::{KEYS, Kind};
use super::*;

const SMALL: &str = r#"
[[listeners]]
name = "pg"
address = "127.0.0.1:6432"
[[targets]]
name = "shop"
hosts = ["127.0.0.1:5432"]
tls = "off"
account = "app"
[[roles]]
name = "all"
groups = ["*"]
targets = ["*"]
default = "allow"
"#;

fn errors(text: &str) -> Vec<String> {
    let e = parse(text, "t.toml", Path::new(".")).expect_err("the file is wrong");
    e.to_string()
        .lines()
        .filter(|l| l.starts_with("t.toml:") && l.matches(':').count() >= 3)
        .map(String::from)
        .collect()
}

#[test]
fn a_small_file_is_enough() {
    let config = parse(SMALL, "t.toml", Path::new(".")).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        config.targets[0].account,
        checked::Account::Fixed("app".into())
    );
    assert_eq!(config.listeners[0].tls, checked::ListenerTls::Off);
}

#[test]
fn every_error_is_listed_with_its_place() {
    let text = SMALL
        .replace("tls = \"off\"", "tls = \"maybe\"\nprot = 3")
        .replace("6432", "6432\"\nlogin = 4 #");
    let found = errors(&text);
    assert_eq!(
        found,
        [
            "t.toml:5:9: `listeners.login` must be one of \"password\", \"oauth\"",
            "t.toml:9:7: `targets.tls` must be one of \"verify\", \"off\"",
            "t.toml:10:1: unknown key `prot` in `targets`",
        ]
    );
}

#[test]
fn semantic_errors_point_at_their_value() {
    let text = SMALL
        .replace("127.0.0.1:6432", "0.0.0.0:6432")
        .replace("127.0.0.1:5432", "10.1.2.3:5432")
        .replace(
            "default = \"allow\"",
            "default = \"deny\"\n[[roles.rules]]\nname = \"x\"\naction = \"deny\"\nwhen = \"1 +\"",
        );
    let found = errors(&text);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found[0].starts_with("t.toml:4:11: a listener beyond loopback needs TLS"),
        "{found:?}"
    );
    assert!(
        found[1].starts_with("t.toml:8:7: clear text to a host that is not loopback"),
        "{found:?}"
    );
    assert!(found[2].starts_with("t.toml:18:8: "), "{found:?}");
}

#[test]
fn the_gateways_own_addresses_are_no_targets() {
    for own in ["127.0.0.1:6432", "localhost:6432", "127.0.0.1:7432"] {
        let found = errors(&SMALL.replace("127.0.0.1:5432", own));
        assert!(
            found[0].contains("an address of the gateway itself"),
            "{own}: {found:?}"
        );
    }
}

#[test]
fn a_plain_secret_is_refused() {
    let found = errors(&SMALL.replace(
        "account = \"app\"",
        "account = \"app\"\npassword = \"hunter2\"",
    ));
    assert!(
        found[0].contains("must be a reference to a secret"),
        "{found:?}"
    );
}

#[test]
fn syntax_errors_have_a_place() {
    assert!(errors("[gateway\n")[0].starts_with("t.toml:1:"));
}

/// A value of the right kind for every key.
fn sample(kind: Kind) -> toml::Value {
    match kind {
        Kind::Text => toml::Value::String("x".into()),
        Kind::Choice(names) => toml::Value::String(names[0].into()),
        Kind::Integer(min, _) => toml::Value::Integer(min),
        Kind::Boolean => toml::Value::Boolean(true),
        Kind::TextList => toml::Value::Array(vec![toml::Value::String("x".into())]),
        Kind::Secret => toml::Value::Table(
            [("env".to_string(), toml::Value::String("X".into()))]
                .into_iter()
                .collect(),
        ),
        Kind::Table | Kind::Tables => toml::Value::Table(toml::Table::new()),
    }
}

fn place<'t>(root: &'t mut toml::Table, path: &str) -> &'t mut toml::Table {
    let mut here = root;
    for part in path.split('.').filter(|p| !p.is_empty()) {
        let name = part.trim_end_matches("[]");
        let value = here
            .get_mut(name)
            .expect("sections stand before their keys in the table");
        here = match value {
            toml::Value::Array(a) => a[0].as_table_mut().expect("a table"),
            other => other.as_table_mut().expect("a table"),
        };
    }
    here
}

#[test]
fn the_key_table_and_the_raw_types_are_the_same() {
    let mut root = toml::Table::new();
    for key in KEYS {
        let (section, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        let value = match key.kind {
            Kind::Tables => toml::Value::Array(vec![toml::Value::Table(toml::Table::new())]),
            kind => sample(kind),
        };
        place(&mut root, section).insert(name.trim_end_matches("[]").into(), value);
    }
    let text = toml::to_string(&root).expect("serialisable");
    let (_, complaints) = document::Document::parse(&text);
    assert_eq!(complaints, [], "the table does not accept its own samples");
    let raw: raw::RawConfig = toml::from_str(&text).expect("every key of the table is a field");
    let back = toml::Table::try_from(&raw).expect("serialisable");
    assert_eq!(
        back, root,
        "a raw field is missing from the table, or the reverse"
    );
}

#[test]
fn the_reference_is_written_from_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/CONFIGURATION.md");
    let on_disk = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        on_disk == reference::markdown(),
        "run `portcullis reference > docs/CONFIGURATION.md`"
    );
}
