//! Random conversations, cut at random: with us in between the agent reads the same bytes.

mod support;

use postgres::wire::frontend::Kind;
use proptest::prelude::*;
use support::messages::{Say, tags};
use support::model::Model;
use support::world::{World, config, refusal};

#[derive(Debug, Clone)]
enum Step {
    Query(&'static str),
    Parse(&'static str, &'static str),
    Bind(&'static str, &'static str),
    DescribeStatement(&'static str),
    DescribePortal(&'static str),
    Execute(&'static str, i32),
    ClosePortal(&'static str),
    CloseStatement(&'static str),
    Call(u32),
    Sync,
    Flush,
    CopyData,
    CopyDone,
    CopyFail,
}

fn step(with_refusals: bool) -> impl Strategy<Value = Step> {
    let mut texts = vec![
        "select 1 a",
        "select 3 b",
        "insert",
        "begin",
        "commit",
        "rollback",
        "fail",
        "syntax",
        "",
        "copy out 2 x",
        "copy in",
        "copy in bad",
        "notice n",
        "notify n",
        "set a b",
    ];
    let mut queries = vec![
        "select 1 a; insert",
        "insert; fail; select 1",
        "copy in; select 1",
    ];
    if with_refusals {
        texts.extend(["drop a", "drop b", "drop c"]);
        queries.push("drop a; drop b");
    }
    queries.extend(texts.iter().copied());
    let name = || prop::sample::select(vec!["", "a", "b"]);
    prop_oneof![
        3 => prop::sample::select(queries).prop_map(Step::Query),
        3 => (name(), prop::sample::select(texts)).prop_map(|(name, text)| Step::Parse(name, text)),
        4 => (name(), name()).prop_map(|(portal, statement)| Step::Bind(portal, statement)),
        1 => name().prop_map(Step::DescribeStatement),
        1 => name().prop_map(Step::DescribePortal),
        4 => (name(), 0..3i32).prop_map(|(portal, rows)| Step::Execute(portal, rows)),
        1 => name().prop_map(Step::ClosePortal),
        1 => name().prop_map(Step::CloseStatement),
        1 => (0..3u32).prop_map(Step::Call),
        5 => Just(Step::Sync),
        1 => Just(Step::Flush),
        2 => Just(Step::CopyData),
        3 => Just(Step::CopyDone),
        1 => Just(Step::CopyFail),
    ]
}

fn say(steps: &[Step]) -> Vec<u8> {
    steps
        .iter()
        .fold(Say::new(), |say, step| match step {
            Step::Query(text) => say.query(text),
            Step::Parse(name, text) => say.parse(name, text),
            Step::Bind(portal, statement) => say.bind(portal, statement),
            Step::DescribeStatement(name) => say.describe(Kind::Statement, name),
            Step::DescribePortal(name) => say.describe(Kind::Portal, name),
            Step::Execute(portal, rows) => say.execute(portal, *rows),
            Step::ClosePortal(name) => say.close(Kind::Portal, name),
            Step::CloseStatement(name) => say.close(Kind::Statement, name),
            Step::Call(oid) => say.call(*oid),
            Step::Sync => say.sync(),
            Step::Flush => say.flush(),
            Step::CopyData => say.copy_data(b"row\n"),
            Step::CopyDone => say.copy_done(),
            Step::CopyFail => say.copy_fail(),
        })
        .bytes()
}

/// Feeds all of it, however it is cut; the server answers after each piece, or at the end.
fn through(bytes: &[u8], cuts: &[usize], late: bool) -> World {
    let mut world = World::with(config());
    if !late {
        world.say_cut(bytes, cuts);
        return world;
    }
    // The server is asleep while the agent talks: nothing is known of its answers.
    world.model.dead = true;
    world.say_cut(bytes, cuts);
    let mut model = Model::new();
    let answers = model.feed(&world.upstream.clone());
    let mut cuts = cuts.iter().cycle();
    let mut rest = &answers[..];
    while !rest.is_empty() {
        let length = (*cuts.next().unwrap_or(&1)).clamp(1, rest.len());
        world.server_says(&rest[..length]);
        rest = &rest[length..];
    }
    world.model = model;
    world
}

/// Ends the conversation at the first Sync behind data of a COPY IN that fails. Whether the
/// server has met the failure when it reads that Sync depends on the data alone, so the
/// machine cannot tell which Sync ends the skipping; with more behind it, it may close the
/// session (it never forwards wrongly). Drivers wait for the COPY's answer first.
fn tame(mut steps: Vec<Step>) -> Vec<Step> {
    let fails = |s: &Step| matches!(s, Step::Parse(_, text) | Step::Query(text) if text.contains("copy in bad"));
    let after = |from: Option<usize>, wanted: &dyn Fn(&Step) -> bool| {
        let from = from?;
        steps
            .get(from..)?
            .iter()
            .position(wanted)
            .map(|at| from + at)
    };
    let copy = steps.iter().position(fails);
    let data = after(copy, &|s| matches!(s, Step::CopyData));
    if let Some(sync) = after(data, &|s| matches!(s, Step::Sync)) {
        steps.truncate(sync + 1);
    }
    steps
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_refused_nothing_changed(
        steps in prop::collection::vec(step(false), 1..40),
        cuts in prop::collection::vec(1..60usize, 1..8),
        late: bool,
    ) {
        let steps = tame(steps);
        let bytes = say(&steps);
        let mut model = Model::new();
        let expected = model.feed(&bytes);
        let world = through(&bytes, &cuts, late);
        prop_assert_eq!(tags(&world.agent), tags(&expected), "{:?}", steps);
        prop_assert_eq!(&world.agent, &expected);
        prop_assert!(model.dead || world.upstream == bytes);
        prop_assert_eq!(&world.model.ran, &model.ran);
        prop_assert_eq!(&world.model.copied, &model.copied);
    }

    #[test]
    fn what_is_refused_reads_as_if_the_server_refused_it(
        steps in prop::collection::vec(step(true), 1..40),
        cuts in prop::collection::vec(1..60usize, 1..8),
        late: bool,
    ) {
        let steps = tame(steps);
        let bytes = say(&steps);
        let words = postgres::wire::backend::ReportBuilder::refusal(
            postgres::wire::backend::Severity::Error,
            &refusal(),
        ).to_bytes().to_vec();
        let mut model = Model::refusing(words);
        let expected = model.feed(&bytes);
        let world = through(&bytes, &cuts, late);
        prop_assert_eq!(tags(&world.agent), tags(&expected), "{:?}", steps);
        prop_assert_eq!(&world.agent, &expected);
        prop_assert_eq!(&world.model.ran, &model.ran);
        prop_assert!(!world.model.seen.iter().any(|text| text.starts_with("drop")));
    }
}
