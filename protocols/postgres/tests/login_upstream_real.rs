//! The upstream login against a real server: every method, TLS with channel binding,
//! protocol 3.2 negotiated down, cached keys, a cancel.

mod real;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::digest;
use postgres::cancel::CancelRequest;
use postgres::login::upstream::{
    UpstreamConfig, UpstreamCredential, UpstreamFailure, UpstreamLogin, UpstreamOutput,
    UpstreamReady, UpstreamTls,
};
use postgres::scram::ScramKeys;
use postgres::startup::ProtocolVersion;
use postgres::wire::backend::{self, BackendMessage};
use postgres::wire::frontend::Query;
use postgres::wire::{Frames, Piece, Treatment};
use real::{Certificate, Server, Stream};
use zeroize::Zeroizing;

const ROLES: &str = "\
create role scram login password 'pencil';
create role \"søren\" login password 'I\u{ad}X';
create role trusted login;
set password_encryption = 'md5';
create role md5 login password 'pencil';
create role clear login password 'pencil';
";
const HBA: &str = "\
host all trusted 127.0.0.1/32 trust
host all md5 127.0.0.1/32 md5
host all clear 127.0.0.1/32 password
host all scram,\"søren\" 127.0.0.1/32 scram-sha-256
";

fn config(user: &str, password: &str) -> UpstreamConfig {
    let mut config = UpstreamConfig::new(user.to_owned(), "postgres", [7; 24]);
    if !password.is_empty() {
        config.credential = UpstreamCredential::Password(Zeroizing::new(password.into()));
    }
    config
}

type Session = (UpstreamReady, Box<dyn Stream>, Option<ScramKeys>, usize);

fn log_in(
    server: &Server,
    certificate: &Certificate,
    config: UpstreamConfig,
) -> Result<Session, UpstreamFailure> {
    let mut plain = Some(real::connect(server.port));
    let mut stream: Box<dyn Stream> = Box::new(plain.as_ref().unwrap().try_clone().unwrap());
    let mut login = UpstreamLogin::new(config);
    let mut derived = 0;
    loop {
        match login.poll_output() {
            Some(UpstreamOutput::Write(bytes)) => stream.write_all(&bytes).unwrap(),
            Some(UpstreamOutput::StartTls) => {
                stream = real::tls_client(plain.take().unwrap(), certificate);
                let hash = digest::digest(&digest::SHA256, &certificate.der);
                login.tls_established(Some(hash.as_ref().to_vec()));
            }
            Some(UpstreamOutput::DeriveKeys(work)) => {
                derived += 1;
                login.provide_keys(work.run());
            }
            Some(UpstreamOutput::Ready(ready)) => {
                return Ok((ready, stream, login.take_keys(), derived));
            }
            Some(UpstreamOutput::Failed(failure)) => return Err(failure),
            None => login.handle_input(real::receive(&mut *stream).expect("server closed")),
        }
    }
}

/// Runs a query to its ReadyForQuery and gives first values and SQLSTATEs.
fn query(stream: &mut dyn Stream, text: &str) -> Vec<String> {
    let mut out = bytes::BytesMut::new();
    let text = text.as_bytes();
    Query { text }.encode(&mut out).unwrap();
    stream.write_all(&out).unwrap();
    let mut frames = Frames::new();
    let mut seen = Vec::new();
    loop {
        frames.push(real::receive(stream).expect("server closed"));
        while let Some(Piece::Frame(frame)) = frames.next(|_, _| Treatment::Whole).unwrap() {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            match backend::decode(frame.tag, frame.body()).unwrap() {
                BackendMessage::DataRow(row) => {
                    seen.push(text(row.iter().next().unwrap().unwrap()))
                }
                BackendMessage::ErrorResponse(report) => {
                    seen.push(text(report.field(b'C').unwrap()));
                }
                BackendMessage::ReadyForQuery(_) => return seen,
                _ => {}
            }
        }
    }
}

#[test]
fn logs_in_to_a_real_server_by_every_method() {
    let certificate = real::certificate();
    let server = Server::start(ROLES, HBA, &certificate);
    let try_it = |config| log_in(&server, &certificate, config);
    let fails = |config| try_it(config).map(|_| ()).unwrap_err();

    // Trust; 3.2 is negotiated down; what the server said is all there.
    let (ready, mut stream, keys, _) = try_it(config("trusted", "")).unwrap();
    assert_eq!(ready.protocol, ProtocolVersion::V3_0);
    assert_eq!((ready.secret_key.len(), ready.status), (4, b'I'));
    let named = |name: &str| ready.parameters.iter().any(|(n, _)| n == name);
    assert!(named("server_version") && named("standard_conforming_strings"));
    assert!(keys.is_none() && ready.leftover.is_empty());
    let pid = query(&mut *stream, "select pg_backend_pid()");
    assert_eq!(pid, [ready.process_id.to_string()]);

    // A cancel with the key that the server gave.
    let request = CancelRequest {
        process_id: ready.process_id,
        secret_key: ready.secret_key.clone(),
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Again and again, since the first may come before the sleep does. The server
            // closes each connection when it has passed the request on.
            while !done.load(Ordering::Acquire) {
                let mut stream = real::connect(server.port);
                stream.write_all(&request.encode().unwrap()).unwrap();
                assert!(!matches!(stream.read(&mut [0]), Ok(1)));
            }
        });
        assert_eq!(query(&mut *stream, "select pg_sleep(60)"), ["57014"]);
        done.store(true, Ordering::Release);
    });

    // SCRAM in clear, then again with the keys.
    let (_, mut stream, keys, derived) = try_it(config("scram", "pencil")).unwrap();
    assert_eq!(derived, 1);
    assert_eq!(query(&mut *stream, "select current_user"), ["scram"]);
    let mut again = config("scram", "pencil");
    again.scram_keys = keys;
    again.require_scram = true;
    assert_eq!(try_it(again).unwrap().3, 0);

    // Inside TLS with channel binding, required.
    let mut bound = config("scram", "pencil");
    bound.tls = UpstreamTls::Request;
    bound.require_channel_binding = true;
    let (_, mut stream, ..) = try_it(bound).unwrap();
    let tls = "select ssl::text from pg_stat_ssl where pid = pg_backend_pid()";
    assert_eq!(query(&mut *stream, tls), ["true"]);

    // SASLprep on both sides: the server stored the prepared form.
    assert!(try_it(config("søren", "IX")).is_ok());

    // MD5 and clear text, where they are allowed.
    let mut md5 = config("md5", "pencil");
    assert_eq!(fails(md5.clone()), UpstreamFailure::AuthTooWeak);
    md5.allow_md5 = true;
    assert!(try_it(md5).is_ok());
    let mut clear = config("clear", "pencil");
    clear.allow_cleartext = true;
    assert_eq!(fails(clear.clone()), UpstreamFailure::AuthTooWeak);
    clear.tls = UpstreamTls::Request;
    assert!(try_it(clear).is_ok());

    // Refusals are the server's own.
    assert!(fails(config("scram", "wrong")).is_bad_password());
    assert_eq!(fails(config("scram", "")), UpstreamFailure::PasswordMissing);
    let mut nowhere = config("trusted", "");
    nowhere.database = "nowhere".into();
    let UpstreamFailure::Rejected(refusal) = fails(nowhere) else {
        panic!("the database does not exist");
    };
    assert_eq!(&refusal.sqlstate, b"3D000");
    assert_eq!(refusal.severity, "FATAL");
}
