//! What is on disk when the process is killed outright.

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{START_MS, hold, request};
use portcullis_control::{
    ApprovalStateName, Client, Control, ControlConfig, ControlListen, HoldAnswer, HoldNotice, Hooks,
};

const FOLDER: &str = "PORTCULLIS_CONTROL_KILL_TEST";

fn config(folder: PathBuf) -> ControlConfig {
    ControlConfig::new(
        folder.join("control.sqlite"),
        ControlListen::Unix(folder.join("s")),
        folder.join("admin-token"),
    )
}

fn hooks() -> Hooks {
    Hooks {
        clock: std::sync::Arc::new(|| START_MS),
        ..Hooks::default()
    }
}

/// The process that is killed: asks for three approvals, says so, waits.
fn child(folder: PathBuf) -> ! {
    let (_control, handle) = Control::start(config(folder), hooks()).unwrap();
    let waits: Vec<_> = (1..=3)
        .map(|what| {
            let waiting = hold(&handle, request("agent", what));
            waiting.notice();
            println!("asked {}", waiting.id());
            waiting
        })
        .collect();
    let answer = waits[0].answer();
    println!("answered {}", matches!(answer, HoldAnswer::Granted { .. }));
    loop {
        std::thread::park();
    }
}

#[test]
fn a_killed_process_loses_no_request_and_no_spent_grant() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        child(folder.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_killed_process_loses_no_request_and_no_spent_grant",
            "--nocapture",
        ])
        .env(FOLDER, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line_with = |word: &str| {
        let found = lines.by_ref().map(Result::unwrap).find_map(|line| {
            line.split_once(word)
                .map(|(_, rest)| rest.trim().to_owned())
        });
        found.unwrap_or_else(|| panic!("no line with {word}"))
    };
    let ids: Vec<_> = (0..3).map(|_| line_with("asked ")).collect();
    let config = config(folder.path().to_owned());
    let client = Client::new(config.listen.clone(), &config.admin_token_file).unwrap();
    client.approve(&ids[0], "carol", "ok").unwrap();
    assert_eq!(line_with("answered "), "true");
    client.deny(&ids[2], "carol", "no").unwrap();
    child.kill().unwrap();
    child.wait().unwrap();

    let (_control, handle) = Control::start(config, hooks()).unwrap();
    let states: Vec<_> = ids
        .iter()
        .map(|id| client.approval(id).unwrap().state)
        .collect();
    use ApprovalStateName::{Denied, Pending, Spent};
    assert_eq!(states, [Spent, Pending, Denied]);
    // What was spent asks anew; what was asked is met; what was denied cools.
    let spent = hold(&handle, request("agent", 1));
    assert!(matches!(
        spent.notice(),
        HoldNotice::Asked { joined: false, .. }
    ));
    let pending = hold(&handle, request("agent", 2));
    assert_eq!(pending.id(), ids[1]);
    assert!(matches!(
        pending.notice(),
        HoldNotice::Asked { joined: true, .. }
    ));
    let denied = hold(&handle, request("agent", 3));
    assert!(matches!(denied.answer(), HoldAnswer::CoolingDown { .. }));
    client.approve(&ids[1], "carol", "").unwrap();
    assert!(matches!(pending.answer(), HoldAnswer::Granted { .. }));
}
