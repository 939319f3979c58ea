//! The target's login against a server of our own: methods, lies, illegal orders, cuts.

use proptest::prelude::*;

use super::*;
use crate::scram::ScramError;
use crate::scram::tests::ScramServer;
use crate::wire::Reader;

/// How the model server logs a client in, and how it lies.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Method {
    Trust,
    Clear,
    Md5,
    /// The mechanisms that are offered.
    Scram(&'static [&'static [u8]]),
    /// A SASL mechanism that is not spoken.
    Unknown,
    Gss,
    /// AuthenticationOk right after server-first.
    ScramCutShort,
    /// AuthenticationOk after the proof, without the server's own.
    ScramNoProof,
    /// A signature made of another password's keys.
    ScramForged,
}

const PLUS: Method = Method::Scram(&[b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256"]);
const PLAIN: Method = Method::Scram(&[b"SCRAM-SHA-256"]);

/// A small, honest PostgreSQL, up to ReadyForQuery.
struct Model {
    method: Method,
    ssl: u8,
    /// Sends NegotiateProtocolVersion with this version.
    negotiate: Option<u32>,
    key_bytes: usize,
    password: &'static str,
    scram: ScramServer,
    input: Vec<u8>,
    step: usize,
}

impl Model {
    fn new(method: Method) -> Model {
        Model {
            method,
            ssl: b'S',
            negotiate: None,
            key_bytes: 32,
            password: "pencil",
            scram: ScramServer::new("pencil", 4),
            input: Vec::new(),
            step: 0,
        }
    }

    fn answer(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.input.extend_from_slice(bytes);
        let mut out = BytesMut::new();
        loop {
            let untyped = self.step == 0;
            let header = usize::from(!untyped);
            let Some(length) = self.input.get(header..header + 4) else {
                break;
            };
            let total = header + u32::from_be_bytes(length.try_into().unwrap()) as usize;
            if self.input.len() < total {
                break;
            }
            let message: Vec<u8> = self.input.drain(..total).collect();
            if untyped && message[4..] == startup::SSL_REQUEST_CODE.to_be_bytes() {
                return vec![self.ssl];
            }
            self.step += 1;
            self.message(&message[header + 4..], &mut out);
        }
        out.to_vec()
    }

    fn message(&mut self, body: &[u8], out: &mut BytesMut) {
        match (self.step, self.method) {
            (1, method) => {
                if let Some(version) = self.negotiate {
                    backend::negotiate_protocol_version(out, version, &[]).unwrap();
                }
                match method {
                    Method::Trust => self.welcome(out),
                    Method::Clear => backend::authentication_cleartext_password(out),
                    Method::Md5 => backend::authentication_md5_password(out, [1, 2, 3, 4]),
                    Method::Scram(offer) => backend::authentication_sasl(out, offer).unwrap(),
                    Method::Unknown => backend::authentication_sasl(out, &[b"X"]).unwrap(),
                    Method::Gss => out.extend_from_slice(b"R\0\0\0\x08\0\0\0\x07"),
                    _ => backend::authentication_sasl(out, &[b"SCRAM-SHA-256"]).unwrap(),
                }
            }
            (2, Method::Clear) => {
                let good = frontend::decode_password(body).unwrap() == self.password.as_bytes();
                self.judge(good, out);
            }
            (2, Method::Md5) => {
                let want = postgres_protocol::authentication::md5_hash(
                    b"app",
                    self.password.as_bytes(),
                    [1, 2, 3, 4],
                );
                let good = frontend::decode_password(body).unwrap() == want.as_bytes();
                self.judge(good, out);
            }
            (2, method) => {
                let response = SaslInitialResponse::decode(body).unwrap();
                let data = response.data.unwrap();
                let plus = response.mechanism == SCRAM_SHA_256_PLUS;
                assert_eq!(plus, data.starts_with(b"p="));
                // A client that could have bound, but was told it cannot, was lied to.
                let offered = matches!(method, Method::Scram(offer) if offer.len() > 1);
                assert!(!(offered && data.starts_with(b"y")));
                let first = self.scram.first(data);
                backend::authentication_sasl_continue(out, first.as_bytes()).unwrap();
                if method == Method::ScramCutShort {
                    self.welcome(out);
                }
            }
            (3, method) => match (self.scram.last(body), method) {
                (Some(_), Method::ScramNoProof) => self.welcome(out),
                (Some(_), Method::ScramForged) => {
                    let forged = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
                    backend::authentication_sasl_final(out, forged.as_bytes()).unwrap();
                    self.welcome(out);
                }
                (Some(proof), _) => {
                    backend::authentication_sasl_final(out, proof.as_bytes()).unwrap();
                    self.welcome(out);
                }
                (None, _) => self.judge(false, out),
            },
            other => panic!("{other:?}"),
        }
    }

    fn judge(&self, good: bool, out: &mut BytesMut) {
        match good {
            true => self.welcome(out),
            false => backend::ReportBuilder::new(
                backend::Severity::Fatal,
                b"28P01",
                b"password authentication failed for user \"app\"",
            )
            .encode(out)
            .unwrap(),
        }
    }

    fn welcome(&self, out: &mut BytesMut) {
        backend::authentication_ok(out);
        backend::parameter_status(out, b"server_version", b"18.6").unwrap();
        backend::parameter_status(out, b"TimeZone", b"UTC").unwrap();
        backend::ReportBuilder::new(backend::Severity::Notice, b"00000", b"hello")
            .encode(out)
            .unwrap();
        backend::backend_key_data(out, 7, &vec![9; self.key_bytes]).unwrap();
        backend::ready_for_query(out, b'I');
        out.extend_from_slice(b"A\0\0");
    }
}

fn config(password: Option<&str>) -> UpstreamConfig {
    let mut config = UpstreamConfig::new("app", "shop", [7; 24]);
    config.parameters = vec![("application_name".into(), "x".into())];
    config.scram_iterations_min = 1;
    if let Some(password) = password {
        config.credential = UpstreamCredential::Password(Zeroizing::new(password.into()));
    }
    config
}

/// What a run came to: derivations on the way, and the end.
struct End {
    derived: usize,
    ready: Option<UpstreamReady>,
    failure: Option<UpstreamFailure>,
    login: UpstreamLogin,
}

/// Runs the login against the model; answers come in pieces of `cut` bytes.
fn run(config: UpstreamConfig, mut model: Model, cut: usize) -> End {
    let mut end = End {
        derived: 0,
        ready: None,
        failure: None,
        login: UpstreamLogin::new(config),
    };
    while let Some(output) = end.login.poll_output() {
        assert!(end.ready.is_none() && end.failure.is_none(), "{output:?}");
        match output {
            UpstreamOutput::Write(bytes) => {
                for part in model.answer(&bytes).chunks(cut) {
                    end.login.handle_input(Bytes::copy_from_slice(part));
                }
            }
            UpstreamOutput::StartTls => {
                let end_point = model.scram.end_point.clone();
                end.login.tls_established(end_point);
            }
            UpstreamOutput::DeriveKeys(work) => {
                end.derived += 1;
                end.login.provide_keys(work.run());
            }
            UpstreamOutput::Ready(ready) => end.ready = Some(ready),
            UpstreamOutput::Failed(failure) => end.failure = Some(failure),
        }
    }
    end
}

fn failure(config: UpstreamConfig, model: Model) -> UpstreamFailure {
    let end = run(config, model, usize::MAX);
    assert!(end.ready.is_none());
    end.failure.unwrap()
}

#[test]
fn trust_gives_a_session_with_all_that_the_server_said() {
    let end = run(config(None), Model::new(Method::Trust), usize::MAX);
    let ready = end.ready.unwrap();
    assert_eq!(ready.protocol, ProtocolVersion::V3_2);
    let want: Vec<(Bytes, Bytes)> = vec![
        ("server_version".into(), "18.6".into()),
        ("TimeZone".into(), "UTC".into()),
    ];
    assert_eq!(ready.parameters, want);
    assert_eq!((ready.process_id, ready.status), (7, b'I'));
    assert_eq!(ready.secret_key, vec![9; 32]);
    assert_eq!(ready.notices.len(), 1);
    assert_eq!(ready.leftover, &b"A\0\0"[..]);
}

#[test]
fn the_startup_message_carries_user_database_and_parameters() {
    let mut login = UpstreamLogin::new(config(None));
    let Some(UpstreamOutput::Write(bytes)) = login.poll_output() else {
        panic!("a start-up message comes first");
    };
    assert_eq!(
        bytes.escape_ascii().to_string(),
        b"\0\0\0\x33\0\x03\0\x02user\0app\0database\0shop\0application_name\0x\0\0"
            .escape_ascii()
            .to_string()
    );
    let mut bad = config(None);
    bad.parameters = vec![("a\0b".into(), "".into())];
    assert_eq!(
        failure(bad, Model::new(Method::Trust)),
        UpstreamFailure::Wire(WireError::EmbeddedNul)
    );
}

#[test]
fn scram_derives_once_and_then_logs_in_with_the_cached_keys() {
    let mut end = run(config(Some("pencil")), Model::new(PLAIN), usize::MAX);
    assert!(end.ready.is_some());
    assert_eq!(end.derived, 1);
    let mut again = config(Some("pencil"));
    again.scram_keys = Some(end.login.take_keys().unwrap());
    let end = run(again.clone(), Model::new(PLAIN), usize::MAX);
    assert!(end.ready.is_some());
    assert_eq!(end.derived, 0);
    // The server's salt or rounds changed: the cache does not fit and is not used.
    let mut changed = Model::new(PLAIN);
    changed.scram = ScramServer::new("pencil", 5);
    let end = run(again, changed, usize::MAX);
    assert!(end.ready.is_some());
    assert_eq!(end.derived, 1);
}

#[test]
fn a_wrong_password_is_the_servers_own_error() {
    for method in [PLAIN, Method::Md5, Method::Clear] {
        let mut config = config(Some("wrong"));
        config.allow_md5 = true;
        config.allow_cleartext = true;
        config.tls = UpstreamTls::Request;
        let mut end = run(config, Model::new(method), usize::MAX);
        let failure = end.failure.unwrap();
        assert!(failure.is_bad_password() && !failure.protocol_refused());
        let UpstreamFailure::Rejected(refusal) = failure else {
            panic!("{failure:?}");
        };
        assert_eq!(refusal.severity, "FATAL");
        assert!(
            refusal
                .message
                .starts_with(b"password authentication failed")
        );
        assert!(end.login.take_keys().is_none());
    }
}

#[test]
fn channel_binding_is_used_wherever_both_sides_can() {
    // (server's offer, end point known to the client, required) -> end
    let cases: &[(Method, bool, bool, Result<(), UpstreamFailure>)] = &[
        (PLUS, true, false, Ok(())),
        (PLUS, true, true, Ok(())),
        (PLUS, false, false, Ok(())),
        (
            PLUS,
            false,
            true,
            Err(UpstreamFailure::ChannelBindingImpossible),
        ),
        (PLAIN, true, false, Ok(())),
        (
            PLAIN,
            true,
            true,
            Err(UpstreamFailure::ChannelBindingImpossible),
        ),
        (Method::Trust, true, true, Err(UpstreamFailure::AuthTooWeak)),
        (Method::Clear, true, true, Err(UpstreamFailure::AuthTooWeak)),
        (Method::Md5, true, true, Err(UpstreamFailure::AuthTooWeak)),
    ];
    for tls in [UpstreamTls::Request, UpstreamTls::Direct] {
        for (method, known, required, want) in cases {
            let mut config = config(Some("pencil"));
            config.tls = tls;
            config.require_channel_binding = *required;
            config.allow_cleartext = true;
            config.allow_md5 = true;
            let mut model = Model::new(*method);
            model.scram.end_point = known.then(|| vec![1; 32]);
            let end = run(config, model, usize::MAX);
            let got = match end.failure {
                Some(failure) => Err(failure),
                None => Ok(()),
            };
            assert_eq!(got, *want, "{method:?} {known} {required}");
            assert_eq!(end.ready.is_some(), want.is_ok());
        }
    }
}

#[test]
fn weak_methods_are_used_only_where_they_are_allowed() {
    let weak = Err(UpstreamFailure::AuthTooWeak);
    // (method, TLS, MD5 allowed, clear allowed, SCRAM required) -> end
    type Case = (
        Method,
        UpstreamTls,
        bool,
        bool,
        bool,
        Result<(), UpstreamFailure>,
    );
    let (off, on) = (UpstreamTls::Off, UpstreamTls::Request);
    let cases: &[Case] = &[
        (Method::Trust, off, false, false, false, Ok(())),
        (Method::Trust, on, true, true, true, weak.clone()),
        (Method::Md5, off, true, false, false, Ok(())),
        (Method::Md5, off, false, false, false, weak.clone()),
        (Method::Md5, on, true, true, true, weak.clone()),
        (Method::Clear, on, false, true, false, Ok(())),
        (Method::Clear, off, false, true, false, weak.clone()),
        (Method::Clear, on, false, false, false, weak.clone()),
        (Method::Clear, on, true, true, true, weak.clone()),
        (PLAIN, off, false, false, true, Ok(())),
    ];
    for (method, tls, md5, clear, scram, want) in cases {
        let mut config = config(Some("pencil"));
        config.tls = *tls;
        config.allow_md5 = *md5;
        config.allow_cleartext = *clear;
        config.require_scram = *scram;
        let end = run(config, Model::new(*method), usize::MAX);
        let got = match end.failure {
            Some(failure) => Err(failure),
            None => Ok(()),
        };
        assert_eq!(got, *want, "{method:?} {tls:?}");
    }
}

#[test]
fn a_server_that_does_not_prove_itself_is_refused() {
    for method in [
        Method::ScramCutShort,
        Method::ScramNoProof,
        Method::ScramForged,
    ] {
        let got = failure(config(Some("pencil")), Model::new(method));
        assert_eq!(got, UpstreamFailure::BadServerSignature, "{method:?}");
    }
}

#[test]
fn few_scram_rounds_are_refused_unless_allowed() {
    let mut config = config(Some("pencil"));
    config.scram_iterations_min = 4096;
    assert_eq!(
        failure(config, Model::new(PLAIN)),
        UpstreamFailure::Scram(ScramError::Iterations(4))
    );
}

#[test]
fn a_password_that_is_missing_or_a_method_that_is_not_spoken_is_named() {
    let missing = UpstreamFailure::PasswordMissing;
    for method in [PLAIN, Method::Md5, Method::Clear] {
        for password in [None, Some("")] {
            let mut config = config(password);
            config.allow_md5 = true;
            config.allow_cleartext = true;
            config.tls = UpstreamTls::Request;
            assert_eq!(failure(config, Model::new(method)), missing);
        }
    }
    for method in [Method::Unknown, Method::Gss] {
        let got = failure(config(Some("pencil")), Model::new(method));
        assert_eq!(got, UpstreamFailure::AuthUnsupported);
    }
}

#[test]
fn a_server_without_tls_fails_a_login_that_wants_it() {
    let reply = |ssl: u8| {
        let mut config = config(Some("pencil"));
        config.tls = UpstreamTls::Request;
        let mut model = Model::new(PLAIN);
        model.ssl = ssl;
        failure(config, model)
    };
    assert_eq!(reply(b'N'), UpstreamFailure::TlsRefused);
    assert_eq!(reply(b'E'), UpstreamFailure::TlsRefused);
    assert_eq!(reply(b'X'), UpstreamFailure::Unexpected { tag: b'X' });
}

#[test]
fn clear_bytes_behind_the_servers_yes_end_the_login() {
    // CVE-2021-23222: they would be taken for the server's words inside TLS.
    let start = || {
        let mut config = config(None);
        config.tls = UpstreamTls::Request;
        let mut login = UpstreamLogin::new(config);
        assert!(matches!(
            login.poll_output(),
            Some(UpstreamOutput::Write(_))
        ));
        login
    };
    let mut login = start();
    login.handle_input(Bytes::from_static(b"SR\0\0\0\x08\0\0\0\0"));
    assert!(matches!(
        login.poll_output(),
        Some(UpstreamOutput::Failed(UpstreamFailure::StuffedBytes))
    ));
    assert!(login.poll_output().is_none());
    let mut login = start();
    login.handle_input(Bytes::from_static(b"S"));
    assert!(matches!(
        login.poll_output(),
        Some(UpstreamOutput::StartTls)
    ));
    login.handle_input(Bytes::from_static(b"R"));
    assert!(matches!(
        login.poll_output(),
        Some(UpstreamOutput::Failed(UpstreamFailure::StuffedBytes))
    ));
}

#[test]
fn an_older_server_negotiates_down_and_nothing_else() {
    let settle = |asked, answer, key_bytes| {
        let mut config = config(None);
        config.protocol = asked;
        let mut model = Model::new(Method::Trust);
        model.negotiate = answer;
        model.key_bytes = key_bytes;
        let end = run(config, model, usize::MAX);
        end.ready.map(|ready| ready.protocol).ok_or(end.failure)
    };
    let (old, new) = (ProtocolVersion::V3_0, ProtocolVersion::V3_2);
    let bad = Err(Some(UpstreamFailure::BadNegotiation));
    assert_eq!(settle(new, Some(0x3_0000), 4), Ok(old));
    assert_eq!(settle(new, None, 32), Ok(new));
    assert_eq!(settle(new, None, 256), Ok(new));
    assert_eq!(settle(old, None, 4), Ok(old));
    assert_eq!(settle(old, Some(0x3_0000), 4), bad);
    assert_eq!(settle(new, Some(0x3_0002), 4), bad);
    assert_eq!(settle(new, Some(0x3_0003), 4), bad);
    assert_eq!(settle(new, Some(0x2_0000), 4), bad);
    assert_eq!(settle(new, Some(0), 4), bad);
    // Long keys belong to 3.2.
    assert!(settle(old, None, 32).is_err());
    assert!(settle(new, Some(0x3_0000), 32).is_err());
}

#[test]
fn a_server_that_knows_only_3_0_is_recognised() {
    let message = backend::ReportBuilder::new(
        backend::Severity::Fatal,
        b"0A000",
        b"unsupported frontend protocol 3.2: server supports 2.0 to 3.0",
    )
    .to_bytes();
    let mut login = UpstreamLogin::new(config(None));
    login.poll_output();
    login.handle_input(message.clone());
    let Some(UpstreamOutput::Failed(failure)) = login.poll_output() else {
        panic!("the server refused");
    };
    assert!(failure.protocol_refused() && !failure.is_bad_password());
    let UpstreamFailure::Rejected(refusal) = failure else {
        panic!("the server refused");
    };
    assert_eq!(refusal.report, message);
}

/// Feeds `bytes` after the start-up message and gives the failure, if there is one.
fn after_startup(bytes: &[u8]) -> Option<UpstreamFailure> {
    let mut config = config(Some("pencil"));
    config.allow_md5 = true;
    let mut login = UpstreamLogin::new(config);
    login.handle_input(Bytes::copy_from_slice(bytes));
    std::iter::from_fn(|| login.poll_output()).find_map(|output| match output {
        UpstreamOutput::Failed(failure) => Some(failure),
        UpstreamOutput::Ready(_) => panic!("logged in"),
        _ => None,
    })
}

#[test]
fn messages_out_of_order_are_refused() {
    let ok: &[u8] = b"R\0\0\0\x08\0\0\0\0";
    let key: &[u8] = b"K\0\0\0\x0c\0\0\0\x01\x01\x02\x03\x04";
    let unexpected = |tag| Some(UpstreamFailure::Unexpected { tag });
    let cases: &[(&[&[u8]], u8)] = &[
        (&[b"Z\0\0\0\x05I"], b'Z'),
        (&[b"S\0\0\0\x08a\0b\0"], b'S'),
        (&[key], b'K'),
        (&[b"D\0\0\0\x06\0\0"], b'D'),
        (&[b"d\0\0\0\x04"], b'd'),
        (&[b"?\0\0\0\x04"], b'?'),
        (&[ok, ok], b'R'),
        (&[ok, b"R\0\0\0\x0c\0\0\0\x05abcd"], b'R'),
        (&[ok, key, key], b'K'),
        (&[ok, b"v\0\0\0\x0c\0\x03\0\0\0\0\0\0"], b'v'),
        (&[ok, b"A\0\0\0\x0a\0\0\0\0\0\0"], b'A'),
        (&[b"R\0\0\0\x0c\0\0\0\x05abcd", b"Z\0\0\0\x05I"], b'Z'),
        (
            &[b"R\0\0\0\x0c\0\0\0\x05abcd", b"R\0\0\0\x0c\0\0\0\x05abcd"],
            b'R',
        ),
        (&[b"R\0\0\0\x09\0\0\0\x0bx"], b'R'),
        (&[b"R\0\0\0\x09\0\0\0\x0cx"], b'R'),
    ];
    for (messages, tag) in cases {
        assert_eq!(
            after_startup(&messages.concat()),
            unexpected(*tag),
            "{messages:?}"
        );
    }
}

#[test]
fn lying_lengths_are_refused_and_nothing_is_allocated_for_them() {
    let cases: &[&[u8]] = &[
        b"R\0\0\0\x03",
        b"R\xff\xff\xff\xff",
        b"R\x7f\xff\xff\xff",
        b"N\0\x02\0\0",
        b"R\0\0\0\x04",
        b"R\0\0\0\x07\0\0\0",
        b"R\0\0\0\x09\0\0\0\0x",
        b"R\0\0\0\x0b\0\0\0\x05abc",
        b"R\0\0\0\x0b\0\0\0\x0aab\0",
        b"E\0\0\0\x05S",
        b"v\0\0\0\x0c\0\x03\0\0\xff\xff\xff\xff",
        b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05?",
        b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0b\0\0\0\x01abc",
    ];
    for bytes in cases {
        assert!(
            matches!(after_startup(bytes), Some(UpstreamFailure::Wire(_))),
            "{}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn an_endless_greeting_is_cut_off() {
    let notice =
        backend::ReportBuilder::new(backend::Severity::Notice, b"00000", &vec![b'x'; 16 << 10])
            .to_bytes();
    let mut login = UpstreamLogin::new(config(None));
    login.poll_output();
    let mut count = 0;
    while login.poll_output().is_none() {
        login.handle_input(notice.clone());
        count += 1;
        assert!(count < 100);
    }
    assert!(count > 10);
    // A flood while keys are being derived is bounded as well.
    let mut login = UpstreamLogin::new(config(Some("pencil")));
    let mut model = Model::new(PLAIN);
    let mut derive = None;
    while let Some(output) = login.poll_output() {
        match output {
            UpstreamOutput::Write(bytes) => login.handle_input(model.answer(&bytes).into()),
            UpstreamOutput::DeriveKeys(work) => derive = Some(work),
            other => panic!("{other:?}"),
        }
    }
    for _ in 0..100 {
        login.handle_input(notice.clone());
    }
    assert!(matches!(
        login.poll_output(),
        Some(UpstreamOutput::Failed(UpstreamFailure::TooMuch))
    ));
    assert_eq!(login.frames.buffered(), 0);
    // Keys that come too late are harmless.
    login.provide_keys(derive.unwrap().run());
    assert!(login.poll_output().is_none());
}

#[test]
fn calls_out_of_order_fail_the_login() {
    let mut login = UpstreamLogin::new(config(None));
    login.poll_output();
    login.tls_established(None);
    assert!(matches!(
        login.poll_output(),
        Some(UpstreamOutput::Failed(UpstreamFailure::Misuse))
    ));
    let mut login = UpstreamLogin::new(config(None));
    login.poll_output();
    login.provide_keys(ScramServer::new("x", 1).keys.clone());
    assert!(matches!(
        login.poll_output(),
        Some(UpstreamOutput::Failed(UpstreamFailure::Misuse))
    ));
    login.handle_input(Bytes::from_static(b"x"));
    login.tls_established(None);
    assert!(login.poll_output().is_none());
}

#[test]
fn the_same_answers_cut_anywhere_give_the_same_session() {
    for method in [Method::Trust, PLAIN, Method::Md5] {
        for cut in 1..200 {
            let mut config = config(Some("pencil"));
            config.allow_md5 = true;
            let mut model = Model::new(method);
            model.negotiate = Some(0x3_0000);
            model.key_bytes = 4;
            let ready = run(config, model, cut).ready.unwrap();
            assert_eq!(ready.parameters.len(), 2, "in pieces of {cut}");
            // What comes after ReadyForQuery goes to the session from now on.
            assert!(b"A\0\0".starts_with(&ready.leftover));
            assert_eq!(ready.protocol, ProtocolVersion::V3_0);
        }
    }
}

#[test]
fn no_debug_output_shows_a_secret() {
    let bare = config(None);
    let mut config = config(Some("hunter2"));
    config.scram_keys = Some(ScramServer::new("hunter2", 1).keys.clone());
    config.allow_cleartext = true;
    config.tls = UpstreamTls::Direct;
    let mut shown = format!("{config:?}");
    let mut login = UpstreamLogin::new(config);
    login.poll_output();
    login.tls_established(None);
    login.poll_output();
    login.handle_input(Bytes::from_static(b"R\0\0\0\x08\0\0\0\x03"));
    shown.push_str(&format!("{login:?}"));
    let output = login.poll_output().unwrap();
    shown.push_str(&format!("{output:?}"));
    let UpstreamOutput::Write(bytes) = output else {
        panic!("a password message");
    };
    let mut reader = Reader::new(&bytes[5..]);
    assert_eq!(reader.take_cstr().unwrap(), b"hunter2");
    let ready = run(bare, Model::new(Method::Trust), 99).ready;
    shown.push_str(&format!("{ready:?}"));
    for secret in ["hunter2", "104, 117", "9, 9, 9", "\\t\\t\\t"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

proptest! {
    #[test]
    fn random_servers_never_panic_and_never_pass_for_scram(
        messages in prop::collection::vec(prop_oneof![
            Just(&b"R\0\0\0\x08\0\0\0\0"[..]),
            Just(&b"R\0\0\0\x08\0\0\0\x03"[..]),
            Just(&b"R\0\0\0\x0c\0\0\0\x05abcd"[..]),
            Just(&b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"[..]),
            Just(&b"R\0\0\0\x0a\0\0\0\x0cv="[..]),
            Just(&b"K\0\0\0\x0c\0\0\0\x01\x01\x02\x03\x04"[..]),
            Just(&b"S\0\0\0\x08a\0b\0"[..]),
            Just(&b"Z\0\0\0\x05I"[..]),
            Just(&b"N\0\0\0\x05\0"[..]),
            Just(&b"v\0\0\0\x0c\0\x03\0\0\0\0\0\0"[..]),
            Just(&b"E\0\0\0\x05\0"[..]),
            Just(&b"\0\xff"[..]),
        ], 0..8),
        scram: bool,
        cut in 1usize..30,
    ) {
        let mut config = config(Some("pencil"));
        config.allow_md5 = true;
        config.require_scram = scram;
        let mut login = UpstreamLogin::new(config);
        let mut ends = 0;
        for part in messages.concat().chunks(cut) {
            login.handle_input(Bytes::copy_from_slice(part));
            while let Some(output) = login.poll_output() {
                match output {
                    UpstreamOutput::Ready(_) => {
                        prop_assert!(!scram);
                        ends += 1;
                    }
                    UpstreamOutput::Failed(_) => ends += 1,
                    _ => {}
                }
            }
        }
        prop_assert!(ends <= 1);
    }
}
