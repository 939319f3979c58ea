//! Start-up packets: layouts, truncations, lying lengths.

use proptest::prelude::*;

use super::*;

fn packet(parameters: &[(&str, &str)]) -> Bytes {
    let mut out = BytesMut::new();
    let pairs = parameters.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    startup_message(&mut out, ProtocolVersion::V3_0, pairs).unwrap();
    out.freeze().slice(4..)
}

fn startup(parameters: &[(&str, &str)]) -> Result<StartupMessage, LoginError> {
    match StartupPacket::decode(&packet(parameters))? {
        StartupPacket::Startup(startup) => Ok(startup),
        other => panic!("{other:?}"),
    }
}

#[test]
fn reads_what_psql_sends() {
    let body = Bytes::from_static(
        b"\0\x03\0\0user\0ann\0database\0shop\0application_name\0psql\0client_encoding\0UTF8\0\0",
    );
    let StartupPacket::Startup(startup) = StartupPacket::decode(&body).unwrap() else {
        panic!("a start-up message");
    };
    assert_eq!(startup.protocol, ProtocolVersion::V3_0);
    assert_eq!(
        (&startup.user[..], &startup.database[..]),
        (&b"ann"[..], &b"shop"[..])
    );
    assert_eq!(startup.replication, Replication::No);
    assert_eq!(startup.parameters.len(), 2);
    assert_eq!(startup.setting("Client_Encoding").unwrap(), "UTF8");
    assert_eq!(startup.setting("database"), None);
}

#[test]
fn the_database_defaults_to_the_user() {
    assert_eq!(startup(&[("user", "ann")]).unwrap().database, "ann");
    assert_eq!(
        startup(&[("user", "ann"), ("database", "")])
            .unwrap()
            .database,
        "ann"
    );
}

#[test]
fn settings_in_options_come_before_the_parameters() {
    let startup = startup(&[
        ("TimeZone", "UTC"),
        ("options", "-c timezone=CET -c geqo=off"),
        ("user", "ann"),
    ])
    .unwrap();
    let settings: Vec<_> = startup.settings().map(|(n, v)| (&n[..], &v[..])).collect();
    let want: Vec<(&[u8], &[u8])> = vec![
        (b"timezone", b"CET"),
        (b"geqo", b"off"),
        (b"TimeZone", b"UTC"),
    ];
    assert_eq!(settings, want);
    assert_eq!(startup.setting("timezone").unwrap(), "UTC");
}

#[test]
fn protocol_options_are_kept_apart() {
    let startup = startup(&[("user", "ann"), ("_pq_.x", "1"), ("_pq", "1")]).unwrap();
    assert_eq!(startup.protocol_options, ["_pq_.x"]);
    assert_eq!(startup.parameters.len(), 1);
}

#[test]
fn replication_is_read_as_the_server_reads_it() {
    use Replication::{Logical, No, Physical};
    let cases: &[(&str, Option<Replication>)] = &[
        ("database", Some(Logical)),
        ("true", Some(Physical)),
        ("TRUE", Some(Physical)),
        ("t", Some(Physical)),
        ("y", Some(Physical)),
        ("on", Some(Physical)),
        ("1", Some(Physical)),
        ("false", Some(No)),
        ("n", Some(No)),
        ("of", Some(No)),
        ("0", Some(No)),
        ("o", None),
        ("", None),
        ("truely", None),
        ("Database", None),
        ("2", None),
    ];
    for (value, want) in cases {
        let got = startup(&[("user", "ann"), ("replication", value)]);
        match want {
            Some(want) => assert_eq!(got.unwrap().replication, *want, "{value}"),
            None => assert_eq!(got, Err(LoginError::BadReplication), "{value}"),
        }
    }
}

#[test]
fn broken_packets_are_refused_each_in_its_own_way() {
    let layout = LoginError::StartupLayout;
    let cases: &[(&[u8], LoginError)] = &[
        // Length 8: a version and nothing else.
        (b"\0\x03\0\0", layout),
        // A lone name, a name without value, a missing terminator, bytes behind it.
        (b"\0\x03\0\0user", layout),
        (b"\0\x03\0\0user\0", layout),
        (b"\0\x03\0\0user\0ann", layout),
        (b"\0\x03\0\0user\0ann\0", layout),
        (b"\0\x03\0\0user\0ann\0\0\0", layout),
        (b"\0\x03\0\0user\0ann\0\0x", layout),
        (b"\0\x03\0\0\0", LoginError::NoUser),
        (b"\0\x03\0\0user\0\0\0", LoginError::NoUser),
        (
            b"\0\x03\0\0user\0a\0user\0b\0\0",
            LoginError::DuplicateParameter,
        ),
        (
            b"\0\x03\0\0user\0a\0x\0b\0X\0c\0\0",
            LoginError::DuplicateParameter,
        ),
        (
            b"\0\x02\0\0",
            LoginError::UnsupportedProtocol { major: 2, minor: 0 },
        ),
        (
            b"\0\x04\0\0user\0a\0\0",
            LoginError::UnsupportedProtocol { major: 4, minor: 0 },
        ),
        (
            b"\xff\xff\xff\xff",
            LoginError::UnsupportedProtocol {
                major: 65535,
                minor: 65535,
            },
        ),
        (
            b"\x04\xd2\x16\x2f\0",
            LoginError::Wire(WireError::Trailing { left: 1 }),
        ),
        (
            b"\x04\xd2\x16\x30\0",
            LoginError::Wire(WireError::Trailing { left: 1 }),
        ),
        (
            b"\x04\xd2\x16",
            LoginError::Wire(WireError::Truncated { wanted: 4, left: 3 }),
        ),
        (
            b"\x04\xd2\x16\x2e\0\0\0\x01\x01\x02\x03",
            LoginError::Wire(WireError::BadValue {
                field: "secret key",
            }),
        ),
    ];
    for (body, want) in cases {
        let got = StartupPacket::decode(&Bytes::from_static(body));
        assert_eq!(got.map(|_| ()), Err(*want), "{}", body.escape_ascii());
        let refusal = want.refusal();
        assert!(refusal.sqlstate.iter().all(u8::is_ascii_alphanumeric));
    }
}

#[test]
fn every_truncation_is_refused() {
    let whole = packet(&[("user", "ann"), ("database", "shop"), ("x", "y")]);
    for cut in 0..whole.len() {
        assert!(
            StartupPacket::decode(&whole.slice(..cut)).is_err(),
            "cut at {cut}"
        );
    }
}

#[test]
fn a_parameter_that_would_end_the_list_is_not_written() {
    let mut out = BytesMut::from(&b"before"[..]);
    let version = ProtocolVersion::V3_2;
    assert!(startup_message(&mut out, version, [(&b""[..], &b"x"[..])]).is_err());
    assert!(startup_message(&mut out, version, [(&b"a\0b"[..], &b"x"[..])]).is_err());
    assert_eq!(&out[..], b"before");
}

proptest! {
    #[test]
    fn random_packets_never_panic(code in prop::sample::select(vec![
        0x0003_0000u32, 0x0003_0002, SSL_REQUEST_CODE, GSSENC_REQUEST_CODE, CANCEL_REQUEST_CODE, 0,
    ]), body in prop::collection::vec(prop::sample::select(b"user\0-c=\\ _pq.\xff".to_vec()), 0..100)) {
        let packet = [&code.to_be_bytes()[..], &body].concat();
        let _ = StartupPacket::decode(&Bytes::from(packet));
    }
}
