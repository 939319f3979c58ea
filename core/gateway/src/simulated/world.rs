//! The world of one test: a real control plane in a temporary folder, and for
//! each run a simulated shard, a simulated target and a real recorder.
//!
//! Two things run on real threads, which know nothing of virtual time: the record
//! writer and the control plane. Virtual time stands still while the gateway waits
//! for the writer (see [`pace`]), and while a human's answer is on its way (see
//! [`World::answer`]); so neither can be overtaken by a timer, and a run follows
//! from its seed.

use super::model::{Model, SECRET};
use super::script::{Human, Script};
use crate::config::{self, Config};
use crate::pg;
use crate::serve::limits::{Asked, TargetPlaces};
use crate::serve::live::{Live, Secrets};
use crate::serve::shard::Shard;
use crate::serve::shared::{Parts, Shared};
use crate::serve::{control_config, recorder_config};
use bytes::{Bytes, BytesMut};
use control::{Client, Control, ControlHandle, Hooks, MintBody};
use engine::sim::SimConfig;
use engine::{Conn, ListenOptions, Listener, Notify, Writer};
use masking::RuleSet;
use postgres::startup::StartupPacket;
use postgres::wire::backend;
use recorder::{ActionCode, Archive, Body, Recorder, SessionId};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Where the gateway listens: on loopback, since tokens come in the clear.
pub const GATEWAY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6432);
/// Where the target listens.
const TARGET: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), 5432);
/// The simulation's wall clock at its start, in Unix milliseconds.
const CLOCK_MS: u64 = 1_767_225_600_000;
/// Real time after which a test says that a thread does not answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Virtual time between two looks at the record.
const PACE: Duration = Duration::from_micros(500);
/// Seconds that a held statement waits, outside and inside a transaction.
pub const WAIT_S: (u64, u64) = (20, 5);
/// The login's deadline.
pub const LOGIN_MS: u64 = 15_000;
/// What stands between the texts that a held name may stand for.
const ALTERNATIVE: &str = "\n-- or, if an earlier Parse has failed:\n";
/// Subject of the agents.
const SUBJECT: &str = "ada";

const CONFIG: &str = r#"
[gateway]
data_dir = "data"
login_ms = 15000
[control]
address = "unix:s"
[recorder]
mode = "async"
group_commit_ms = 1
[approvals]
wait_s = 20
wait_in_transaction_s = 5
pending_per_principal_max = 10000
cool_down_s = 0
[[listeners]]
name = "agents"
address = "127.0.0.1:6432"
[[targets]]
name = "vault"
hosts = ["127.0.0.2:5432"]
tls = "off"
account = "keeper"
password = { file = "secret" }
[[roles]]
name = "agents"
groups = ["agents"]
targets = ["vault"]
default = "deny"
[[roles.rules]]
name = "work"
action = "allow"
statements = ["read", "insert", "transaction", "update"]
[[roles.rules]]
name = "whole-tables"
action = "approve"
statements = ["update"]
where_present = false
[[roles.rules]]
name = "no-dropping"
action = "deny"
statements = ["drop_table", "truncate"]
"#;

/// What all runs of one test share.
pub struct World {
    folder: tempfile::TempDir,
    _control: Control,
    handle: ControlHandle,
    client: Client,
    /// A gateway token of the role's group.
    pub token: String,
    /// The compiled masks, and the generation of secrets that they cover.
    pub rules: (Arc<RuleSet>, u64),
}

