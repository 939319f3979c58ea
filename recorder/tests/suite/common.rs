//! Samples and helpers that the tests share.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use portcullis_recorder::*;

/// Longer than anything here takes; only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn id(byte: u8) -> SessionId {
    SessionId::from_bytes([byte; 16])
}

/// A folder that the recorder makes itself.
pub struct Folder {
    _parent: tempfile::TempDir,
    pub dir: PathBuf,
}

pub fn folder() -> Folder {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let dir = parent.path().join("record");
    Folder {
        _parent: parent,
        dir,
    }
}

/// Small segments and rings, commits soon.
pub fn small(dir: &Path, shards: usize) -> Config {
    Config {
        segment_bytes_max: 4096,
        total_bytes_max: 1 << 30,
        group_commit_ms: 1,
        ring_entries: 1024,
        ring_bytes_max: 1 << 20,
        ..Config::new(dir, shards)
    }
}

pub fn nobody() -> Durable {
    Box::new(|_, _| {})
}

/// A `Durable` that sends what it is told.
pub fn listener() -> (Durable, Receiver<(usize, u64)>) {
    let (sender, receiver) = channel();
    let durable: Durable = Box::new(move |shard, sequence| {
        let _ = sender.send((shard, sequence));
    });
    (durable, receiver)
}

pub fn await_durable(receiver: &Receiver<(usize, u64)>, shard: usize, sequence: u64) {
    loop {
        let (s, n) = receiver
            .recv_timeout(PATIENCE)
            .expect("the record becomes durable");
        if s == shard && n >= sequence {
            return;
        }
    }
}

pub fn ruling() -> Ruling {
    Ruling {
        action: ActionCode::Allow,
        rule: "reads".into(),
        reason: "plain read".into(),
        policy_version: "5f0c".into(),
        approval: None,
    }
}

pub fn start() -> Body {
    Body::SessionStart {
        protocol: "postgres".into(),
        principal: "alice".into(),
        issuer: "https://issuer.example".into(),
        on_behalf_of: Some("bob".into()),
        role: "reader".into(),
        target: "orders".into(),
        database: "shop".into(),
        account: "app".into(),
        source: "127.0.0.1:5000".into(),
        tls: true,
        policy_version: "5f0c".into(),
        application: "psql".into(),
        mode: "async".into(),
    }
}

pub fn request(unit: u64, text: &str) -> Body {
    Body::Request {
        unit,
        kind: "query".into(),
        name: b"stmt".to_vec(),
        text_masked: text.as_bytes().to_vec(),
        text_length: text.len() as u64,
        digest: [unit as u8; 32],
        binds_masked: vec![Some(b"1".to_vec()), None, Some(Vec::new())],
        truncated: false,
        decision: Some(ruling()),
    }
}

pub fn outcome(unit: u64) -> Body {
    Body::Outcome {
        unit,
        outcome: OutcomeCode::Completed {
            tag: "SELECT 3".into(),
        },
        rows: 3,
        bytes: 99,
        masked: vec![("aws_access_key".into(), 2)],
        data_masked: b"[masked:aws_access_key]".to_vec(),
        truncated: true,
    }
}

pub fn event(detail: &[u8]) -> Body {
    Body::Event {
        name: "test".into(),
        detail_masked: detail.to_vec(),
    }
}

pub fn end() -> Body {
    Body::SessionEnd {
        reason: "agent closed".into(),
        requests: 1,
        denied: 0,
        bytes_down: 99,
        bytes_up: 20,
    }
}

/// One of each body, and of each code within them.
pub fn every_body() -> Vec<Body> {
    let mut bodies = vec![
        start(),
        request(1, "select 1"),
        outcome(1),
        event(b"x"),
        end(),
        Body::Rows {
            unit: 2,
            data_masked: vec![0, 255],
            truncated: true,
        },
        Body::CopyIn {
            unit: 2,
            data_masked: vec![1],
            truncated: false,
        },
        Body::Notice {
            unit: 0,
            sqlstate: "00000".into(),
            text_masked: b"hello".to_vec(),
        },
        Body::Notification {
            channel_masked: b"c".to_vec(),
            payload_masked: Vec::new(),
        },
        Body::Cancel {
            unit: 3,
            source: "[::1]:9".into(),
            accepted: true,
        },
    ];
    for action in [
        ActionCode::Allow,
        ActionCode::Deny,
        ActionCode::Approve,
        ActionCode::Alert,
    ] {
        bodies.push(Body::Decision {
            unit: 4,
            ruling: Ruling {
                action,
                approval: Some("ap1".into()),
                ..ruling()
            },
        });
    }
    for state in [
        ApprovalState::Requested,
        ApprovalState::Granted,
        ApprovalState::Denied,
        ApprovalState::Expired,
        ApprovalState::Spent,
        ApprovalState::Abandoned,
    ] {
        bodies.push(Body::Approval {
            unit: 4,
            approval: "ap1".into(),
            state,
            by: "carol".into(),
            reason: String::new(),
        });
    }
    for outcome in [
        OutcomeCode::Failed {
            sqlstate: "42601".into(),
        },
        OutcomeCode::Skipped,
        OutcomeCode::Suspended,
        OutcomeCode::Refused {
            sqlstate: "42501".into(),
        },
        OutcomeCode::Unknown,
    ] {
        bodies.push(Body::Outcome {
            unit: 5,
            outcome,
            rows: 0,
            bytes: u64::MAX,
            masked: Vec::new(),
            data_masked: Vec::new(),
            truncated: false,
        });
    }
    for fault in [
        Fault::Agent,
        Fault::Target,
        Fault::Policy,
        Fault::Gateway,
        Fault::Resource,
    ] {
        bodies.push(Body::Error {
            unit: 0,
            fault,
            code: "08006".into(),
            text_masked: b"gone".to_vec(),
        });
    }
    bodies
}

pub fn every_writer_body() -> Vec<WriterBody> {
    vec![
        WriterBody::Started {
            version: "0.1.0".into(),
            shards: 2,
        },
        WriterBody::Torn {
            segment: 3,
            kept_bytes: 4,
            torn_bytes: 5,
            digest: [6; 32],
        },
        WriterBody::Deleted {
            segment: 1,
            bytes: 2,
            records: 3,
            segment_hash: [4; 32],
            next_position: 5,
        },
        WriterBody::Closed { rotated: true },
        WriterBody::Closed { rotated: false },
    ]
}

/// Two sessions of some records each on two shards, over three segments or more when `padding` is
/// some kilobytes; closed in order.
pub fn write_archive(dir: &Path, padding: usize) {
    let recorder = Recorder::start(small(dir, 2), nobody()).expect("the recorder starts");
    for shard in 0..2 {
        let mut producer = recorder.producer(shard);
        let session = id(shard as u8 + 1);
        let text = format!("select '{}'", "x".repeat(padding));
        for body in [start(), request(1, &text), outcome(1), end()] {
            producer
                .append(session, 1_000_000 + shard as u64, &body)
                .expect("it is taken");
        }
    }
    recorder.stop().expect("it stops");
}

/// The segments of a folder, in order.
pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "seg"))
        .collect();
    paths.sort();
    paths
}

/// The frames of a segment's bytes, as ranges.
pub fn frames(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let mut offset = HEADER_BYTES;
    while offset < bytes.len() {
        let size = decode_frame(&bytes[offset..]).expect("a whole frame").size;
        ranges.push(offset..offset + size);
        offset += size;
    }
    ranges
}
