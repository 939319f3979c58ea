//! The agent's login, driven by scripts: cut anywhere, lies, illegal orders.

use proptest::prelude::*;

use super::*;
use crate::startup::startup_message;
use crate::wire::backend::BackendMessage;

fn config(tls: TlsPolicy) -> DownstreamConfig {
    DownstreamConfig {
        tls,
        direct_tls: true,
        loopback: true,
        oauth: Some(OauthConfig {
            issuer_url: "https://idp.example".into(),
            scope: "db".into(),
        }),
        ..DownstreamConfig::default()
    }
}

fn startup(minor: u16, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut out = BytesMut::new();
    let pairs = parameters.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    startup_message(&mut out, ProtocolVersion { major: 3, minor }, pairs).unwrap();
    out.to_vec()
}

fn ann() -> Vec<u8> {
    startup(0, &[("user", "ann"), ("database", "shop")])
}

fn password(text: &str) -> Vec<u8> {
    let mut out = BytesMut::new();
    frontend::password(&mut out, text.as_bytes()).unwrap();
    out.to_vec()
}

fn oauth_first(data: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    let response = frontend::SaslInitialResponse {
        mechanism: b"OAUTHBEARER",
        data: Some(data),
    };
    response.encode(&mut out).unwrap();
    out.to_vec()
}

const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSSENC_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";
const CANCEL_REQUEST: &[u8] = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07\x01\x02\x03\x04";

/// What a gateway of the script does with what the machine hands out.
#[derive(Clone, Copy)]
struct Gateway {
    oauth: bool,
    accept: bool,
    alpn: Option<&'static str>,
}

const ACCEPTING: Gateway = Gateway {
    oauth: false,
    accept: true,
    alpn: None,
};

/// Drains everything, answers as the gateway would, and notes what happened.
fn drain(login: &mut DownstreamLogin, gateway: Gateway, log: &mut Vec<String>) {
    while let Some(output) = login.poll_output() {
        match output {
            DownstreamOutput::Write(bytes) => log.push(describe(&bytes)),
            DownstreamOutput::StartTls { received } => {
                log.push(format!("tls {}", received.escape_ascii()));
                let facts = TlsFacts {
                    alpn: gateway.alpn.map(|alpn| alpn.as_bytes().to_vec()),
                    ..TlsFacts::default()
                };
                if let Err(error) = login.tls_established(facts) {
                    log.push(error.to_string());
                }
            }
            DownstreamOutput::Startup(startup) => {
                log.push(format!("startup {:?} {:?}", startup.user, startup.database));
                let asked = match gateway.oauth {
                    true => login.ask_oauth(),
                    false => login.ask_password(),
                };
                if let Err(error) = asked {
                    log.push(error.to_string());
                }
            }
            DownstreamOutput::Token(token, via) => {
                log.push(format!("token {} {via:?}", token.escape_ascii()));
                if !gateway.accept {
                    login.refuse(&Refusal::new(b"28P01", "no"));
                }
            }
            DownstreamOutput::Cancel(request) => {
                log.push(format!(
                    "cancel {} {:?}",
                    request.process_id, request.secret_key
                ));
            }
            DownstreamOutput::Close => log.push("close".into()),
        }
    }
}

