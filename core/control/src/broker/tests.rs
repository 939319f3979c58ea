//! A store that fails: nothing passes, and nothing is said that is not kept.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::hold::{HoldRequest, WaitState};

const NOW_MS: u64 = 1_800_000_000_000;

const BREAK: &str = "ALTER TABLE audit RENAME TO audit_away";
const MEND: &str = "ALTER TABLE audit_away RENAME TO audit";

fn with_broker<F: AsyncFnOnce(Broker, Arc<Mutex<Vec<ApprovalEventKind>>>)>(test: F) {
    let folder = tempfile::tempdir().unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let events = Arc::clone(&told);
    let hooks = Hooks {
        clock: Arc::new(|| NOW_MS),
        on_event: Arc::new(move |event| events.lock().unwrap().push(event.kind.clone())),
        ..Hooks::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let path = folder.path().join("store");
    runtime.block_on(async {
        let broker = open(
            &path,
            ControlLimits::default(),
            hooks,
            Arc::default(),
            Hints::default(),
        );
        test(broker.await.unwrap(), told).await;
    });
}

fn hold(wait: u64) -> (Hold, Receiver<HoldAnswer>) {
    let (send, receive) = channel();
    let request = HoldRequest {
        digest: [1; 32],
        session: format!("s{wait}"),
        principal_issuer: "i".into(),
        principal_subject: "agent".into(),
        on_behalf_of: None,
        role: String::new(),
        target: String::new(),
        database: String::new(),
        account: String::new(),
        policy_version: String::new(),
        rule: String::new(),
        text: b"DELETE FROM t".to_vec(),
        binds: Vec::new(),
        state: Vec::new(),
        in_transaction: false,
        wait_deadline_unix_ms: NOW_MS + 1000,
        reuse: true,
    };
    let hold = Hold {
        wait,
        request,
        state: Arc::new(WaitState::new(format!("ap_{wait}"))),
        notice: Box::new(|_| {}),
        answer: Box::new(move |with| send.send(with).unwrap()),
    };
    (hold, receive)
}

fn is_unavailable(answers: &Receiver<HoldAnswer>) -> bool {
    matches!(answers.try_recv(), Ok(HoldAnswer::Unavailable { .. }))
}

#[test]
fn a_request_that_cannot_be_kept_is_refused() {
    with_broker(async |mut broker, told| {
        broker.store.run_for_test(BREAK).await;
        let (first, answers) = hold(1);
        broker.hold(first).await;
        assert!(is_unavailable(&answers));
        assert!(broker.pending.is_empty() && told.lock().unwrap().is_empty());
        assert!(broker.hints.lock().unwrap().is_empty());
        // Half of it was undone: the same request can be put on file after.
        broker.store.run_for_test(MEND).await;
        let (second, answers) = hold(2);
        broker.hold(second).await;
        assert!(answers.try_recv().is_err());
        assert_eq!(broker.pending.len(), 1);
    });
}

#[test]
fn an_answer_that_cannot_be_kept_is_none() {
    with_broker(async |mut broker, told| {
        let (waiting, answers) = hold(1);
        broker.hold(waiting).await;
        broker.store.run_for_test(BREAK).await;
        let before = told.lock().unwrap().clone();
        let refused = broker.approve("ap_1", "carol", "").await.unwrap_err();
        assert_eq!(refused, Refusal::Store);
        let refused = broker.deny("ap_1", "carol", "").await.unwrap_err();
        assert_eq!(refused, Refusal::Store);
        assert!(answers.try_recv().is_err(), "it waits on");
        assert_eq!(*told.lock().unwrap(), before);
        broker.store.run_for_test(MEND).await;
        let (found, waiting) = broker.find("ap_1").await.unwrap();
        assert_eq!((found.state, waiting), (ApprovalState::Pending, 1));
        broker.approve("ap_1", "carol", "").await.unwrap();
        assert!(matches!(answers.try_recv(), Ok(HoldAnswer::Granted { .. })));
    });
}

#[test]
fn a_grant_that_cannot_be_spent_runs_nothing_and_stays() {
    with_broker(async |mut broker, told| {
        let (gone, _) = hold(1);
        let state = Arc::clone(&gone.state);
        broker.hold(gone).await;
        assert!(state.claim(), "it gives up");
        broker.approve("ap_1", "carol", "").await.unwrap();
        broker.store.run_for_test(BREAK).await;
        let (second, answers) = hold(2);
        broker.hold(second).await;
        assert!(is_unavailable(&answers));
        assert!(!told.lock().unwrap().contains(&ApprovalEventKind::Spent));
        broker.store.run_for_test(MEND).await;
        let (third, answers) = hold(3);
        broker.hold(third).await;
        assert!(matches!(answers.try_recv(), Ok(HoldAnswer::Granted { .. })));
        let (fourth, answers) = hold(4);
        broker.hold(fourth).await;
        assert!(answers.try_recv().is_err(), "spent: it asks anew");
    });
}

#[test]
fn a_token_that_cannot_be_kept_is_not_in_force() {
    with_broker(async |mut broker, _| {
        let minted = broker.mint("kept".into(), Vec::new(), 60, "carol").await;
        let (kept, _) = minted.unwrap();
        broker.store.run_for_test(BREAK).await;
        let refused = broker.mint("agent".into(), Vec::new(), 60, "carol").await;
        assert_eq!(refused.unwrap_err(), Refusal::Store);
        assert_eq!(broker.tokens.snapshot().len(), 1);
        let refused = broker.revoke(&kept.id, "carol").await;
        assert_eq!(refused.unwrap_err(), Refusal::Store);
        // Said to have failed, since a restart would undo it; in force all the
        // same until then.
        let status = |broker: &Broker| broker.tokens.snapshot().status(&kept.id, NOW_MS / 1000);
        assert_eq!(status(&broker), identity::TokenStatus::Revoked);
        broker.store.run_for_test(MEND).await;
        broker.revoke(&kept.id, "carol").await.unwrap();
        broker.publish_tokens().await.unwrap();
        assert_eq!(status(&broker), identity::TokenStatus::Revoked);
    });
}
