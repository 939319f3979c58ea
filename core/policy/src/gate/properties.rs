//! Properties over made-up texts and sessions.

use super::tests::{Session, usual};
use super::*;
use crate::spec::SqlLimits;
use crate::sql::{facts, scan, sensitivity, shape};
use proptest::prelude::*;

/// Pieces of SQL that make most of what is hard about it.
fn soup() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("select"),
        Just("from"),
        Just("t"),
        Just("secrets"),
        Just("where"),
        Just("1"),
        Just("23"),
        Just("'x'"),
        Just("'a''b'"),
        Just(r"'a\'"),
        Just(r"E'a\'b'"),
        Just("$$q$$"),
        Just("$1"),
        Just("\"q\""),
        Just("U&'x'"),
        Just("--c\n"),
        Just("/*c*/"),
        Just("("),
        Just(")"),
        Just(","),
        Just(";"),
        Just("+"),
        Just("="),
        Just("and"),
        Just("or"),
        Just("not"),
        Just("union"),
        Just("update t set x ="),
        Just("delete from t"),
        Just("execute p"),
        Just("prepare p as"),
        Just("begin"),
        Just("\n"),
        Just("'"),
        Just("\u{e9}"),
        Just("case when"),
        Just("end"),
    ];
    prop::collection::vec(word, 0..24).prop_map(|words| words.join(" "))
}

fn depth(tree: &serde_json::Value) -> usize {
    match tree {
        serde_json::Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        serde_json::Value::Array(list) => list.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_scanned_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = scan(&bytes, &SqlLimits::default());
        let _ = sensitivity(&bytes);
        let _ = shape(&bytes, &mut Vec::new());
    }

    #[test]
    fn any_text_cut_anywhere_is_decided_without_panic(text in soup(), cut in 0usize..200) {
        let cut = text.char_indices().map(|(i, _)| i).nth(cut).unwrap_or(text.len());
        let mut s = Session::new(usual());
        s.query(&text[..cut]);
        s.query(&text[cut..]);
    }

    #[test]
    fn texts_of_one_shape_get_one_decision(text in soup(), n in 0u32..1_000_000) {
        let mut one = Vec::new();
        if shape(text.as_bytes(), &mut one) {
            let other = text.replace("23", &n.to_string());
            let mut two = Vec::new();
            prop_assert!(shape(other.as_bytes(), &mut two));
            if one == two {
                let limits = SqlLimits::default();
                let strip = |text: &str| facts(text, &limits).map(|f| f.statements.iter().map(|s| {
                    let mut s = (**s).clone();
                    s.names.clear();
                    s.settings.clear();
                    s
                }).collect::<Vec<_>>());
                prop_assert_eq!(strip(&text), strip(&other));
            }
        }
    }

    #[test]
    fn the_scan_never_counts_less_nesting_than_the_parser_builds(text in soup()) {
        if let (Ok(seen), Ok(parsed)) = (scan(text.as_bytes(), &SqlLimits::default()), pg_query::parse(&text, 0)) {
            let tree = serde_json::to_value(&parsed.protobuf).expect("serialises");
            // A level of SQL is up to ten of the tree's: statement, node,
            // target, node, sub-link, node, …
            prop_assert!(depth(&tree) <= 14 + 10 * seen.depth, "{} > {}: {text}", depth(&tree), seen.depth);
        }
    }

    #[test]
    fn a_cached_decision_is_the_fresh_one(texts in prop::collection::vec(soup(), 1..6)) {
        let mut warm = Session::new(usual());
        for text in texts.iter().chain(&texts).chain(&texts) {
            let cached = warm.query(text);
            let mut fresh = Session::new(usual());
            // Names differ between the sessions: compare where none are used.
            if !text.contains("execute") && !text.contains("prepare") {
                prop_assert_eq!(cached.action, fresh.query(text).action, "{}", text);
            }
        }
    }

    #[test]
    fn what_a_name_may_stand_for_is_never_less_than_what_the_server_holds(
        steps in prop::collection::vec((0u8..4, 0usize..2, any::<bool>()), 1..30)
    ) {
        // A model server that answers late; `p` and `q` hold a text or none.
        // Whatever it answers, a Bind must be held if the server could run the
        // update.
        let mut s = Session::new(usual());
        let names = ["p", "q"];
        let mut server: [Option<bool>; 2] = [None, None];
        let mut queue: VecDeque<(u64, u8, usize, bool, bool)> = VecDeque::new();
        for (step, name, flag) in steps {
            match step {
                0 => {
                    let (unit, _) = s.parse(names[name], if flag { "update t set x = 1" } else { "select 1" });
                    queue.push_back((unit, 0, name, flag, false));
                }
                1 => {
                    let unit = s.next();
                    s.gate.close(unit, b'S', names[name].as_bytes());
                    queue.push_back((unit, 1, name, flag, false));
                }
                2 => {
                    if let Some((unit, what, name, update, _)) = queue.pop_front() {
                        // A Parse over a name that is taken fails, as in the server.
                        let fails = what == 0 && server[name].is_some();
                        let outcome = match (fails, flag) {
                            (true, _) => Outcome::Failed,
                            (false, true) => Outcome::Skipped,
                            (false, false) => Outcome::Completed,
                        };
                        if outcome == Outcome::Completed {
                            server[name] = if what == 0 { Some(update) } else { None };
                        }
                        s.gate.answered(unit, outcome);
                    }
                }
                _ => {
                    let (unit, decision) = s.bind("", names[name]);
                    s.gate.answered(unit, Outcome::Skipped);
                    let could = server[name] == Some(true)
                        || queue.iter().any(|(_, what, n, update, _)| *what == 0 && *n == name && *update);
                    if could {
                        prop_assert_eq!(decision.action, Action::Approve);
                    }
                    if server[name].is_none() && queue.is_empty() {
                        prop_assert_eq!(decision.deny, Some(DenyKind::UnknownName));
                    }
                }
            }
        }
    }
}
