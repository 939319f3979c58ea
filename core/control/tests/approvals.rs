//! Approvals over the real socket: asked, answered, spent once, kept.

mod common;

use common::{PATIENCE, Plane, START_MS, hold, request};
use portcullis_control::{
    AbandonReason, ApprovalEventKind, ApprovalStateName, ClientError, HoldAnswer, HoldNotice,
    HoldRequest,
};

#[test]
fn an_approved_request_runs_once_and_is_on_file_before() {
    let plane = Plane::new();
    let waiting = plane.ask(request("agent", 1));
    let client = plane.client();
    let listed = client.approvals(true).unwrap().approvals;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id, waiting.id());
    assert_eq!((listed[0].waiting, listed[0].bind_count), (1, 2));
    let shown = client.approval(&waiting.id()).unwrap();
    assert_eq!(shown.text.bytes().unwrap(), request("agent", 1).text);
    assert_eq!(shown.binds[0].as_ref().unwrap().text, "1");
    assert_eq!(shown.binds[1], None);
    assert_eq!(shown.digest, "01".repeat(32));
    assert_eq!(shown.session_state[0].name, "search_path");
    assert!(waiting.has_no_answer());

    let answered = client.approve(&waiting.id(), "carol", "planned").unwrap();
    assert_eq!(answered.state, ApprovalStateName::Spent);
    assert_eq!(answered.spent_session, "session-of-agent");
    let granted = HoldAnswer::Granted {
        approval_id: answered.id.clone(),
        by: "carol".into(),
        reason: "planned".into(),
    };
    assert_eq!(waiting.answer(), granted);
    assert_eq!(
        plane.kinds(),
        [
            ApprovalEventKind::Requested,
            ApprovalEventKind::Granted {
                by: "carol".into(),
                reason: "planned".into()
            },
            ApprovalEventKind::Spent,
        ]
    );
    // Saying yes again runs nothing again.
    let again = client.approve(&answered.id, "carol", "").unwrap_err();
    assert_eq!(again.status(), Some(409));
    // The same request asks anew, under another id.
    let next = plane.ask(request("agent", 1));
    assert_ne!(next.id(), answered.id);
}

#[test]
fn a_denied_request_is_refused_and_its_repeat_cools_down() {
    let plane = Plane::new();
    let waiting = plane.ask(request("agent", 1));
    let id = waiting.id();
    plane.client().deny(&id, "carol", "not today").unwrap();
    assert_eq!(
        waiting.answer(),
        HoldAnswer::Denied {
            approval_id: id.clone(),
            by: "carol".into(),
            reason: "not today".into()
        }
    );
    let cool_down_ms = plane.config.limits.deny_cool_down_ms;
    let until_unix_ms = START_MS + cool_down_ms;
    let repeat = plane.hold(request("agent", 1));
    assert_eq!(
        repeat.answer(),
        HoldAnswer::CoolingDown {
            approval_id: id,
            until_unix_ms
        }
    );
    // Another request, and another principal, are not concerned.
    plane.ask(request("agent", 2));
    plane.ask(request("other", 1));
    plane.pass(cool_down_ms);
    plane.ask(request("agent", 1));
}

#[test]
fn the_requester_may_not_approve_in_any_spelling() {
    let plane = Plane::new();
    let waiting = plane.ask(request("Alice@example.org", 1));
    let client = plane.client();
    for by in [
        "Alice@example.org",
        "alice@EXAMPLE.org",
        "  alice@example.org ",
    ] {
        let refused = client.approve(&waiting.id(), by, "").unwrap_err();
        assert_eq!(refused.status(), Some(403), "{by}");
    }
    assert!(waiting.has_no_answer());
    let shown = client.approval(&waiting.id()).unwrap();
    assert_eq!(shown.state, ApprovalStateName::Pending);
    let trail = client.audit(0).unwrap().entries;
    assert_eq!(
        trail
            .iter()
            .filter(|entry| entry.action == "approval.refused")
            .count(),
        3
    );
    client.approve(&waiting.id(), "bob", "").unwrap();
    assert!(matches!(waiting.answer(), HoldAnswer::Granted { .. }));
}