/// Backend messages in words; the single byte that answers SSL and GSS as it is.
fn describe(bytes: &Bytes) -> String {
    if bytes.len() == 1 {
        return format!("answer {}", char::from(bytes[0]));
    }
    let mut frames = Frames::new();
    frames.push(bytes.clone());
    let mut words = Vec::new();
    while let Some(piece) = frames.next(|_, _| Treatment::Whole).unwrap() {
        let Piece::Frame(frame) = piece else {
            unreachable!("all are wanted whole")
        };
        words.push(match backend::decode(frame.tag, frame.body()).unwrap() {
            BackendMessage::ErrorResponse(report) => {
                assert!(report.is_fatal());
                let text = |code| String::from_utf8_lossy(report.field(code).unwrap()).into_owned();
                format!("fatal {} {}", text(b'C'), text(b'M'))
            }
            BackendMessage::Authentication(request) => match request {
                backend::Authentication::SaslContinue(data) => {
                    format!("continue {}", data.escape_ascii())
                }
                backend::Authentication::Sasl { .. } => {
                    let names: Vec<_> = request
                        .mechanisms()
                        .map(|m| m.escape_ascii().to_string())
                        .collect();
                    format!("sasl {}", names.join(" "))
                }
                other => format!("{other:?}"),
            },
            BackendMessage::NegotiateProtocolVersion(offer) => {
                let options: Vec<_> = offer
                    .options()
                    .map(|o| o.escape_ascii().to_string())
                    .collect();
                format!("negotiate {:#x} {}", offer.version, options.join(" "))
            }
            other => format!("{other:?}"),
        });
    }
    assert!(frames.is_at_rest());
    words.join("; ")
}

/// Each flight is sent once the answers to the one before are out. `cut` says in how
/// large pieces.
fn run(
    config: DownstreamConfig,
    gateway: Gateway,
    flights: &[&[u8]],
    cut: usize,
) -> (DownstreamLogin, Vec<String>) {
    let mut login = DownstreamLogin::new(config);
    let mut log = Vec::new();
    for flight in flights {
        for part in flight.chunks(cut) {
            if let Err(error) = login.handle_input(Bytes::copy_from_slice(part)) {
                log.push(error.to_string());
            }
            drain(&mut login, gateway, &mut log);
        }
    }
    (login, log)
}

fn log(config: DownstreamConfig, gateway: Gateway, flights: &[&[u8]]) -> Vec<String> {
    run(config, gateway, flights, usize::MAX).1
}

#[test]
fn psql_without_tls_logs_in_after_both_requests_are_declined() {
    let flights: &[&[u8]] = &[GSSENC_REQUEST, SSL_REQUEST, &ann(), &password("t0k")];
    let (login, log) = run(config(TlsPolicy::Off), ACCEPTING, flights, usize::MAX);
    assert_eq!(
        log,
        [
            "answer N",
            "answer N",
            "startup b\"ann\" b\"shop\"",
            "CleartextPassword",
            "token t0k Password",
        ]
    );
    let accepted = login.accept().unwrap();
    assert_eq!(accepted.startup.user, "ann");
    assert_eq!(accepted.protocol, ProtocolVersion::V3_0);
    assert!(accepted.tls.is_none() && accepted.leftover.is_empty());
}

#[test]
fn tls_by_request_then_a_password() {
    let flights: &[&[u8]] = &[SSL_REQUEST, &ann(), &password("t0k")];
    let (login, log) = run(config(TlsPolicy::Required), ACCEPTING, flights, usize::MAX);
    assert_eq!(log[..2], ["answer S", "tls "]);
    assert_eq!(log[4], "token t0k Password");
    assert!(login.accept().unwrap().tls.is_some());
}

#[test]
fn direct_tls_needs_its_alpn() {
    let with = |alpn| Gateway { alpn, ..ACCEPTING };
    let hello: &[u8] = b"\x16\x03\x01\x02\0";
    let direct = |alpn| log(config(TlsPolicy::Optional), with(alpn), &[hello, &ann()]);
    let good = direct(Some("postgresql"));
    assert_eq!(good[0], "tls \\x16\\x03\\x01\\x02\\x00");
    assert_eq!(good[1], "startup b\"ann\" b\"shop\"");
    for alpn in [None, Some("h2"), Some("")] {
        let bad = direct(alpn);
        assert_eq!(bad[1..], [LoginError::Alpn.to_string(), "close".into()]);
        // After an SSLRequest, none is fine, but another protocol is not.
        let asked = log(
            config(TlsPolicy::Optional),
            with(alpn),
            &[SSL_REQUEST, &ann()],
        );
        assert_eq!(asked.last().unwrap() == "close", alpn.is_some());
    }
}

