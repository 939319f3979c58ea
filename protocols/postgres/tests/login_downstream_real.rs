//! The downstream login with a real client: psql logs in by password over loopback,
//! inside TLS, by direct TLS where it can, and reads refusals.

mod real;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};

use bytes::BytesMut;
use postgres::Refusal;
use postgres::login::downstream::{
    DownstreamConfig, DownstreamLogin, DownstreamOutput, TlsFacts, TlsPolicy, welcome,
};
use postgres::wire::{Frames, Piece, Treatment, backend, frontend};
use real::{Certificate, Stream};

/// Serves one connection to its end, and answers each query with one row: what the login
/// told us.
fn serve(listener: &TcpListener, config: DownstreamConfig, certificate: &Certificate) {
    let (plain, _) = listener.accept().unwrap();
    let mut stream: Box<dyn Stream> = Box::new(plain.try_clone().unwrap());
    let mut plain = Some(plain);
    let mut login = DownstreamLogin::new(config.clone());
    let accepted = loop {
        match login.poll_output() {
            Some(DownstreamOutput::Write(bytes)) => stream.write_all(&bytes).unwrap(),
            Some(DownstreamOutput::StartTls { received }) => {
                let (tls, alpn) = real::tls_server(plain.take().unwrap(), received, certificate);
                stream = tls;
                let facts = TlsFacts {
                    alpn,
                    ..TlsFacts::default()
                };
                login.tls_established(facts).unwrap();
            }
            Some(DownstreamOutput::Startup(_)) => {
                // Where it fails the agent is told; the drain goes on.
                let _ = login.ask_password();
            }
            Some(DownstreamOutput::Token(token, _)) if &token[..] == b"t0k" => {
                break login.accept().unwrap();
            }
            Some(DownstreamOutput::Token(..)) => {
                let refusal = Refusal::new(b"28P01", "token refused").with_hint("Log in.");
                login.refuse(&refusal);
            }
            Some(DownstreamOutput::Close) => return,
            other @ Some(DownstreamOutput::Cancel(_)) => panic!("{other:?}"),
            None => {
                let Some(bytes) = real::receive(&mut *stream) else {
                    return;
                };
                let _ = login.handle_input(bytes);
            }
        }
    };
    let parameters = [
        (&b"server_version"[..], &b"15.0"[..]),
        (b"client_encoding", b"UTF8"),
    ];
    let key = vec![1; accepted.protocol.cancel_key_bytes()];
    let hello = welcome(parameters, 7, &key, b'I').unwrap();
    stream.write_all(&hello).unwrap();
    let told = format!(
        "user={} database={} protocol={} tls={} application={}",
        accepted.startup.user.escape_ascii(),
        accepted.startup.database.escape_ascii(),
        accepted.protocol,
        accepted.tls.is_some(),
        accepted
            .startup
            .setting("application_name")
            .unwrap()
            .escape_ascii(),
    );
    let mut frames = Frames::new();
    frames.push(accepted.leftover);
    loop {
        match frames.next(|_, _| Treatment::Whole).unwrap() {
            Some(Piece::Frame(frame)) if frame.tag == frontend::tag::QUERY => {
                let field = backend::Field {
                    name: b"told",
                    table_oid: 0,
                    attribute: 0,
                    type_oid: 25,
                    type_size: -1,
                    type_modifier: -1,
                    format: 0,
                };
                let mut out = BytesMut::new();
                backend::row_description(&mut out, &[field]).unwrap();
                let row = [Some(told.as_bytes())];
                backend::data_row(&mut out, row.into_iter()).unwrap();
                backend::command_complete(&mut out, b"SELECT 1").unwrap();
                backend::ready_for_query(&mut out, b'I');
                stream.write_all(&out).unwrap();
            }
            Some(Piece::Frame(frame)) => {
                assert_eq!(frame.tag, frontend::tag::TERMINATE);
                return;
            }
            Some(other) => panic!("{other:?}"),
            None => frames.push(real::receive(&mut *stream).expect("psql closed")),
        }
    }
}

/// The client to test with; another version's by setting `PSQL`.
fn psql() -> Command {
    Command::new(std::env::var("PSQL").unwrap_or_else(|_| "psql".into()))
}

fn run(config: DownstreamConfig, certificate: &Certificate, extra: &str, token: &str) -> Output {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&listener, config, certificate));
        let output = psql()
            .env("PGPASSWORD", token)
            .env("PGCONNECT_TIMEOUT", "10")
            .args(["-X", "-A", "-t", "-c", "select 1", "-d"])
            .arg(format!(
                "host=127.0.0.1 port={port} user=ann dbname=shop {extra}"
            ))
            .output()
            .expect("psql is installed: `make test` needs it (scripts/install server)");
        // Wakes the other thread where psql gave up before it connected.
        drop(TcpStream::connect(("127.0.0.1", port)));
        output
    })
}

#[test]
fn psql_logs_in_and_reads_refusals() {
    let certificate = real::certificate();
    let config = |tls, loopback| DownstreamConfig {
        tls,
        direct_tls: true,
        loopback,
        ..DownstreamConfig::default()
    };
    let try_it = |config, extra: &str, token: &str| {
        let output = run(config, &certificate, extra, token);
        let text = [&output.stdout[..], &output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };

    // Loopback in clear: SSLRequest is declined, the password goes over.
    let (good, told) = try_it(config(TlsPolicy::Off, true), "", "t0k");
    assert!(good, "{told}");
    assert_eq!(
        told,
        "user=ann database=shop protocol=3.0 tls=false application=psql\n"
    );

    let required = config(TlsPolicy::Required, false);
    let (_, told) = try_it(required.clone(), "sslmode=require", "t0k");
    let has_tls = !told.contains("SSL support is not compiled in");
    if has_tls {
        // Inside TLS, from anywhere.
        let (good, told) = try_it(required.clone(), "sslmode=require", "t0k");
        assert!(good && told.contains("tls=true"), "{told}");

        // Refusals arrive whole, hint included.
        let (good, told) = try_it(required.clone(), "sslmode=require", "wrong");
        assert!(!good && told.contains("FATAL:  token refused"), "{told}");
        assert!(told.contains("HINT:  Log in."), "{told}");
    }
    let (good, told) = try_it(required.clone(), "sslmode=disable", "t0k");
    assert!(
        !good && told.contains("this listener requires TLS"),
        "{told}"
    );
    let (good, told) = try_it(config(TlsPolicy::Off, false), "", "t0k");
    assert!(
        !good && told.contains("login method requires TLS"),
        "{told}"
    );

    // What newer clients can.
    let version = psql().arg("--version").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    let major = version.split(' ').nth(2).unwrap();
    let major: u32 = major.split('.').next().unwrap().parse().unwrap();
    if major >= 17 && has_tls {
        let direct = "sslmode=require sslnegotiation=direct";
        let (good, told) = try_it(required, direct, "t0k");
        assert!(good && told.contains("tls=true"), "{told}");
    }
    if major >= 18 {
        let newest = "max_protocol_version=3.2";
        let (good, told) = try_it(config(TlsPolicy::Off, true), newest, "t0k");
        assert!(good && told.contains("protocol=3.2"), "{told}");
    }
}
