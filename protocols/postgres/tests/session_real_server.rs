//! A session in front of a real PostgreSQL: what the agent reads is what it reads without
//! us, and after refusals in every place both sides still agree.
//!
//! Needs the server's binaries (Debian: package `postgresql`); the test makes a cluster of
//! its own in a temporary directory, on a Unix socket, and removes it.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use postgres::session::{CloseReason, Event, Output, Session, Side, Unit, Verdict};
use postgres::wire::frontend::{self, Kind};
use support::messages::{Say, split, sqlstates, statuses, tags};
use support::toy::Toy;
use support::world::{config, refusal};

/// A cluster that is stopped and removed when dropped.
struct Server {
    directory: PathBuf,
    binaries: PathBuf,
}

impl Server {
    fn start() -> Server {
        let binaries = std::fs::read_dir("/usr/lib/postgresql")
            .expect("PostgreSQL's binaries in /usr/lib/postgresql (Debian: package postgresql)")
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .find(|path| path.join("initdb").exists())
            .expect("initdb in /usr/lib/postgresql/*/bin");
        let directory =
            std::env::temp_dir().join(format!("portcullis-session-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let server = Server {
            directory,
            binaries,
        };
        if is_root() {
            assert!(
                Command::new("chown")
                    .arg("postgres")
                    .arg(&server.directory)
                    .status()
                    .unwrap()
                    .success()
            );
        }
        let data = server.data();
        server.run(
            "initdb",
            &[
                "-A",
                "trust",
                "-U",
                "agent",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
                "-D",
                &data,
            ],
        );
        let options = format!(
            "-c listen_addresses='' -c fsync=off -c lc_messages=C -k {}",
            server.directory.display()
        );
        let log = server.directory.join("log").display().to_string();
        server.run(
            "pg_ctl",
            &["-D", &data, "-w", "-o", &options, "-l", &log, "start"],
        );
        server
    }

    fn data(&self) -> String {
        self.directory.join("data").display().to_string()
    }

    /// Runs one of the server's programs, as user `postgres` where we are root.
    fn run(&self, program: &str, arguments: &[&str]) {
        let path = self.binaries.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        let status = command
            .args(arguments)
            .current_dir(&self.directory)
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{program} {arguments:?}");
    }

    fn connect(&self) -> UnixStream {
        connect(&self.directory)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.data();
        self.run("pg_ctl", &["-D", &data, "-m", "immediate", "-w", "stop"]);
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

/// A connection after its login.
fn connect(directory: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(directory.join(".s.PGSQL.5432")).unwrap();
    // Only so that a failure does not hang.
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let body = b"\0\x03\0\0user\0agent\0database\0postgres\0\0";
    let mut startup = u32::try_from(body.len() + 4)
        .unwrap()
        .to_be_bytes()
        .to_vec();
    startup.extend_from_slice(body);
    stream.write_all(&startup).unwrap();
    let greeting = read_until_ready(&mut stream, 1);
    assert_eq!(statuses(&greeting), "I");
    stream
}

fn ready_count(stream: &[u8]) -> usize {
    let mut rest = stream;
    let mut count = 0;
    while rest.len() >= 5 {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        if rest.len() <= length {
            break;
        }
        count += usize::from(rest[0] == b'Z');
        rest = &rest[length + 1..];
    }
    count
}

fn read_until_ready(stream: &mut UnixStream, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 65_536];
    while ready_count(&all) < count {
        let length = stream.read(&mut buffer).unwrap_or_else(|error| {
            panic!("{error} after {:?}", String::from_utf8_lossy(&all));
        });
        assert!(
            length > 0,
            "the server closed after {:?}",
            String::from_utf8_lossy(&all)
        );
        all.extend_from_slice(&buffer[..length]);
    }
    all
}

/// A session of the machine over a connection to the real server.
struct Through {
    session: Session<Toy>,
    stream: UnixStream,
    agent: Vec<u8>,
    events: Vec<Event>,
    closed: Option<CloseReason>,
}

impl Through {
    fn new(stream: UnixStream) -> Through {
        Through {
            session: Session::new(config(), Toy::default()),
            stream,
            agent: Vec::new(),
            events: Vec::new(),
            closed: None,
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Write {
                    side: Side::Upstream,
                    bytes,
                } => self.stream.write_all(&bytes).unwrap(),
                Output::Write {
                    side: Side::Downstream,
                    bytes,
                } => self.agent.extend_from_slice(&bytes),
                Output::Decide { id, unit } => {
                    let refused = match &unit {
                        Unit::Query { text } | Unit::Parse { text, .. } => {
                            text.starts_with(b"drop")
                        }
                        Unit::Bind { statement, .. } => statement.starts_with(b"drop"),
                        Unit::Execute { portal, .. } => portal.starts_with(b"drop"),
                        Unit::FunctionCall { oid, .. } => *oid == 1598,
                        _ => true,
                    };
                    let verdict = if refused {
                        Verdict::Refuse(refusal())
                    } else {
                        Verdict::Forward
                    };
                    self.session.handle_decision(id, verdict).unwrap();
                }
                Output::Event(event) => self.events.push(event),
                Output::Close(reason) => self.closed = Some(reason),
            }
        }
    }

    /// Says all of it, then reads until the server has been ready `count` times more.
    fn talk(&mut self, bytes: &[u8], cut: usize, count: usize) -> Vec<u8> {
        self.agent.clear();
        for piece in bytes.chunks(cut) {
            self.session
                .handle_input(Side::Downstream, Bytes::copy_from_slice(piece))
                .unwrap();
            self.drain();
        }
        let mut buffer = vec![0; cut.max(1)];
        while ready_count(&self.agent) < count {
            let length = self.stream.read(&mut buffer).unwrap_or_else(|error| {
                panic!("{error} after {:?}", String::from_utf8_lossy(&self.agent));
            });
            assert!(length > 0, "the server closed");
            let input = Bytes::copy_from_slice(&buffer[..length]);
            if let Err(error) = self.session.handle_input(Side::Upstream, input) {
                panic!("{error} after {:?}", String::from_utf8_lossy(&self.agent));
            }
            self.drain();
        }
        self.agent.clone()
    }
}

/// The process id in notifications differs between connections.
fn comparable(stream: &[u8]) -> Vec<(char, Vec<u8>)> {
    split(stream)
        .into_iter()
        .map(|(tag, body)| {
            (
                tag as char,
                if tag == b'A' {
                    body[4..].to_vec()
                } else {
                    body.to_vec()
                },
            )
        })
        .collect()
}

const SETUP: &str = "
    create table item (id int primary key, name text);
    insert into item select n, 'name ' || n from generate_series(1, 2000) n;
    create table ruled (id int);
    create rule r as on insert to ruled do also select * from item where id < 3;
    create table early (id int);
    create function boom() returns trigger language plpgsql as $$begin raise 'early'; end$$;
    create trigger t before insert on early for each statement execute function boom();
    create table parent (id int primary key);
    create table child (id int references parent deferrable initially deferred);
    create table copied (id int, name text)";

/// Conversations that leave nothing behind, and how often the server is ready in each.
fn conversations() -> Vec<(&'static str, Say, usize)> {
    let say = Say::new;
    let f = |oid: u32, arguments: &[&[u8]]| {
        let mut out = BytesMut::new();
        let arguments: Vec<_> = arguments.iter().map(|a| Some(*a)).collect();
        frontend::function_call(&mut out, oid, &[], &arguments, 0).unwrap();
        out.to_vec()
    };
    vec![
        ("simple", say().query("select 1; select * from item order by id; ; show timezone"), 1),
        ("empty", say().query("").query(";").query("-- nothing"), 3),
        ("rule that adds rows", say().query("begin; insert into ruled values (1); rollback"), 1),
        ("error in a block", say().query("begin").query("select 1/0").query("select 1").query("syntax").query("rollback"), 5),
        ("notice", say().query("do $$begin raise notice 'hello'; raise 'bye'; end$$").query("set application_name = 'x'; reset application_name"), 2),
        ("notify", say().query("listen c").query("notify c, 'payload'").query("unlisten c"), 3),
        (
            "extended",
            say()
                .parse("s", "select * from item where id < 6 order by 1")
                .describe(Kind::Statement, "s")
                .bind_values("p", "s", &[], &[1])
                .describe(Kind::Portal, "p")
                .execute("p", 2)
                .execute("p", 2)
                .execute("p", 2)
                .flush()
                .close(Kind::Portal, "p")
                .close(Kind::Statement, "s")
                .sync(),
            1,
        ),
        ("extended without rows", say().parse("", "select").bind("", "").describe(Kind::Portal, "").execute("", 0).parse("", "").bind("", "").describe(Kind::Portal, "").execute("", 0).sync(), 1),
        ("skip to sync", say().parse("", "syntax").bind("", "").query("select 1").execute("", 0).raw(&f(177, &[b"1", b"2"])).sync().query("select 2"), 2),
        ("pipelined transactions", say().parse("", "begin").bind("", "").execute("", 0).parse("", "select 1/0").bind("", "").execute("", 0).parse("", "select 1").sync().sync().query("rollback"), 3),
        ("query between extended messages", say().parse("a1", "select 1").query("select 2").bind("", "a1").execute("", 0).close(Kind::Statement, "a1").sync(), 2),
        ("deferred error at sync", say().parse("", "insert into child values (1)").bind("", "").execute("", 0).sync().query("select 1"), 2),
        ("function call", say().raw(&f(177, &[b"1", b"2"])).raw(&f(177, &[b"1", b"x"])).raw(&f(0, &[])), 3),
        ("binary cursor", say().query("begin; declare c binary cursor for select 1, 'x'::text").query("fetch 1 from c").execute("c", 0).sync().query("rollback"), 4),
        ("copy out", say().query("copy (select * from item order by id) to stdout").query("copy (select 1) to stdout (format binary); copy (select 2) to stdout (format csv)"), 2),
        ("copy out fails midway", say().query("copy (select 1/(5-id) from item where id < 9) to stdout").query("select 1"), 2),
        ("copy in", say().query("begin; copy copied from stdin; select count(*) from copied; rollback").copy_data(b"1\ta\n2\t").copy_data(b"b\n").copy_done(), 1),
        ("copy in bad data", say().query("copy copied from stdin").copy_data(b"x\ty\n").copy_done().query("select 1"), 2),
        ("copy in given up", say().query("copy copied from stdin").copy_data(b"1\ty\n").copy_fail().query("select 1"), 2),
        ("copy in of no table", say().query("copy nothing from stdin").copy_data(b"1\ty\n").copy_done().query("select 1"), 2),
        ("copy in, end marker", say().query("begin; copy copied from stdin; rollback").copy_data(b"1\ty\n\\.\n").copy_done().query("select 1"), 2),
        ("extended copy in", say().query("begin").parse("", "copy copied from stdin").bind("", "").execute("", 0).sync().flush().copy_data(b"1\ta\n").copy_done().sync().query("rollback"), 3),
        ("extended copy in bad data", say().parse("", "copy copied from stdin").bind("", "").execute("", 0).sync().copy_data(b"x\ta\n").copy_done().sync().query("select 1"), 2),
        // The trigger fails before the server reads anything: it answers the early Sync.
        ("extended copy in fails early", say().parse("", "copy early from stdin").bind("", "").execute("", 0).sync().copy_data(b"1\n").copy_done().sync().query("select 1"), 3),
        ("two copies in", say().query("begin; copy copied from stdin; copy copied from stdin; rollback").copy_data(b"1\ta\n").copy_done().copy_data(b"2\ta\n").copy_done(), 1),
        ("copy data out of place", say().copy_data(b"x").copy_done().copy_fail().query("select 1").copy_done().sync(), 2),
        ("long pipeline", (0..3000).fold(say(), |say, n| say.parse("", if n == 1999 { "select 1/0" } else { "select 1" }).bind("", "").describe(Kind::Portal, "").execute("", 0)).sync(), 1),
        ("large row", say().query("select repeat('abcdefgh', 100000), 1"), 1),
    ]
}

fn unrefused_conversations_are_the_same(server: &Server) {
    let mut direct = server.connect();
    let mut through = Through::new(server.connect());
    for (name, say, count) in conversations() {
        let bytes = say.bytes();
        let mut writer = direct.try_clone().unwrap();
        let to_write = bytes.clone();
        let writing = std::thread::spawn(move || writer.write_all(&to_write).unwrap());
        let expected = read_until_ready(&mut direct, count);
        writing.join().unwrap();
        for cut in [1 << 20, 1000, 7] {
            if cut == 7 && bytes.len() + expected.len() > 100_000 {
                continue;
            }
            let seen = through.talk(&bytes, cut, count);
            assert_eq!(tags(&seen), tags(&expected), "{name} in pieces of {cut}");
            assert_eq!(
                comparable(&seen),
                comparable(&expected),
                "{name} in pieces of {cut}"
            );
            assert!(through.session.is_idle(), "{name}");
        }
    }
    assert_eq!(through.closed, None);
}

/// Says it, and afterwards asks a plain question: both sides must stand at the same place.
fn refused(through: &mut Through, say: Say, count: usize) -> (String, Vec<String>, String) {
    let bytes = say.query("select 'end'").bytes();
    let seen = through.talk(&bytes, 1 << 16, count + 1);
    let all = tags(&seen);
    let before = all
        .strip_suffix("TDCZ")
        .unwrap_or_else(|| panic!("{all} does not end as asked"));
    (before.to_owned(), sqlstates(&seen), statuses(&seen))
}

fn refusals_leave_both_sides_agreeing(server: &Server) {
    let mut t = Through::new(server.connect());
    let say = Say::new;
    let mut expect = |say: Say, count: usize, tags: &str, states: &[&str], status: &str| {
        let (seen, sqlstates, statuses) = refused(&mut t, say, count);
        assert_eq!(
            (seen.as_str(), &sqlstates[..], statuses.as_str()),
            (
                tags,
                &states.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..],
                status
            )
        );
        assert!(t.session.is_idle());
    };
    expect(say().query("drop table item"), 1, "EZ", &["42501"], "II");
    expect(
        say()
            .query("select 1")
            .query("drop table item")
            .query("select 2"),
        3,
        "TDCZEZTDCZ",
        &["42501"],
        "IIII",
    );
    // In a transaction: failed in the server too.
    expect(
        say()
            .query("begin")
            .query("drop table item")
            .query("select 1")
            .query("rollback"),
        4,
        "CZEZEZCZ",
        &["42501", "25P02"],
        "TEEII",
    );
    // In a failed transaction a refusal still reads as one.
    expect(
        say()
            .query("begin")
            .query("select 1/0")
            .query("drop x")
            .query("rollback"),
        4,
        "CZEZEZCZ",
        &["22012", "42501"],
        "TEEII",
    );
    // In the middle of a pipeline: everything up to the Sync is skipped, as in the server.
    expect(
        say()
            .parse("", "select 1")
            .bind("", "")
            .execute("", 0)
            .parse("", "drop table item")
            .bind("", "")
            .execute("", 0)
            .parse("", "select 2")
            .bind("", "")
            .execute("", 0)
            .query("select 3")
            .sync()
            .parse("", "select 4")
            .bind("", "")
            .execute("", 0)
            .sync(),
        2,
        "12DCEZ12DCZ",
        &["42501"],
        "III",
    );
    // Behind an error the refused message is skipped, and its words are never read.
    expect(
        say()
            .parse("", "syntax")
            .parse("", "drop x")
            .bind("drop", "drop")
            .sync(),
        1,
        "EZ",
        &["42601"],
        "II",
    );
    expect(
        say()
            .parse("", "syntax")
            .query("drop x")
            .sync()
            .query("drop y"),
        2,
        "EZEZ",
        &["42601", "42501"],
        "III",
    );
    // An unnamed statement: gone after its own faulty Parse and after any Query, as the server
    // has it; not after a Parse of another name or a Bind.
    expect(
        say()
            .parse("", "select 1")
            .parse("", "drop x")
            .sync()
            .bind("", "")
            .sync(),
        2,
        "1EZEZ",
        &["42501", "26000"],
        "III",
    );
    expect(
        say()
            .parse("", "select 1")
            .sync()
            .query("drop x")
            .bind("", "")
            .sync(),
        3,
        "1ZEZEZ",
        &["42501", "26000"],
        "IIII",
    );
    expect(
        say()
            .parse("", "select 1")
            .parse("n", "drop x")
            .sync()
            .bind("", "")
            .execute("", 0)
            .sync(),
        2,
        "1EZ2DCZ",
        &["42501"],
        "III",
    );
    // A refused named Parse leaves nothing under its name.
    expect(
        say().parse("n", "drop x").sync().bind("", "n").sync(),
        2,
        "EZEZ",
        &["42501", "26000"],
        "III",
    );
    // A refused Bind.
    expect(
        say()
            .parse("drop1", "select 1")
            .bind("", "drop1")
            .execute("", 0)
            .sync()
            .close(Kind::Statement, "drop1")
            .sync(),
        2,
        "1EZ3Z",
        &["42501"],
        "III",
    );
    // A refused Execute, of a portal that SQL declared.
    expect(
        say()
            .query("begin; declare drop_c cursor for select 1")
            .execute("drop_c", 0)
            .sync()
            .query("rollback"),
        3,
        "CCZEZCZ",
        &["42501"],
        "TEII",
    );
    // Names that the server would cut.
    let long = "n".repeat(70);
    expect(
        say()
            .parse(&long, "select 1")
            .sync()
            .bind("", &long[..63])
            .sync(),
        2,
        "EZEZ",
        &["42622", "26000"],
        "III",
    );
    // A function call, in a transaction.
    expect(
        say()
            .query("begin")
            .raw(&say().call(1598).bytes())
            .query("select 1")
            .query("rollback"),
        4,
        "CZEZEZCZ",
        &["42501", "25P02"],
        "TEEII",
    );
    // Data behind a refused COPY is ignored, as the server does after an error.
    expect(
        say()
            .query("drop; copy copied from stdin")
            .copy_data(b"1\tx\n")
            .copy_done(),
        1,
        "EZ",
        &["42501"],
        "II",
    );
    expect(
        say().query("select count(*) from item"),
        1,
        "TDCZ",
        &[],
        "II",
    );