#[test]
fn direct_tls_is_closed_without_a_word_where_it_is_off() {
    let want = [LoginError::DirectTlsRefused.to_string(), "close".into()];
    let hello: &[u8] = b"\x16\x03\x01";
    assert_eq!(log(config(TlsPolicy::Off), ACCEPTING, &[hello]), want);
    let mut off = config(TlsPolicy::Required);
    off.direct_tls = false;
    assert_eq!(log(off, ACCEPTING, &[hello]), want);
    // Only the very first bytes may be a handshake.
    let late = log(
        config(TlsPolicy::Optional),
        ACCEPTING,
        &[GSSENC_REQUEST, hello],
    );
    assert_eq!(late[1..], want);
}

#[test]
fn bytes_stuffed_behind_a_request_for_encryption_end_the_login() {
    // CVE-2021-23214: they would be taken for the agent's words inside TLS.
    for request in [SSL_REQUEST, GSSENC_REQUEST] {
        for policy in [TlsPolicy::Off, TlsPolicy::Optional, TlsPolicy::Required] {
            for more in [&b"x"[..], &ann(), SSL_REQUEST] {
                let flight = [request, more].concat();
                let log = log(config(policy), ACCEPTING, &[&flight]);
                assert_eq!(
                    log,
                    [
                        LoginError::StuffedBytes.to_string(),
                        "fatal 08P01 received unencrypted data after SSL request".into(),
                        "close".into(),
                    ]
                );
            }
        }
    }
    // The same in a later read, before TLS is up: closed without a word.
    let mut login = DownstreamLogin::new(config(TlsPolicy::Optional));
    login.handle_input(Bytes::from_static(SSL_REQUEST)).unwrap();
    let late = login.handle_input(Bytes::from_static(b"x"));
    assert_eq!(late, Err(LoginError::StuffedBytes));
    let outputs: Vec<String> = std::iter::from_fn(|| login.poll_output())
        .map(|output| format!("{output:?}"))
        .collect();
    assert_eq!(
        outputs,
        ["Write(1 bytes)", "StartTls(0 bytes received)", "Close"]
    );
}

#[test]
fn each_request_for_encryption_comes_once() {
    let cases: &[(TlsPolicy, &[&[u8]], &str)] = &[
        (TlsPolicy::Off, &[SSL_REQUEST, SSL_REQUEST], "1234.5679"),
        (
            TlsPolicy::Off,
            &[GSSENC_REQUEST, GSSENC_REQUEST],
            "1234.5680",
        ),
        (
            TlsPolicy::Optional,
            &[SSL_REQUEST, SSL_REQUEST],
            "1234.5679",
        ),
        (
            TlsPolicy::Optional,
            &[SSL_REQUEST, GSSENC_REQUEST],
            "1234.5680",
        ),
    ];
    for (policy, flights, version) in cases {
        let log = log(config(*policy), ACCEPTING, flights);
        assert_eq!(
            log[log.len() - 2..],
            [
                format!(
                    "fatal 0A000 unsupported frontend protocol {version}: server supports 3.0 to 3.2"
                ),
                "close".into()
            ]
        );
    }
}

#[test]
fn a_listener_that_requires_tls_takes_only_cancels_in_clear() {
    let log_in = log(config(TlsPolicy::Required), ACCEPTING, &[&ann()]);
    assert_eq!(log_in[1], "fatal 28000 this listener requires TLS");
    let cancel = log(config(TlsPolicy::Required), ACCEPTING, &[CANCEL_REQUEST]);
    assert_eq!(cancel, ["cancel 7 b\"\\x01\\x02\\x03\\x04\"", "close"]);
}

#[test]
fn cancel_keys_of_protocol_3_2_are_taken() {
    let mut packet = b"\0\0\0\x2c\x04\xd2\x16\x2e\0\0\0\x07".to_vec();
    packet.extend([9; 32]);
    let log = log(config(TlsPolicy::Off), ACCEPTING, &[&packet]);
    assert!(log[0].starts_with("cancel 7"));
    assert_eq!(log[1], "close");
}