#[test]
fn of_many_identical_waits_one_approval_serves_exactly_one() {
    let plane = Plane::new();
    let threads = 8;
    let each = 4;
    let waits: Vec<_> = std::thread::scope(|scope| {
        let spawned: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    (0..each)
                        .map(|_| hold(&plane.handle, request("agent", 9)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        spawned
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let ids: Vec<_> = waits
        .iter()
        .map(|waiting| match waiting.notice() {
            HoldNotice::Asked { approval_id, .. } => approval_id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(
        ids.iter().all(|id| *id == ids[0]),
        "one request is one approval"
    );
    assert!(waits.iter().all(|waiting| waiting.id() == ids[0]));

    let client = plane.client();
    let mut waits = waits;
    let mut id = ids[0].clone();
    for left in (0..threads * each).rev() {
        let answered = client.approve(&id, "carol", "").unwrap();
        assert_eq!(answered.state, ApprovalStateName::Spent);
        // The answer went out before the API's; each wait is served at most once.
        let served: Vec<_> = waits
            .iter()
            .enumerate()
            .filter_map(|(at, waiting)| waiting.answers.try_recv().ok().map(|got| (at, got)))
            .collect();
        assert_eq!(served.len(), 1, "with {left} left");
        let (at, answer) = &served[0];
        assert!(matches!(answer, HoldAnswer::Granted { approval_id, .. } if *approval_id == id));
        waits.remove(*at);
        match (left, answered.followed_by) {
            (0, None) => break,
            (_, Some(next)) => id = next,
            (_, None) => panic!("{left} are left without an approval"),
        }
        for waiting in &waits {
            let moved = waiting.notice();
            assert!(matches!(&moved, HoldNotice::Moved { approval_id, .. } if *approval_id == id));
            assert_eq!(waiting.id(), id);
        }
        let moved = client.approval(&id).unwrap();
        assert_eq!(moved.text, answered.text);
        assert_eq!(moved.binds, answered.binds);
        assert_eq!(moved.waiting, waits.len() as u64);
        let late = client.approve(&answered.id, "carol", "").unwrap_err();
        assert_eq!(late.status(), Some(409));
        assert!(late.to_string().contains(&id), "{late}");
    }
    let spent = plane
        .kinds()
        .iter()
        .filter(|kind| **kind == ApprovalEventKind::Spent)
        .count();
    assert_eq!(spent, threads * each);
}

#[test]
fn concurrent_approvals_of_one_request_grant_it_once() {
    let plane = Plane::new();
    let waiting = plane.ask(request("agent", 1));
    let id = waiting.id();
    let granted = std::thread::scope(|scope| {
        let spawned: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| plane.client().approve(&id, "carol", "").is_ok()))
            .collect();
        spawned
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .filter(|ok| *ok)
            .count()
    });
    assert_eq!(granted, 1);
    assert!(matches!(waiting.answer(), HoldAnswer::Granted { .. }));
}

#[test]
fn an_agent_that_went_away_meets_the_same_approval_or_the_unused_grant() {
    let plane = Plane::new();
    let mut waiting = plane.ask(request("agent", 1));
    let id = waiting.id();
    assert!(
        waiting
            .ticket
            .take()
            .unwrap()
            .abandon(AbandonReason::Cancelled)
    );
    let client = plane.client();
    let shown = client.approval(&id).unwrap();
    assert_eq!(
        (shown.state, shown.waiting),
        (ApprovalStateName::Pending, 0)
    );
    plane.until_told(&ApprovalEventKind::Abandoned {
        reason: "cancelled",
    });

    let mut again = plane.hold(request("agent", 1));
    assert_eq!(again.id(), id, "known at once");
    assert!(matches!(
        again.notice(),
        HoldNotice::Asked { joined: true, .. }
    ));
    drop(again.ticket.take());
    let answered = client.approve(&id, "carol", "ok").unwrap();
    assert_eq!(
        answered.state,
        ApprovalStateName::Granted,
        "nobody waits: it stays unspent"
    );
    assert!(again.has_no_answer());

    // Not for another principal, another request, or one that may not reuse.
    let others = [
        plane.ask(request("other", 1)),
        plane.ask(request("agent", 2)),
    ];
    let mut own_state = request("agent", 1);
    own_state.reuse = false;
    let fresh = plane.ask(own_state);
    assert_ne!(fresh.id(), id);
    assert!(
        others
            .iter()
            .chain([&fresh])
            .all(|waiting| waiting.has_no_answer())
    );

    let third = plane.hold(request("agent", 1));
    assert!(matches!(third.answer(), HoldAnswer::Granted { approval_id, .. } if approval_id == id));
    assert_eq!(third.id(), id);
    assert_eq!(
        client.approval(&id).unwrap().state,
        ApprovalStateName::Spent
    );
    // Spent is spent: the next one joins what the fresh one asked for.
    let fourth = plane.hold(request("agent", 1));
    assert!(matches!(
        fourth.notice(),
        HoldNotice::Asked { joined: true, .. }
    ));
    assert_eq!(fourth.id(), fresh.id());
}

#[test]
fn a_ticket_given_up_after_the_answer_says_so() {
    let plane = Plane::new();
    let mut waiting = plane.ask(request("agent", 1));
    plane.client().approve(&waiting.id(), "carol", "").unwrap();
    assert!(matches!(waiting.answer(), HoldAnswer::Granted { .. }));
    assert!(
        !waiting
            .ticket
            .take()
            .unwrap()
            .abandon(AbandonReason::TimedOut)
    );
}

#[test]
fn a_wait_ends_at_its_deadline_and_the_request_stays_asked() {
    let plane = Plane::new();
    let mut short = request("agent", 1);
    short.wait_deadline_unix_ms = START_MS + 1_000;
    let waiting = plane.ask(short);
    let id = waiting.id();
    plane.pass(999);
    assert!(waiting.has_no_answer());
    plane.pass(1);
    let ended = HoldAnswer::Expired {
        approval_id: id.clone(),
        still_asked: true,
    };
    assert_eq!(waiting.answer(), ended);
    assert_eq!(
        plane.client().approval(&id).unwrap().state,
        ApprovalStateName::Pending
    );
}

#[test]
fn pending_requests_and_unspent_grants_end_at_an_absolute_time() {
    let plane = Plane::with(|config| {
        config.limits.approval_ttl_ms = 60_000;
        config.limits.grant_ttl_ms = 10_000;
    });
    let client = plane.client();
    let waiting = plane.ask(request("agent", 1));
    let id = waiting.id();
    plane.pass(59_999);
    // Asking again does not prolong it.
    let joined = plane.hold(request("agent", 1));
    assert!(matches!(
        joined.notice(),
        HoldNotice::Asked { expires_unix_ms, joined: true, .. } if expires_unix_ms == START_MS + 60_000
    ));
    plane.pass(1);
    for waiting in [&waiting, &joined] {
        let ended = HoldAnswer::Expired {
            approval_id: id.clone(),
            still_asked: false,
        };
        assert_eq!(waiting.answer(), ended);
    }
    assert_eq!(
        client.approval(&id).unwrap().state,
        ApprovalStateName::Expired
    );
    assert_eq!(
        client.approve(&id, "carol", "").unwrap_err().status(),
        Some(409)
    );

    let mut waiting = plane.ask(request("agent", 2));
    let id = waiting.id();
    drop(waiting.ticket.take());
    assert_eq!(
        client.approve(&id, "carol", "").unwrap().state,
        ApprovalStateName::Granted
    );
    plane.pass(10_000);
    assert_eq!(
        client.approval(&id).unwrap().state,
        ApprovalStateName::Expired
    );
    let late = plane.hold(request("agent", 2));
    assert!(matches!(
        late.notice(),
        HoldNotice::Asked { joined: false, .. }
    ));
}

#[test]
fn an_unused_grant_can_be_taken_back() {
    let plane = Plane::new();
    let client = plane.client();
    let mut waiting = plane.ask(request("agent", 1));
    let id = waiting.id();
    drop(waiting.ticket.take());
    client.approve(&id, "carol", "").unwrap();
    client.deny(&id, "dave", "second thoughts").unwrap();
    let repeat = plane.hold(request("agent", 1));
    assert!(matches!(repeat.answer(), HoldAnswer::CoolingDown { .. }));
    assert_eq!(
        client.deny(&id, "dave", "").unwrap_err().status(),
        Some(409)
    );
}

#[test]
fn caps_count_per_principal_for_all_and_per_approval() {
    let plane = Plane::with(|config| {
        config.limits.pending_per_principal_max = 2;
        config.limits.pending_max = 3;
        config.limits.waiters_per_approval_max = 2;
    });
    let _first = plane.ask(request("agent", 1));
    let _second = plane.ask(request("agent", 2));
    let third = plane.hold(request("agent", 3));
    assert_eq!(third.answer(), HoldAnswer::CapReached { pending_max: 2 });
    // A further wait for the same request is no further request.
    let _joined = plane.ask(request("agent", 1));
    let crowd = plane.hold(request("agent", 1));
    assert_eq!(crowd.answer(), HoldAnswer::CapReached { pending_max: 2 });
    let _other = plane.ask(request("other", 1));
    let full = plane.hold(request("third", 1));
    assert_eq!(full.answer(), HoldAnswer::CapReached { pending_max: 3 });
}

#[test]
fn what_cannot_be_shown_whole_is_refused() {
    let plane = Plane::with(|config| config.limits.shown_bytes_max = 1000);
    let mut large = request("agent", 1);
    large.text = vec![b'x'; 1001];
    let mut binds = request("agent", 2);
    binds.binds = vec![Some(vec![0; 600]), Some(vec![0; 600])];
    let mut name = request("agent", 3);
    name.rule = "r".repeat(5000);
    let nobody = request("", 4);
    for unfit in [large, binds, name, nobody] {
        let waiting = plane.hold(unfit);
        assert!(matches!(waiting.answer(), HoldAnswer::Unavailable { .. }));
    }
    assert!(
        plane
            .client()
            .approvals(false)
            .unwrap()
            .approvals
            .is_empty()
    );
    assert!(plane.kinds().is_empty());
}

#[test]
fn foreign_bytes_come_back_exactly_as_they_were() {
    let plane = Plane::new();
    let bytes: Vec<u8> = (0..=255).collect();
    let mut odd = request("agent", 1);
    odd.text = bytes.clone();
    odd.binds = vec![Some(bytes.clone()), None, Some(Vec::new())];
    odd.state = vec![("role".into(), "r\u{202e}\0'\"".into())];
    let waiting = plane.ask(odd);
    let shown = plane.client().approval(&waiting.id()).unwrap();
    assert_eq!(shown.text.bytes().unwrap(), bytes);
    assert_eq!(shown.binds[0].as_ref().unwrap().bytes().unwrap(), bytes);
    assert_eq!(shown.binds[1], None);
    assert_eq!(shown.binds[2].as_ref().unwrap().base64, "");
    assert_eq!(shown.session_state[0].value, "r\u{202e}\0'\"");
}

#[test]
fn a_list_shows_the_beginning_and_says_so() {
    let plane = Plane::new();
    let mut long = request("agent", 1);
    long.text = vec![b'x'; 10_000];
    let waiting = plane.ask(long);
    let _exact = plane.ask(HoldRequest {
        text: vec![b'y'; 4095],
        ..request("agent", 2)
    });
    let client = plane.client();
    let exact = client
        .approvals(true)
        .unwrap()
        .approvals
        .into_iter()
        .find(|approval| approval.id != waiting.id())
        .unwrap();
    assert_eq!((exact.text_bytes, exact.text_truncated), (4095, false));
    assert_eq!(exact.text.text, "y".repeat(4095));
    client.deny(&exact.id, "carol", "").unwrap();
    let listed = &client.approvals(true).unwrap().approvals[0];
    assert_eq!((listed.text_bytes, listed.text_truncated), (10_000, true));
    assert_eq!(listed.text.text, "x".repeat(4095));
    assert_eq!(
        client.approval(&waiting.id()).unwrap().text.text.len(),
        10_000
    );
}

#[test]
fn requests_answers_and_expiry_survive_a_restart() {
    let mut plane = Plane::new();
    let pending = plane.ask(request("agent", 1));
    let pending_id = pending.id();
    let mut granted = plane.ask(request("agent", 2));
    let granted_id = granted.id();
    drop(granted.ticket.take());
    plane.client().approve(&granted_id, "carol", "ok").unwrap();
    let denied = plane.ask(request("agent", 3));
    plane.client().deny(&denied.id(), "carol", "no").unwrap();

    plane.restart();
    // Who waited was told; the request stays asked.
    let told = HoldAnswer::Unavailable {
        why: "gateway is stopping",
    };
    assert_eq!(pending.answer(), told);
    let again = plane.hold(request("agent", 1));
    assert_eq!(again.id(), pending_id);
    assert!(matches!(
        again.notice(),
        HoldNotice::Asked { joined: true, expires_unix_ms, .. }
            if expires_unix_ms == START_MS + plane.config.limits.approval_ttl_ms
    ));
    plane.client().approve(&pending_id, "carol", "").unwrap();
    assert!(matches!(again.answer(), HoldAnswer::Granted { .. }));
    let used = plane.hold(request("agent", 2));
    assert!(
        matches!(used.answer(), HoldAnswer::Granted { approval_id, .. } if approval_id == granted_id)
    );
    let cooling = plane.hold(request("agent", 3));
    assert!(matches!(cooling.answer(), HoldAnswer::CoolingDown { .. }));

    let late = plane.ask(request("agent", 4));
    let late_id = late.id();
    plane.clock.fetch_add(
        plane.config.limits.approval_ttl_ms,
        std::sync::atomic::Ordering::SeqCst,
    );
    plane.restart();
    plane.pass(0);
    assert_eq!(
        plane.client().approval(&late_id).unwrap().state,
        ApprovalStateName::Expired
    );
}

#[test]
fn a_stopped_control_plane_answers_no_at_once() {
    let mut plane = Plane::new();
    let waiting = plane.ask(request("agent", 1));
    plane.control.take().unwrap().stop(PATIENCE);
    assert!(matches!(waiting.answer(), HoldAnswer::Unavailable { .. }));
    let after = plane.hold(request("agent", 2));
    assert!(matches!(
        after.answers.try_recv(),
        Ok(HoldAnswer::Unavailable { .. })
    ));
    let listen = plane.config.listen.clone();
    let client = portcullis_control::Client::new(listen, &plane.config.admin_token_file).unwrap();
    let gone = client.approvals(true).unwrap_err();
    assert!(matches!(gone, ClientError::NotReachable { .. }));
    assert!(
        gone.to_string().contains("is the gateway running?"),
        "{gone}"
    );
}

#[test]
fn every_change_is_in_the_trail_without_gaps() {
    let plane = Plane::new();
    let client = plane.client();
    let waiting = plane.ask(request("agent", 1));
    client.approve(&waiting.id(), "carol", "why not").unwrap();
    let denied = plane.ask(request("agent", 2));
    client.deny(&denied.id(), "dave", "").unwrap();
    let trail = client.audit(0).unwrap().entries;
    let lines: Vec<_> = trail
        .iter()
        .map(|entry| (entry.actor.as_str(), entry.action.as_str()))
        .collect();
    assert_eq!(
        lines,
        [
            ("agent", "approval.ask"),
            ("carol", "approval.grant"),
            ("agent", "approval.spend"),
            ("agent", "approval.ask"),
            ("dave", "approval.deny"),
        ]
    );
    assert!(
        trail
            .iter()
            .zip(1..)
            .all(|(entry, number)| entry.sequence == number)
    );
    assert_eq!(trail[1].detail, "why not");
    assert_eq!(client.audit(3).unwrap().entries.len(), 2);
}

#[test]
fn what_ended_long_ago_is_forgotten_but_not_its_trail() {
    let plane = Plane::with(|config| config.limits.retention_ms = 60_000);
    let client = plane.client();
    let waiting = plane.ask(request("agent", 1));
    client.deny(&waiting.id(), "carol", "").unwrap();
    let pending = plane.ask(request("agent", 2));
    plane.pass(3_600_000 - 1);
    assert_eq!(client.approvals(false).unwrap().approvals.len(), 2);
    plane.pass(3_600_000);
    let kept = client.approvals(false).unwrap().approvals;
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].id, pending.id());
    assert!(client.audit(0).unwrap().entries.len() >= 3);
}
