//! The API's door: token, refusals, bounds, tokens, health, description.

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;

use common::{PATIENCE, Plane, START_MS, request, store_files};
use identity::{TokenStatus, Verifier, VerifierConfig};
use portcullis_control::{
    Client, Control, ControlError, ControlListen, FetchError, FetchLimits, Hooks, MintBody,
};

/// Sends bytes and reads the answer to its end.
fn raw(plane: &Plane, request: &str) -> String {
    let ControlListen::Unix(path) = plane.listens() else {
        panic!("no socket")
    };
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

fn get(plane: &Plane, path: &str, fields: &str) -> String {
    raw(
        plane,
        &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{fields}\r\n"),
    )
}

fn token(plane: &Plane) -> String {
    std::fs::read_to_string(&plane.config.admin_token_file)
        .unwrap()
        .trim()
        .to_owned()
}

fn mint(subject: &str, ttl_s: u64) -> MintBody {
    MintBody {
        subject: subject.into(),
        groups: vec!["etl".into()],
        ttl_s,
        by: String::new(),
    }
}

#[test]
fn every_path_but_health_wants_the_admin_token() {
    let plane = Plane::new();
    let good = token(&plane);
    let wrong = [
        String::new(),
        "authorization: Bearer wrong\r\n".into(),
        "authorization: Bearer \r\n".into(),
        "authorization: Bearer\r\n".into(),
        format!("authorization: Basic {good}\r\n"),
        format!("authorization: Bearer {good}x\r\n"),
        format!("authorization: Bearer {}\r\n", &good[..good.len() - 1]),
        format!("authorization: Bearer {good}\r\nauthorization: Bearer wrong\r\n"),
        format!("x-authorization: Bearer {good}\r\n"),
    ];
    for path in [
        "/api/v1/approvals",
        "/api/v1/approvals/ap_x",
        "/api/v1/tokens",
        "/api/v1/audit",
        "/api/v1/openapi.json",
        "/metrics",
    ] {
        for fields in &wrong {
            let answer = get(&plane, path, fields);
            assert!(
                answer.starts_with("HTTP/1.1 401 "),
                "{path} {fields} {answer}"
            );
            assert!(answer.contains("application/problem+json"), "{answer}");
            assert!(answer.contains("www-authenticate: Bearer"), "{answer}");
        }
        let answer = get(&plane, path, &format!("authorization: Bearer {good}\r\n"));
        assert!(!answer.starts_with("HTTP/1.1 401 "), "{path}");
    }
    let health = get(&plane, "/healthz", "");
    assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
    assert!(
        health.contains("\"recorder\"") && health.contains("\"store\""),
        "{health}"
    );
}

#[test]
fn metrics_are_open_where_so_configured() {
    let plane = Plane::with(|config| config.metrics_need_token = false);
    assert!(get(&plane, "/metrics", "").ends_with("portcullis_up 1\n"));
    assert_eq!(plane.client().metrics().unwrap(), "portcullis_up 1\n");
    assert!(get(&plane, "/api/v1/tokens", "").starts_with("HTTP/1.1 401 "));
}

#[test]
fn refusals_are_problem_documents() {
    let plane = Plane::new();
    let bearer = format!("authorization: Bearer {}\r\n", token(&plane));
    let post = |path: &str, kind: &str, body: &str| {
        raw(
            &plane,
            &format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{bearer}\
                 content-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
        )
    };
    let json = "application/json";
    let approve = "/api/v1/approvals/ap_x/approve";
    let large = format!("{{\"by\":\"{}\"}}", "x".repeat(70_000));
    let long_reason = format!("{{\"by\":\"a\",\"reason\":\"{}\"}}", "x".repeat(5000));
    for (answer, status) in [
        (get(&plane, "/nothing", &bearer), 404),
        (get(&plane, "/api/v1/approvals/ap_x", &bearer), 404),
        (get(&plane, "/api/v1/approvals?state=odd", &bearer), 400),
        (get(&plane, "/api/v1/approvals?limit=0", &bearer), 400),
        (get(&plane, "/api/v1/approvals?limit=501", &bearer), 400),
        (get(&plane, "/api/v1/approvals?pending=1", &bearer), 400),
        (get(&plane, "/api/v1/audit?limit=1001", &bearer), 400),
        (post("/api/v1/approvals", json, "{}"), 405),
        (post(approve, json, "{\"by\":\"a\"}"), 404),
        (post(approve, json, "{\"by\":"), 400),
        (post(approve, json, "{}"), 422),
        (post(approve, json, "{\"by\":\"a\",\"force\":true}"), 422),
        (post(approve, json, "{\"by\":\" \"}"), 400),
        (post(approve, json, "{\"by\":\"a\\u0007\"}"), 400),
        (post(approve, json, &long_reason), 400),
        (post(approve, json, &large), 413),
        (post(approve, "text/plain", "{\"by\":\"a\"}"), 415),
        (
            post("/api/v1/tokens", json, "{\"subject\":\"a\",\"ttl_s\":0}"),
            400,
        ),
        (
            post(
                "/api/v1/tokens",
                json,
                "{\"subject\":\"a\",\"ttl_s\":99999999}",
            ),
            400,
        ),
        (
            post("/api/v1/tokens", json, "{\"subject\":\"\",\"ttl_s\":1}"),
            400,
        ),
        (
            post(
                "/api/v1/tokens",
                json,
                "{\"subject\":\"a\",\"ttl_s\":1,\"groups\":[\"\"]}",
            ),
            400,
        ),
    ] {
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{status}: {answer}"
        );
        assert!(answer.contains("application/problem+json"), "{answer}");
        assert!(answer.contains(&format!("\"status\":{status}")), "{answer}");
    }
    assert!(plane.client().tokens().unwrap().tokens.is_empty());
}