#[test]
fn newer_protocols_and_unknown_options_are_negotiated_before_anything_else() {
    type Case = (
        u16,
        &'static [(&'static str, &'static str)],
        Option<&'static str>,
        u16,
    );
    let cases: &[Case] = &[
        (0, &[("user", "a")], None, 0),
        (2, &[("user", "a")], None, 2),
        (3, &[("user", "a")], Some("negotiate 0x30002 "), 2),
        (9999, &[("user", "a")], Some("negotiate 0x30002 "), 2),
        (
            0,
            &[("user", "a"), ("_pq_.x", "1")],
            Some("negotiate 0x30000 _pq_.x"),
            0,
        ),
        (
            3,
            &[("_pq_.x", "1"), ("_pq_.y", "1"), ("user", "a")],
            Some("negotiate 0x30002 _pq_.x _pq_.y"),
            2,
        ),
    ];
    for (minor, parameters, want, settled) in cases {
        let flight = startup(*minor, parameters);
        let flights: &[&[u8]] = &[&flight, &password("x")];
        let (login, log) = run(config(TlsPolicy::Off), ACCEPTING, flights, usize::MAX);
        assert_eq!(
            log.first()
                .filter(|l| l.starts_with("negotiate"))
                .map(String::as_str),
            *want
        );
        assert_eq!(login.accept().unwrap().protocol.minor, *settled);
    }
    let mut old = config(TlsPolicy::Off);
    old.protocol_max = ProtocolVersion::V3_0;
    let (login, log) = run(
        old,
        ACCEPTING,
        &[&startup(2, &[("user", "a")]), &password("x")],
        usize::MAX,
    );
    assert_eq!(log[0], "negotiate 0x30000 ");
    assert_eq!(login.accept().unwrap().protocol, ProtocolVersion::V3_0);
}

#[test]
fn broken_startup_packets_get_an_error_and_a_close() {
    let cases: &[(&[u8], &str)] = &[
        (b"\0\0\0\0", "08P01"),
        (b"\0\0\0\x07xxx", "08P01"),
        (b"\xff\xff\xff\xff", "08P01"),
        (b"\x7f\xff\xff\xff", "08P01"),
        (b"\0\0\x27\x15", "08P01"),
        (b"GET / HTTP/1.1\r\n\r\n", "08P01"),
        (b"\0\0\0\x08\0\x03\0\0", "08P01"),
        (b"\0\0\0\x0d\0\x03\0\0user\0", "08P01"),
        (b"\0\0\0\x08\0\x02\0\0", "0A000"),
        (b"\0\0\0\x09\0\x03\0\0\0", "28000"),
        (b"\0\0\0\x0b\x04\xd2\x16\x2e\0\0\0", "08P01"),
    ];
    for (packet, sqlstate) in cases {
        let log = log(config(TlsPolicy::Optional), ACCEPTING, &[packet]);
        assert_eq!(log.len(), 3, "{log:?}");
        assert!(log[1].starts_with(&format!("fatal {sqlstate}")), "{log:?}");
        assert_eq!(log[2], "close");
    }
}

#[test]
fn the_longest_startup_packet_passes_and_one_byte_more_does_not() {
    let sized = |total: usize| {
        let fixed = startup(0, &[("user", "a"), ("x", "")]).len();
        startup(0, &[("user", "a"), ("x", &"y".repeat(total - fixed))])
    };
    let fits = log(config(TlsPolicy::Off), ACCEPTING, &[&sized(10_004)]);
    assert!(fits[0].starts_with("startup"));
    let over = log(config(TlsPolicy::Off), ACCEPTING, &[&sized(10_005)]);
    assert!(over[1].starts_with("fatal 08P01"));
}