impl World {
    /// Starts a control plane and mints a token.
    pub fn new() -> World {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("secret"), SECRET).expect("written");
        std::fs::create_dir(folder.path().join("data")).expect("made");
        let config = load(folder.path());
        let hooks = Hooks {
            // A clock that stands still: only the gateway's own timers end a wait.
            clock: Arc::new(|| CLOCK_MS),
            ..Hooks::default()
        };
        let (control, handle) = Control::start(control_config(&config), hooks).expect("started");
        let client = Client::new(control.listens().clone(), &config.control.admin_token_file);
        let client = client.expect("the token is there");
        let minted = client.mint(&MintBody {
            subject: SUBJECT.into(),
            groups: vec!["agents".into()],
            ttl_s: 86_400,
            by: "test".into(),
        });
        let secrets = Secrets::default();
        secrets.learn_all(&config).expect("secrets are there");
        World {
            rules: secrets.compile(&config, [7; 32]).expect("compiles"),
            token: minted.expect("minted").token.clone(),
            _control: control,
            handle,
            client,
            folder,
        }
    }

    /// Runs `agents` in a simulation with a gateway and a target, waits until
    /// nothing is left of them, checks what must hold after every run, and gives
    /// the record.
    pub fn run<Fut: Future<Output = ()>>(
        &self,
        sim: SimConfig,
        agents: impl FnOnce(Rc<Shard>, Rc<Target>) -> Fut,
    ) -> Evidence {
        let memory = std::path::Path::new("/dev/shm");
        let parent = if memory.is_dir() {
            memory
        } else {
            self.folder.path()
        };
        let dir = tempfile::tempdir_in(parent).expect("a temporary folder");
        let mut config = load(self.folder.path());
        config.recorder.dir = dir.path().join("record");
        let committed = Arc::new((Mutex::new(0u64), Condvar::new()));
        let told = committed.clone();
        let durable = Box::new(move |_, up_to| {
            *told.0.lock().expect("whole") = up_to;
            told.1.notify_all();
        });
        let mut at_once = recorder_config(&config);
        at_once.group_commit_ms = 0;
        let recorder = Recorder::start(at_once, durable).expect("recorder");
        let recorder = Arc::new(recorder);
        let record_dir = config.recorder.dir.clone();
        let live = Live::build(config).expect("in force");
        let secrets = Secrets::default();
        secrets.learn_all(&live.config).expect("secrets are there");
        let parts = Parts {
            verifier: live.verifier(self.handle.token_store()).expect("verifier"),
            live,
            rules: self.rules.clone(),
            secrets,
            tag_key: [7; 32],
            control: self.handle.clone(),
            recorder: recorder.clone(),
        };
        let shared = Shared::new(parts, vec![Arc::default()]);
        let seed = sim.seed;
        let target = engine::sim::run(sim, || async {
            let shard = Shard::start(0, shared.clone(), recorder.producer(0)).expect("shard");
            let target = Rc::new(Target::default());
            let listen = |address| Listener::bind(address, ListenOptions::default()).expect("free");
            engine::spawn(accept(shard.clone(), listen(GATEWAY))).detach();
            engine::spawn(serve_target(target.clone(), listen(TARGET))).detach();
            engine::spawn(pace(shard.clone(), committed)).detach();
            agents(shard.clone(), target.clone()).await;
            settle(&shard, seed).await;
            Shard::end();
            target
        });
        nothing_left(&shared, seed);
        drop(shared);
        let recorder = Arc::try_unwrap(recorder);
        let recorder = recorder.unwrap_or_else(|_| panic!("record still in use, seed {seed}"));
        recorder.stop().expect("the record ends well");
        let target =
            Rc::try_unwrap(target).unwrap_or_else(|_| panic!("target in use, seed {seed}"));
        let evidence = Evidence::read(&record_dir, seed);
        evidence.holds(&target, seed);
        evidence
    }

    /// Gives a human's answer to a held statement; returns once the gateway has it.
    pub async fn answer(&self, shard: &Shard, target: &Target, notice: &str, script: &Script) {
        let id = notice.split(' ').find(|word| word.starts_with("ap_"));
        let id = id.expect("the notice names the approval");
        let began = Instant::now();
        let asked = loop {
            match self.client.approval(id) {
                Ok(asked) => break asked,
                Err(error) => assert!(began.elapsed() < PATIENCE, "never on file: {error}"),
            }
        };
        // A name may stand for several texts until the server has answered; what was
        // defined last is what will run. Where that needs no approval by itself (the
        // hold is for a text that the name may still have), the human says yes.
        let shown = asked.text.text.split(ALTERNATIVE);
        let text = shown.last().unwrap_or_default().to_string();
        let human = script.held.get(&text).copied();
        if human.is_some() && target.asked.borrow_mut().insert(text.clone()) {
            assert!(!target.ran.borrow().contains(&text), "ran unasked: {text}");
        }
        let human = human.unwrap_or(Human::Approves);
        let answered = match human {
            Human::Sleeps => return,
            Human::Approves => self.client.approve(id, "grace", "fine"),
            Human::Denies => self.client.deny(id, "grace", "no"),
        };
        if answered.is_err() {
            return;
        }
        // Other tasks run, timers do not: a ready task keeps virtual time where it is.
        let waits = || {
            shard
                .sessions()
                .iter()
                .any(|s| s.id.to_string() == asked.session && s.is_held())
        };
        while waits() {
            assert!(began.elapsed() < PATIENCE, "the answer does not come");
            engine::yield_now().await;
        }
    }
}

