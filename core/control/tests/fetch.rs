//! Fetching documents: plain on loopback, TLS verified, bounded.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use common::{PATIENCE, Plane};
use portcullis_control::{FetchError, FetchLimits};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

fn fetch(plane: &Plane, url: &str, limits: FetchLimits) -> Result<Vec<u8>, FetchError> {
    let (send, receive) = channel();
    plane.handle.fetch_url(
        url,
        limits,
        Box::new(move |answer| send.send(answer).unwrap()),
    );
    receive.recv_timeout(PATIENCE).expect("no answer came")
}

/// Serves one connection: reads a request head, writes the answer.
fn serve_once(answer: Vec<u8>) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        converse(stream, &answer)
    });
    (address, thread)
}

fn converse(mut stream: impl Read + Write, answer: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
    }
    let _ = stream.write_all(answer).and_then(|()| stream.flush());
    head
}

fn response(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[test]
fn fetches_a_document_from_loopback() {
    let plane = Plane::new();
    let (address, server) = serve_once(response("200 OK", "{\"keys\":[]}"));
    let url = format!("http://{address}/jwks?x=1");
    assert_eq!(
        fetch(&plane, &url, FetchLimits::default()).unwrap(),
        b"{\"keys\":[]}"
    );
    let head = String::from_utf8(server.join().unwrap()).unwrap();
    assert!(head.starts_with("GET /jwks?x=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {address}")), "{head}");
}

#[test]
fn refuses_redirects_errors_large_bodies_and_broken_answers() {
    let plane = Plane::new();
    let limits = FetchLimits {
        body_bytes_max: 10,
        ..FetchLimits::default()
    };
    let endless =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\n12345678\r\n8\r\n12345678\r\n";
    let lying = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123";
    let redirect =
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    for (answer, expected) in [
        (redirect.into(), FetchError::Status { status: 302 }),
        (
            response("404 Not Found", ""),
            FetchError::Status { status: 404 },
        ),
        (
            response("204 No Content", ""),
            FetchError::Status { status: 204 },
        ),
        (
            response("200 OK", "12345678901"),
            FetchError::TooLarge { bytes_max: 10 },
        ),
        (endless.to_vec(), FetchError::TooLarge { bytes_max: 10 }),
        (lying.to_vec(), FetchError::Broken),
        (b"SSH-2.0-x\r\n".to_vec(), FetchError::Broken),
        (Vec::new(), FetchError::Broken),
    ] {
        let (address, server) = serve_once(answer);
        let got = fetch(&plane, &format!("http://{address}/"), limits.clone());
        assert_eq!(got, Err(expected));
        server.join().unwrap();
    }
}

#[test]
fn gives_up_on_a_silent_server() {
    let plane = Plane::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let limits = FetchLimits {
        timeout: Duration::from_millis(50),
        ..FetchLimits::default()
    };
    let got = fetch(&plane, &format!("http://{address}/"), limits);
    assert_eq!(got, Err(FetchError::TimedOut));
    drop(listener);
    let got = fetch(
        &plane,
        &format!("http://{address}/"),
        FetchLimits::default(),
    );
    assert!(matches!(got, Err(FetchError::Connect { .. })), "{got:?}");
}

#[test]
fn https_is_verified_against_authorities_and_name() {
    let plane = Plane::new();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let serve = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Arc::clone(&config);
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let connection = rustls::ServerConnection::new(config).unwrap();
            converse(
                rustls::StreamOwned::new(connection, stream),
                &response("200 OK", "{}"),
            )
        });
        (port, thread)
    };
    let trusting = FetchLimits {
        extra_roots_pem: made.cert.pem().into_bytes(),
        ..FetchLimits::default()
    };
    let (port, server) = serve();
    let url = format!("https://localhost:{port}/jwks");
    assert_eq!(fetch(&plane, &url, trusting.clone()).unwrap(), b"{}");
    assert!(server.join().unwrap().starts_with(b"GET /jwks "));
    for (host, limits) in [
        ("localhost", FetchLimits::default()),
        ("127.0.0.1", trusting),
    ] {
        let (port, server) = serve();
        let got = fetch(&plane, &format!("https://{host}:{port}/"), limits);
        assert!(
            matches!(got, Err(FetchError::Connect { .. })),
            "{host} {got:?}"
        );
        assert!(server.join().unwrap().is_empty(), "no request was sent");
    }
}