#[test]
fn oauth_gives_the_token_and_a_refusal_waits_for_the_dummy_answer() {
    let oauth = Gateway {
        oauth: true,
        accept: false,
        ..ACCEPTING
    };
    let mut dummy = BytesMut::new();
    frontend::sasl_response(&mut dummy, b"\x01").unwrap();
    let first = oauth_first(b"n,,\x01auth=Bearer abc.def\x01\x01");
    let flights: &[&[u8]] = &[SSL_REQUEST, &ann(), &first, &dummy];
    let refused = log(config(TlsPolicy::Required), oauth, flights);
    assert_eq!(
        refused[3..],
        [
            "sasl OAUTHBEARER",
            "token abc.def Oauth",
            "continue {\\\"status\\\":\\\"invalid_token\\\",\\\"openid-configuration\\\":\\\"https://idp.example/.well-known/openid-configuration\\\",\\\"scope\\\":\\\"db\\\"}",
            "fatal 28P01 no",
            "close",
        ]
    );
    // Anything but the dummy answer is a broken client.
    let flights: &[&[u8]] = &[SSL_REQUEST, &ann(), &first, &password("x")];
    let broken = log(config(TlsPolicy::Required), oauth, flights);
    assert!(broken[broken.len() - 2].starts_with("fatal 08P01"));
    // Without a token the client wants to know where to get one.
    let flights: &[&[u8]] = &[
        SSL_REQUEST,
        &ann(),
        &oauth_first(b"n,,\x01auth=\x01\x01"),
        &dummy,
    ];
    let discovery = log(config(TlsPolicy::Required), oauth, flights);
    assert!(discovery[4].starts_with("continue"));
    assert!(discovery[5].starts_with("fatal 28000"));
    let accepting = Gateway {
        accept: true,
        ..oauth
    };
    let flights: &[&[u8]] = &[SSL_REQUEST, &ann(), &first];
    let (login, _) = run(config(TlsPolicy::Required), accepting, flights, usize::MAX);
    assert!(login.accept().is_ok());
}

#[test]
fn credentials_are_not_asked_for_over_an_unprotected_connection() {
    let mut far = config(TlsPolicy::Optional);
    far.loopback = false;
    let password = log(far.clone(), ACCEPTING, &[&ann()]);
    assert_eq!(
        password[1..],
        [
            LoginError::Unprotected.to_string(),
            "fatal 28000 this login method requires TLS".into(),
            "close".into()
        ]
    );
    // OAUTHBEARER not even on loopback.
    let oauth = Gateway {
        oauth: true,
        ..ACCEPTING
    };
    let oauth = log(config(TlsPolicy::Optional), oauth, &[&ann()]);
    assert_eq!(oauth[1..], password[1..]);
}

#[test]
fn what_comes_after_the_password_is_the_sessions() {
    let flight = [&password("t0k")[..], b"Q\0\0\0\x0dselect 1\0", b"X\0"].concat();
    let (login, _) = run(
        config(TlsPolicy::Off),
        ACCEPTING,
        &[&ann(), &flight],
        usize::MAX,
    );
    assert_eq!(
        login.accept().unwrap().leftover,
        &b"Q\0\0\0\x0dselect 1\0X\0"[..]
    );
}

#[test]
fn a_client_certificate_is_accepted_without_a_question() {
    let mut login = DownstreamLogin::new(config(TlsPolicy::Off));
    let flight = [&ann()[..], b"early"].concat();
    login.handle_input(Bytes::from(flight)).unwrap();
    assert!(matches!(
        login.poll_output(),
        Some(DownstreamOutput::Startup(_))
    ));
    assert_eq!(login.accept().unwrap().leftover, "early");
}