    let answered: Vec<_> = t
        .events
        .iter()
        .filter(|e| matches!(e, Event::Answered { .. }))
        .collect();
    assert!(answered.len() > 40);
    let shown = format!("{:?}", t.agent);
    assert!(!shown.contains("portcullis_"));
}

fn secrets_of_a_real_server_are_masked(server: &Server) {
    let mut t = Through::new(server.connect());
    let say = Say::new()
        .query("select 'a SECRET' as \"SECRET\", array['SECRET', 'b'], json_build_object('k', 'SECRET')")
        .query("do $$begin raise notice 'SECRET'; raise 'SECRET' using detail = 'SECRET', hint = 'SECRET'; end$$")
        .query("select 'SECRET'::int")
        .query("copy (select 'SECRET') to stdout")
        .query("copy (select 'SECRET'::text) to stdout (format binary)")
        .query("set application_name = 'SECRET'; listen s; notify s, 'SECRET'")
        .parse("", "select 'SECRET'::text, array['SECRET'], now()")
        .bind_values("", "", &[], &[1])
        .describe(Kind::Portal, "")
        .execute("", 0)
        .sync();
    let seen = t.talk(&say.bytes(), 1 << 16, 7);
    assert!(
        !seen.windows(6).any(|window| window == b"SECRET"),
        "{}",
        String::from_utf8_lossy(&seen)
    );
    assert!(tags(&seen).ends_with("12TDCZ"), "{}", tags(&seen));
    let (_, json_row) = split(&seen)[1];
    assert!(String::from_utf8_lossy(json_row).contains("{\"k\" : \"[masked:toy]\"}"));
}

#[test]
fn a_session_in_front_of_a_real_server_is_true() {
    let server = Server::start();
    let mut setup = server.connect();
    setup.write_all(&Say::new().query(SETUP).bytes()).unwrap();
    assert_eq!(sqlstates(&read_until_ready(&mut setup, 1)), [""; 0]);
    unrefused_conversations_are_the_same(&server);
    refusals_leave_both_sides_agreeing(&server);
    secrets_of_a_real_server_are_masked(&server);
}