fn load(base: &std::path::Path) -> Config {
    let text = CONFIG.replace("unix:s", &format!("unix:{}", base.join("s").display()));
    config::parse(&text, "sim.toml", base).unwrap_or_else(|e| panic!("{e}"))
}

/// The accept loop. Agents come from loopback as far as the gateway can see: it
/// takes tokens in the clear from nowhere else, and the simulated network has one
/// address for all who dial.
async fn accept(shard: Rc<Shard>, listener: Listener) {
    while let Ok((conn, peer)) = listener.accept().await {
        let peer = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), peer.port());
        engine::spawn(pg::serve(shard.clone(), 0, conn, peer)).detach();
    }
}

/// Waits, in real time, for the record's writer whenever something was appended, so
/// that virtual time does not run away while the gateway waits for the disk.
async fn pace(shard: Rc<Shard>, committed: Arc<(Mutex<u64>, Condvar)>) {
    let mut before = 0;
    loop {
        engine::sleep_until(engine::now().after(PACE)).await;
        let began = Instant::now();
        while shard.sessions().iter().any(|s| s.awaits_control()) {
            assert!(
                began.elapsed() < PATIENCE,
                "the control plane does not answer"
            );
            engine::yield_now().await;
        }
        let appended = shard.appended();
        if appended == before {
            continue;
        }
        before = appended;
        let up_to = committed.0.lock().expect("whole");
        let behind = |up_to: &mut u64| *up_to < appended;
        let waited = committed.1.wait_timeout_while(up_to, PATIENCE, behind);
        let (up_to, late) = waited.expect("whole");
        assert!(!late.timed_out(), "the record's writer does not commit");
        let up_to = *up_to;
        shard.record_committed(up_to);
    }
}

/// Sessions and connections go once their agents have gone.
async fn settle(shard: &Rc<Shard>, seed: u64) {
    let until = engine::now().after(Duration::from_secs(120));
    while !shard.sessions().is_empty() || shard.shared.admission.connections() > 0 {
        let left = shard.sessions().len();
        assert!(engine::now() < until, "{left} sessions stay, seed {seed}");
        engine::sleep_until(engine::now().after(Duration::from_millis(20))).await;
    }
}

fn nothing_left(shared: &Shared, seed: u64) {
    let (role, vault) = ("agents".to_string(), "vault".to_string());
    assert_eq!(
        shared.admission.connections(),
        0,
        "connections, seed {seed}"
    );
    assert_eq!(shared.cancels.len(), 0, "cancel keys, seed {seed}");
    assert_eq!(shared.roles.of(&role), 0, "places of the role, seed {seed}");
    for issuer in ["portcullis", ""] {
        let key = (vault.clone(), issuer.to_string(), SUBJECT.to_string());
        assert_eq!(
            shared.principals.of(&key),
            0,
            "places of the principal, seed {seed}"
        );
    }
    let places: TargetPlaces = shared.target_places(&vault);
    let asked = places.ask(1, 0, |_| ());
    assert!(
        matches!(asked, Asked::Place(_)),
        "places at the target, seed {seed}"
    );
}