#[test]
fn messages_that_have_no_place_in_a_login_end_it() {
    let large = [&b"p"[..], &70_000u32.to_be_bytes()].concat();
    let cases: &[(&[u8], &str)] = &[
        (b"Q\0\0\0\x0dselect 1\0", "08P01"),
        (b"X\0\0\0\x04", "08P01"),
        (b"p\0\0\0\x05\0", "28P01"),
        (b"p\0\0\0\x04", "08P01"),
        (b"p\0\0\0\x06ab", "08P01"),
        (b"p\0\0\0\x07a\0b", "08P01"),
        (b"p\0\0\0\x03", "08P01"),
        (b"p\xff\xff\xff\xff", "08P01"),
        (&large, "08P01"),
    ];
    for (flight, sqlstate) in cases {
        let log = log(config(TlsPolicy::Off), ACCEPTING, &[&ann(), flight]);
        assert_eq!(log.len(), 5, "{log:?}");
        assert!(log[3].starts_with(&format!("fatal {sqlstate}")), "{log:?}");
        assert_eq!(log[4], "close");
    }
}

#[test]
fn an_agent_that_talks_on_while_the_gateway_thinks_is_bounded() {
    let mut login = DownstreamLogin::new(config(TlsPolicy::Off));
    login.handle_input(Bytes::from(ann())).unwrap();
    assert!(!login.wants_input());
    let part = Bytes::from(vec![b'p'; 16 << 10]);
    let results: Vec<_> = (0..8).map(|_| login.handle_input(part.clone())).collect();
    assert_eq!(results[0], Ok(()));
    assert!(results.contains(&Err(LoginError::EarlyBytes)));
    assert_eq!(login.frames.buffered(), 0);
}

#[test]
fn nothing_but_a_judged_login_can_be_accepted() {
    let fresh = || DownstreamLogin::new(config(TlsPolicy::Off));
    assert_eq!(fresh().accept().map(|_| ()), Err(LoginError::Misuse));
    for flights in [
        &[&ann()[..5]][..],
        &[&ann()],
        &[&ann(), &password("")],
        &[CANCEL_REQUEST],
    ] {
        // Whoever was asked for a password must have sent one.
        let (login, _) = run(config(TlsPolicy::Off), ACCEPTING, flights, usize::MAX);
        assert_eq!(login.accept().map(|_| ()), Err(LoginError::Misuse));
    }
    let refusing = Gateway {
        accept: false,
        ..ACCEPTING
    };
    let flights: &[&[u8]] = &[&ann(), &password("x")];
    let (mut login, log) = run(config(TlsPolicy::Off), refusing, flights, usize::MAX);
    assert_eq!(log[log.len() - 2..], ["fatal 28P01 no", "close"]);
    // After the end everything is harmless, and nothing more comes out.
    login.refuse(&Refusal::new(b"28P01", "again"));
    login.handle_input(Bytes::from(ann())).unwrap();
    assert!(login.ask_password().is_err());
    assert!(login.poll_output().is_none());
    assert_eq!(login.accept().map(|_| ()), Err(LoginError::Misuse));
}

#[test]
fn questions_out_of_order_close_the_login() {
    let mut login = DownstreamLogin::new(config(TlsPolicy::Off));
    assert_eq!(login.ask_password(), Err(LoginError::Misuse));
    let mut log = Vec::new();
    drain(&mut login, ACCEPTING, &mut log);
    assert_eq!(log, ["fatal XX000 internal error during login", "close"]);
    let mut login = DownstreamLogin::new(DownstreamConfig::default());
    login.handle_input(Bytes::from(ann())).unwrap();
    assert_eq!(login.ask_oauth(), Err(LoginError::Misuse));
    let mut login = DownstreamLogin::new(config(TlsPolicy::Off));
    assert_eq!(
        login.tls_established(TlsFacts::default()),
        Err(LoginError::Misuse)
    );
}