#[test]
fn rubbish_on_the_socket_harms_nobody() {
    let plane = Plane::new();
    let large = format!(
        "GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "x".repeat(400_000)
    );
    for rubbish in [
        "\0\0\0\x08\x04\x52\x16\x2f",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost",
        large.as_str(),
    ] {
        let ControlListen::Unix(path) = plane.listens() else {
            panic!("no socket")
        };
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The server may hang up before it has read all.
        let _ = stream.write_all(rubbish.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let beginning = &rubbish[..rubbish.len().min(40)];
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{beginning:?}");
    }
    assert!(plane.client().health().is_ok());
}

#[test]
fn a_minted_token_logs_in_until_it_is_revoked_and_is_kept_as_a_hash() {
    let mut plane = Plane::new();
    let verifier = |plane: &Plane| {
        let tokens = plane.handle.token_store();
        Verifier::new(VerifierConfig {
            tokens,
            ..Default::default()
        })
        .unwrap()
    };
    let now_s = START_MS / 1000;
    let minted = plane.client().mint(&mint("agent-1", 3600)).unwrap();
    assert_eq!(minted.expires_unix_s, now_s + 3600);
    let principal = verifier(&plane)
        .verify_token(minted.token.as_bytes(), now_s)
        .unwrap();
    assert_eq!(
        (principal.subject.as_str(), principal.groups.len()),
        ("agent-1", 1)
    );
    assert_eq!(principal.credential_id, minted.id);

    // It outlives a restart; its secret is in no file and in no answer.
    plane.restart();
    let before = verifier(&plane);
    assert!(before.verify_token(minted.token.as_bytes(), now_s).is_ok());
    let secret = minted.token.splitn(3, '_').nth(2).unwrap().to_owned();
    let bearer = format!("authorization: Bearer {}\r\n", token(&plane));
    let listed = get(&plane, "/api/v1/tokens", &bearer);
    assert!(listed.contains(&minted.id) && !listed.contains(&secret) && !listed.contains("hash"));
    let files = store_files(&plane.config.store);
    assert!(!files.is_empty());
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let found = bytes
            .windows(secret.len())
            .any(|window| window == secret.as_bytes());
        assert!(!found, "secret in {}", file.display());
        assert_eq!(
            std::fs::metadata(&file).unwrap().mode() & 0o777,
            0o600,
            "{}",
            file.display()
        );
    }

    plane.client().revoke(&minted.id).unwrap();
    // The verifier made before sees it: tables are published, not copied.
    let refused = before
        .verify_token(minted.token.as_bytes(), now_s)
        .unwrap_err();
    assert_eq!(refused.kind(), "revoked");
    assert_eq!(
        plane.handle.tokens().status(&minted.id, now_s),
        TokenStatus::Revoked
    );
    assert_eq!(
        plane.client().revoke(&minted.id).unwrap_err().status(),
        Some(404)
    );
    assert_eq!(
        plane.client().revoke("../approvals").unwrap_err().status(),
        Some(404)
    );
    plane.restart();
    assert_eq!(
        plane.handle.tokens().status(&minted.id, now_s),
        TokenStatus::Revoked
    );
    let trail = plane.client().audit(0).unwrap().entries;
    let actions: Vec<_> = trail.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["token.mint", "token.revoke"]);
}

#[test]
fn debug_output_shows_no_secret() {
    let plane = Plane::new();
    let minted = plane.client().mint(&mint("agent-1", 60)).unwrap();
    let shown = format!(
        "{minted:?} {:?} {:?} {:?}",
        plane.client(),
        plane.handle,
        plane.control.as_ref().unwrap()
    );
    assert!(
        !shown.contains(&minted.token) && !shown.contains(&token(&plane)),
        "{shown}"
    );
}