/// What the target has seen and done, over all its connections.
#[derive(Default)]
pub struct Target {
    /// Every byte received.
    pub received: RefCell<Vec<u8>>,
    /// Texts that arrived.
    pub seen: RefCell<Vec<String>>,
    /// Binds that arrived.
    pub binds: Cell<usize>,
    /// Texts that were run.
    pub ran: RefCell<Vec<String>>,
    /// Held texts that a human was asked about.
    pub asked: RefCell<HashSet<String>>,
    /// Cancel requests with a right key, and with a wrong one.
    pub cancels: Cell<(usize, usize)>,
    /// Bytes handed to the network.
    pub sent: Cell<usize>,
    backends: RefCell<HashMap<u32, Rc<Backend>>>,
}

#[derive(Default)]
struct Backend {
    cancelled: Cell<bool>,
    told: Notify,
}

async fn serve_target(target: Rc<Target>, listener: Listener) {
    let mut process_id = 4000;
    while let Ok((conn, _)) = listener.accept().await {
        process_id += 1;
        engine::spawn(serve_backend(target.clone(), conn, process_id)).detach();
    }
}

async fn serve_backend(target: Rc<Target>, conn: Conn, process_id: u32) -> Option<()> {
    let (mut reader, writer) = conn.split();
    let mut opening = BytesMut::new();
    while opening.len() < 4 || opening.len() < length_of(&opening) {
        opening.extend_from_slice(&reader.recv().await.ok()?);
    }
    let rest = opening.split_off(length_of(&opening)).freeze();
    let opening = opening.freeze();
    match StartupPacket::decode(&opening.slice(4..)).expect("the gateway keeps to the protocol") {
        StartupPacket::Cancel(request) => {
            let (right, wrong) = target.cancels.get();
            let found = target.backends.borrow().get(&request.process_id).cloned();
            match found.filter(|_| request.secret_key == key_of(request.process_id)) {
                Some(backend) => {
                    target.cancels.set((right + 1, wrong));
                    backend.cancelled.set(true);
                    backend.told.notify_all();
                }
                None => target.cancels.set((right, wrong + 1)),
            }
            return None;
        }
        StartupPacket::Startup(_) => {}
        other => panic!("not asked for: {other:?}"),
    }
    let backend = Rc::new(Backend::default());
    target
        .backends
        .borrow_mut()
        .insert(process_id, backend.clone());
    writer.queue(welcome(process_id));
    let mut model = Model::new();
    let mut input = rest;
    loop {
        target.received.borrow_mut().extend_from_slice(&input);
        backend.cancelled.set(false);
        model.feed(input);
        loop {
            target.seen.borrow_mut().append(&mut model.seen);
            target.ran.borrow_mut().append(&mut model.ran);
            target
                .binds
                .set(target.binds.get() + std::mem::take(&mut model.binds));
            send(&target, &writer, &mut model.out).await?;
            if !model.sleeping {
                break;
            }
            let until = engine::now().after(Duration::from_secs(10));
            let told = backend.told.notified();
            if !backend.cancelled.get() {
                let _ = engine::deadline(until, told).await;
            }
            model.wake(backend.cancelled.take());
        }
        if model.ended {
            return None;
        }
        input = reader.recv().await.ok()?;
    }
}

/// Hands over what is to be sent, no faster than it leaves.
async fn send(target: &Target, writer: &Writer, out: &mut BytesMut) -> Option<()> {
    while !out.is_empty() {
        let part = out.split_to(out.len().min(16 * 1024)).freeze();
        target.sent.set(target.sent.get() + part.len());
        writer.queue(part);
        if writer.is_over_high_mark() {
            writer.drained().await.ok()?;
        }
    }
    Some(())
}

fn length_of(opening: &[u8]) -> usize {
    let length: [u8; 4] = opening[..4].try_into().expect("four bytes");
    u32::from_be_bytes(length) as usize
}

/// The real key of a backend, which no agent ever sees.
pub fn key_of(process_id: u32) -> Bytes {
    Bytes::copy_from_slice(&process_id.wrapping_mul(2_654_435_761).to_be_bytes())
}