#[test]
fn the_same_flights_cut_anywhere_give_the_same_login() {
    let first = oauth_first(b"n,,\x01auth=Bearer abc\x01\x01");
    let dummy: &[u8] = b"p\0\0\0\x05\x01";
    let three_two = startup(
        3,
        &[("user", "ann"), ("_pq_.x", "y"), ("options", "-c a=b")],
    );
    let refusing = Gateway {
        oauth: true,
        accept: false,
        alpn: None,
    };
    let scripts: &[(TlsPolicy, Gateway, &[&[u8]])] = &[
        (
            TlsPolicy::Off,
            ACCEPTING,
            &[GSSENC_REQUEST, SSL_REQUEST, &three_two, &password("t0k")],
        ),
        (
            TlsPolicy::Required,
            refusing,
            &[SSL_REQUEST, &ann(), &first, dummy],
        ),
        (TlsPolicy::Off, ACCEPTING, &[CANCEL_REQUEST]),
        (TlsPolicy::Off, ACCEPTING, &[&ann(), b"Q\0\0\0\x04"]),
    ];
    for (policy, gateway, flights) in scripts {
        let whole = run(config(*policy), *gateway, flights, usize::MAX).1;
        for cut in 1..80 {
            let log = run(config(*policy), *gateway, flights, cut).1;
            assert_eq!(log, whole, "in pieces of {cut}");
        }
    }
}

#[test]
fn every_truncation_only_waits() {
    let flights: &[&[u8]] = &[SSL_REQUEST, &ann(), &password("t0k")];
    for (index, flight) in flights.iter().enumerate() {
        let before = run(
            config(TlsPolicy::Optional),
            ACCEPTING,
            &flights[..index],
            usize::MAX,
        )
        .1;
        for cut in 0..flight.len() {
            let mut some = flights[..index].to_vec();
            some.push(&flight[..cut]);
            let (login, log) = run(config(TlsPolicy::Optional), ACCEPTING, &some, usize::MAX);
            assert_eq!(log, before);
            assert!(login.wants_input());
        }
    }
}

#[test]
fn welcome_is_what_a_server_says() {
    let parameters = [(&b"a"[..], &b"b"[..])];
    let bytes = welcome(parameters, 7, &[1; 32], b'I').unwrap();
    assert_eq!(
        describe(&bytes),
        "Ok; ParameterStatus(ParameterStatus { name: [97], value: [98] }); \
         BackendKeyData(BackendKeyData { process_id: 7, .. }); ReadyForQuery(73)"
    );
    assert!(welcome(parameters, 7, &[1; 3], b'I').is_err());
}

#[test]
fn debug_shows_no_token() {
    let mut login = DownstreamLogin::new(config(TlsPolicy::Off));
    login.handle_input(Bytes::from(ann())).unwrap();
    login.ask_password().unwrap();
    login
        .handle_input(Bytes::from(password("hunter2")))
        .unwrap();
    let mut shown = format!("{login:?}");
    while let Some(output) = login.poll_output() {
        shown.push_str(&format!("{output:?}"));
    }
    assert!(
        shown.contains("Token") && !shown.contains("hunter2") && !shown.contains("104"),
        "{shown}"
    );
}

proptest! {
    #[test]
    fn random_flights_never_panic_and_never_log_in_without_a_token(
        flights in prop::collection::vec(prop_oneof![
            Just(SSL_REQUEST.to_vec()),
            Just(GSSENC_REQUEST.to_vec()),
            Just(CANCEL_REQUEST.to_vec()),
            Just(ann()),
            Just(password("t")),
            Just(oauth_first(b"n,,\x01auth=Bearer abc\x01\x01")),
            prop::collection::vec(any::<u8>(), 0..20),
        ], 0..6),
        oauth: bool,
        accept: bool,
        optional: bool,
        cut in 1usize..20,
    ) {
        let policy = if optional { TlsPolicy::Optional } else { TlsPolicy::Off };
        let gateway = Gateway { oauth, accept, alpn: None };
        let flights: Vec<&[u8]> = flights.iter().map(Vec::as_slice).collect();
        let (login, log) = run(config(policy), gateway, &flights, cut);
        let token = log.iter().any(|line| line.starts_with("token"));
        let closed = log.iter().filter(|line| *line == "close").count();
        prop_assert!(closed <= 1);
        if login.accept().is_ok() {
            prop_assert!(token && accept && closed == 0);
        }
    }
}