#[test]
fn the_description_names_every_path() {
    let plane = Plane::new();
    let description = plane.client().openapi().unwrap();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = description["paths"].as_object().unwrap();
    for (path, method) in [
        ("/api/v1/approvals", "get"),
        ("/api/v1/approvals/{id}", "get"),
        ("/api/v1/approvals/{id}/approve", "post"),
        ("/api/v1/approvals/{id}/deny", "post"),
        ("/api/v1/tokens", "get"),
        ("/api/v1/tokens", "post"),
        ("/api/v1/tokens/{id}", "delete"),
        ("/api/v1/audit", "get"),
    ] {
        let operation = &paths[path][method];
        assert!(operation["responses"].is_object(), "{method} {path}");
        assert!(
            operation["security"][0]["admin_token"].is_array(),
            "{method} {path}"
        );
    }
    assert_eq!(paths.len(), 7);
    assert!(description["components"]["schemas"]["ApprovalView"].is_object());
}

#[test]
fn serves_a_loopback_port_and_no_other_address() {
    let plane = Plane::with(|config| {
        config.listen = ControlListen::Loopback("127.0.0.1:0".parse().unwrap());
    });
    let ControlListen::Loopback(address) = plane.listens() else {
        panic!("no port")
    };
    assert_ne!(address.port(), 0);
    assert_eq!(plane.client().health().unwrap().status, "ok");
    drop(TcpStream::connect(address).unwrap());
    let waiting = plane.ask(request("agent", 1));
    assert_eq!(
        plane.client().approvals(true).unwrap().approvals[0].id,
        waiting.id()
    );

    let mut open = plane.config.clone();
    open.listen = ControlListen::Loopback("0.0.0.0:0".parse().unwrap());
    let refused = Control::start(open, Hooks::default()).unwrap_err();
    assert!(matches!(
        refused,
        ControlError::Config { key: "listen", .. }
    ));
}

#[test]
fn a_second_process_is_kept_from_store_and_socket() {
    let plane = Plane::new();
    let mut second = plane.config.clone();
    second.listen = ControlListen::Loopback("127.0.0.1:0".parse().unwrap());
    let refused = Control::start(second, Hooks::default()).unwrap_err();
    assert!(
        matches!(refused, ControlError::StoreInUse { .. }),
        "{refused}"
    );
    let mut second = plane.config.clone();
    second.store = plane.folder.path().join("other.sqlite");
    let refused = Control::start(second, Hooks::default()).unwrap_err();
    assert!(matches!(refused, ControlError::Listen { .. }), "{refused}");
    // The first one has lost neither.
    assert!(plane.client().health().is_ok());
}

#[test]
fn a_socket_left_behind_is_replaced_and_a_file_is_not() {
    let mut plane = Plane::new();
    let ControlListen::Unix(path) = plane.listens() else {
        panic!("no socket")
    };
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    drop(plane.control.take());
    assert!(!path.exists());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    plane.restart();
    assert!(plane.client().health().is_ok());
    drop(plane.control.take());
    std::fs::write(&path, "precious").unwrap();
    let refused = Control::start(plane.config.clone(), Hooks::default()).unwrap_err();
    assert!(matches!(refused, ControlError::Listen { .. }));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_damaged_store_is_refused_and_left_alone() {
    let plane = Plane::new();
    let mut config = plane.config.clone();
    config.store = plane.folder.path().join("damaged.sqlite");
    config.listen = ControlListen::Loopback("127.0.0.1:0".parse().unwrap());
    std::fs::write(
        &config.store,
        "this is no database at all, not even a little".repeat(50),
    )
    .unwrap();
    let refused = Control::start(config.clone(), Hooks::default()).unwrap_err();
    assert!(matches!(refused, ControlError::Store { .. }), "{refused}");
    assert!(
        std::fs::read_to_string(&config.store)
            .unwrap()
            .starts_with("this is no database")
    );
    config.store = plane.folder.path().join("no/folder/store");
    let refused = Control::start(config, Hooks::default()).unwrap_err();
    assert!(matches!(refused, ControlError::File { .. }), "{refused}");
}

#[test]
fn a_client_without_a_gateway_says_what_to_do() {
    let plane = Plane::new();
    let listen = ControlListen::Unix(plane.folder.path().join("nobody"));
    let client = Client::new(listen, &plane.config.admin_token_file).unwrap();
    let error = client.approvals(true).unwrap_err().to_string();
    assert!(error.contains("nobody: is the gateway running?"), "{error}");
    assert!(Client::new(plane.listens(), &plane.folder.path().join("missing")).is_err());
}

#[test]
fn fetches_refuse_all_but_https_and_loopback() {
    let plane = Plane::new();
    for url in [
        "",
        "/path",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "http://192.0.2.1/jwks",
        "http://user:secret@127.0.0.1/",
        "https:///nohost",
    ] {
        let (send, receive) = std::sync::mpsc::channel();
        plane.handle.fetch_url(
            url,
            FetchLimits::default(),
            Box::new(move |answer| send.send(answer).unwrap()),
        );
        assert_eq!(
            receive.recv_timeout(PATIENCE).unwrap(),
            Err(FetchError::Url),
            "{url}"
        );
    }
}