fn welcome(process_id: u32) -> Bytes {
    let mut out = BytesMut::new();
    backend::authentication_ok(&mut out);
    for (name, value) in [
        ("server_version", "16.4"),
        ("client_encoding", "UTF8"),
        ("standard_conforming_strings", "on"),
    ] {
        backend::parameter_status(&mut out, name.as_bytes(), value.as_bytes()).expect("fits");
    }
    backend::backend_key_data(&mut out, process_id, &key_of(process_id)).expect("fits");
    backend::ready_for_query(&mut out, b'I');
    out.freeze()
}

/// The record of one run, read back.
pub struct Evidence {
    /// Texts of requests that were let through, of Query and Parse.
    pub texts: Vec<String>,
    /// Binds that were let through.
    pub binds: usize,
    /// Texts that were refused.
    pub refused: Vec<String>,
    /// Reasons of the ends.
    pub ends: Vec<String>,
}

impl Evidence {
    fn read(dir: &std::path::Path, seed: u64) -> Evidence {
        let report = recorder::verify_closed(dir).expect("readable");
        assert!(report.is_whole(), "{report:?}, seed {seed}");
        for file in std::fs::read_dir(dir).expect("readable").flatten() {
            let bytes = std::fs::read(file.path()).expect("readable");
            assert!(
                !holds_secret(&bytes),
                "the secret is in the record, seed {seed}"
            );
        }
        let archive = Archive::open(dir).expect("readable");
        let mut evidence = Evidence {
            texts: Vec::new(),
            binds: 0,
            refused: Vec::new(),
            ends: Vec::new(),
        };
        for summary in archive.sessions() {
            assert!(
                !summary.is_unfinished(),
                "a session without end, seed {seed}"
            );
            evidence.session(&archive, summary.session);
        }
        evidence
    }

    fn session(&mut self, archive: &Archive, session: SessionId) {
        let mut waiting = HashMap::new();
        for record in archive.session(session) {
            match record.expect("readable").body {
                Body::Request {
                    unit,
                    kind,
                    text_masked,
                    decision,
                    ..
                } => {
                    let text = String::from_utf8(text_masked).expect("text");
                    match decision {
                        Some(ruling) => self.decided(&kind, text, ruling.action),
                        None => drop(waiting.insert(unit, (kind, text))),
                    }
                }
                Body::Decision { unit, ruling } => {
                    let (kind, text) = waiting.remove(&unit).expect("its request comes first");
                    assert!(
                        ruling.approval.is_some(),
                        "decided late without an approval"
                    );
                    self.decided(&kind, text, ActionCode::Allow);
                }
                Body::SessionEnd { reason, .. } => self.ends.push(reason),
                _ => {}
            }
        }
        self.refused
            .extend(waiting.into_values().map(|(_, text)| text));
    }

    fn decided(&mut self, kind: &str, text: String, action: ActionCode) {
        match (action, kind) {
            (ActionCode::Deny, _) => self.refused.push(text),
            (_, "bind") => self.binds += 1,
            // A Parse is let through; what is held is its Bind.
            _ => self.texts.push(text),
        }
    }

    /// All that reached the target is on record as let through, and nothing that
    /// was refused reached it.
    fn holds(&self, target: &Target, seed: u64) {
        let mut recorded: HashMap<&str, usize> = HashMap::new();
        for text in &self.texts {
            *recorded.entry(text).or_default() += 1;
        }
        for text in target.seen.borrow().iter() {
            let left = recorded.get_mut(text.as_str()).filter(|n| **n > 0);
            *left.unwrap_or_else(|| panic!("not on record: {text}, seed {seed}")) -= 1;
        }
        let (binds, recorded) = (target.binds.get(), self.binds);
        assert!(
            binds <= recorded,
            "{binds} binds arrived, {recorded} on record, seed {seed}"
        );
        for word in [&b"drop table"[..], b"truncate"] {
            assert!(
                !contains(&target.received.borrow(), word),
                "a refused statement arrived, seed {seed}"
            );
        }
    }
}

/// Whether bytes hold the secret.
pub fn holds_secret(bytes: &[u8]) -> bool {
    contains(bytes, SECRET.as_bytes())
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}
