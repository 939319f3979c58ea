//! A control plane in a temporary folder, with a clock of its own.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_control::{
    ApprovalEvent, ApprovalEventKind, Client, Control, ControlConfig, ControlHandle, ControlListen,
    HealthCheck, HealthReport, HoldAnswer, HoldNotice, HoldRequest, HoldTicket, Hooks,
};

pub const START_MS: u64 = 1_800_000_000_000;

/// How long a test waits before it says that nothing came. No test waits it out
/// on success.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Plane {
    pub folder: tempfile::TempDir,
    pub config: ControlConfig,
    pub control: Option<Control>,
    pub handle: ControlHandle,
    pub clock: Arc<AtomicU64>,
    pub events: Arc<Mutex<Vec<ApprovalEvent>>>,
}

impl Plane {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut ControlConfig)) -> Self {
        // A blank and a percent sign: the store's URL must carry both.
        let folder = tempfile::Builder::new().prefix("pc 50%").tempdir().unwrap();
        let mut config = ControlConfig::new(
            folder.path().join("control.sqlite"),
            ControlListen::Unix(folder.path().join("s")),
            folder.path().join("admin-token"),
        );
        change(&mut config);
        let clock = Arc::new(AtomicU64::new(START_MS));
        let events = Arc::new(Mutex::new(Vec::new()));
        let (control, handle) = Control::start(config.clone(), hooks(&clock, &events)).unwrap();
        Self {
            folder,
            config,
            control: Some(control),
            handle,
            clock,
            events,
        }
    }

    /// Ends the control plane and starts it anew on the same store.
    pub fn restart(&mut self) {
        drop(self.control.take());
        let hooks = hooks(&self.clock, &self.events);
        let (control, handle) = Control::start(self.config.clone(), hooks).unwrap();
        self.control = Some(control);
        self.handle = handle;
    }

    pub fn listens(&self) -> ControlListen {
        self.control.as_ref().unwrap().listens().clone()
    }

    pub fn client(&self) -> Client {
        Client::new(self.listens(), &self.config.admin_token_file).unwrap()
    }

    pub fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    /// Sets the clock forward and lets the broker see it.
    pub fn pass(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
        self.client().health().unwrap();
    }

    pub fn hold(&self, request: HoldRequest) -> Waiting {
        hold(&self.handle, request)
    }

    /// Holds a request and waits until it is on file.
    pub fn ask(&self, request: HoldRequest) -> Waiting {
        let waiting = self.hold(request);
        match waiting.notice() {
            HoldNotice::Asked { approval_id, .. } => {
                assert_eq!(approval_id, waiting.id());
            }
            other => panic!("{other:?}"),
        }
        waiting
    }

    /// Returns once an event of this kind was told.
    pub fn until_told(&self, kind: &ApprovalEventKind) {
        let started = std::time::Instant::now();
        while !self.kinds().contains(kind) {
            assert!(started.elapsed() < PATIENCE, "{kind:?} was not told");
            // Takes its turn behind what is queued.
            self.client().health().unwrap();
        }
    }

    pub fn kinds(&self) -> Vec<ApprovalEventKind> {
        self.events
            .lock()
            .unwrap()
            .iter()
            .map(|event| event.kind.clone())
            .collect()
    }
}

fn hooks(clock: &Arc<AtomicU64>, events: &Arc<Mutex<Vec<ApprovalEvent>>>) -> Hooks {
    let (clock, events) = (Arc::clone(clock), Arc::clone(events));
    Hooks {
        metrics: Arc::new(|| "portcullis_up 1\n".to_owned()),
        health: Arc::new(|| HealthReport {
            checks: vec![HealthCheck {
                name: "recorder".into(),
                ok: true,
            }],
        }),
        on_event: Arc::new(move |event| events.lock().unwrap().push(event.clone())),
        clock: Arc::new(move || clock.load(Ordering::SeqCst)),
    }
}

pub struct Waiting {
    pub ticket: Option<HoldTicket>,
    pub answers: Receiver<HoldAnswer>,
    pub notices: Receiver<HoldNotice>,
}

pub fn hold(handle: &ControlHandle, request: HoldRequest) -> Waiting {
    let (answer, answers): (Sender<_>, _) = channel();
    let (notice, notices) = channel();
    let ticket = handle.hold_noticed(
        request,
        Box::new(move |told| notice.send(told).unwrap_or(())),
        Box::new(move |with| answer.send(with).unwrap_or(())),
    );
    Waiting {
        ticket: Some(ticket),
        answers,
        notices,
    }
}

impl Waiting {
    pub fn id(&self) -> String {
        self.ticket.as_ref().unwrap().approval_id()
    }

    pub fn answer(&self) -> HoldAnswer {
        self.answers.recv_timeout(PATIENCE).expect("no answer came")
    }

    pub fn notice(&self) -> HoldNotice {
        self.notices.recv_timeout(PATIENCE).expect("no notice came")
    }

    pub fn has_no_answer(&self) -> bool {
        self.answers.try_recv().is_err()
    }
}

/// A request of `subject`; `what` makes its digest.
pub fn request(subject: &str, what: u8) -> HoldRequest {
    HoldRequest {
        digest: [what; 32],
        session: format!("session-of-{subject}"),
        principal_issuer: "https://issuer.example".into(),
        principal_subject: subject.into(),
        on_behalf_of: None,
        role: "etl".into(),
        target: "orders".into(),
        database: "orders".into(),
        account: "app".into(),
        policy_version: "v1".into(),
        rule: "update-without-where".into(),
        text: format!("UPDATE t SET a = {what}").into_bytes(),
        binds: vec![Some(b"1".to_vec()), None],
        state: vec![("search_path".into(), "public".into())],
        in_transaction: false,
        wait_deadline_unix_ms: START_MS + 600_000,
        reuse: true,
    }
}

pub fn store_files(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|found| {
            found
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(name)
        })
        .collect()
}
