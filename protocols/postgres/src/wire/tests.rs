//! All messages: round trips, the specification's bytes, truncations, trailing bytes,
//! lying lengths, random bytes.

use bytes::BytesMut;
use proptest::prelude::*;

use super::backend::{self, Authentication, BackendMessage, Field, ReportBuilder, Severity};
use super::frontend::{self, FrontendMessage, Kind, SaslInitialResponse, Secret};
use crate::error::{Refusal, WireError};

fn encoded(write: impl FnOnce(&mut BytesMut) -> Result<(), WireError>) -> Vec<u8> {
    let mut out = BytesMut::new();
    write(&mut out).unwrap();
    // The length counts itself and the body.
    let length = u32::from_be_bytes(out[1..5].try_into().unwrap());
    assert_eq!(length as usize, out.len() - 1);
    out.to_vec()
}

fn plain(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    encoded(|out| {
        write(out);
        Ok(())
    })
}

const FIELD: Field<'static> = Field {
    name: b"id",
    table_oid: 16384,
    attribute: 1,
    type_oid: 23,
    type_size: 4,
    type_modifier: -1,
    format: 0,
};

/// Frontend messages, and whether their layout is fixed (every cut and every byte more
/// is an error).
fn frontend_samples() -> Vec<(Vec<u8>, bool)> {
    use frontend as f;
    let (portal, name) = (&b"p1"[..], &b"s1"[..]);
    let values: &[Option<&[u8]>] = &[Some(b"x"), None, Some(b"")];
    vec![
        (encoded(|o| f::Query { text: b"select 1" }.encode(o)), true),
        (encoded(|o| f::parse(o, name, b"select $1", &[23, 0])), true),
        (
            encoded(|o| f::bind(o, portal, name, &[1], values, &[0, 1])),
            true,
        ),
        (
            encoded(|o| {
                f::Describe {
                    kind: Kind::Portal,
                    name,
                }
                .encode(o)
            }),
            true,
        ),
        (
            encoded(|o| {
                f::Close {
                    kind: Kind::Statement,
                    name,
                }
                .encode(o)
            }),
            true,
        ),
        (
            encoded(|o| {
                f::Execute {
                    portal,
                    max_rows: 5,
                }
                .encode(o)
            }),
            true,
        ),
        (
            encoded(|o| f::function_call(o, 1299, &[0], values, 1)),
            true,
        ),
        (encoded(|o| f::copy_data(o, b"a\tb\n")), false),
        (encoded(|o| f::copy_fail(o, b"why")), true),
        (encoded(|o| f::password(o, b"secret")), false),
        (plain(f::copy_done), true),
        (plain(f::sync), true),
        (plain(f::flush), true),
        (plain(f::terminate), true),
    ]
}

fn backend_samples() -> Vec<(Vec<u8>, bool)> {
    use backend as b;
    let report = ReportBuilder::new(Severity::Error, b"42601", b"syntax error")
        .detail(b"d")
        .hint(b"h")
        .field(b'P', b"1");
    let row: [Option<&[u8]>; 3] = [Some(b"1"), None, Some(b"")];
    let copy = |tag| encoded(move |o| b::copy_response(o, tag, true, &[1, 1]));
    vec![
        (plain(b::authentication_ok), true),
        (plain(b::authentication_cleartext_password), true),
        (
            plain(|o| b::authentication_md5_password(o, [1, 2, 3, 4])),
            true,
        ),
        (
            encoded(|o| b::authentication_sasl(o, &[b"A", b"B-PLUS"])),
            true,
        ),
        (
            encoded(|o| b::authentication_sasl_continue(o, b"r=x")),
            false,
        ),
        (encoded(|o| b::authentication_sasl_final(o, b"v=x")), false),
        (encoded(|o| b::backend_key_data(o, 7, &[9; 32])), false),
        (
            encoded(|o| b::parameter_status(o, b"TimeZone", b"UTC")),
            true,
        ),
        (
            encoded(|o| b::negotiate_protocol_version(o, 0x30000, &[b"_pq_.x"])),
            true,
        ),
        (plain(|o| b::ready_for_query(o, b'T')), true),
        (encoded(|o| report.encode(o)), true),
        (
            encoded(|o| ReportBuilder::new(Severity::Notice, b"00000", b"").encode(o)),
            true,
        ),
        (encoded(|o| b::row_description(o, &[FIELD, FIELD])), true),
        (encoded(|o| b::data_row(o, row.iter().copied())), true),
        (encoded(|o| b::command_complete(o, b"SELECT 1")), true),
        (
            encoded(|o| b::notification(o, 7, b"channel", b"payload")),
            true,
        ),
        (encoded(|o| b::function_call_response(o, Some(b"x"))), true),
        (encoded(|o| b::function_call_response(o, None)), true),
        (encoded(|o| b::parameter_description(o, &[23, 25])), true),
        (copy(backend::tag::COPY_IN_RESPONSE), true),
        (copy(backend::tag::COPY_OUT_RESPONSE), true),
        (copy(backend::tag::COPY_BOTH_RESPONSE), true),
        (encoded(|o| frontend::copy_data(o, b"x")), false),
        (plain(frontend::copy_done), true),
        (plain(b::parse_complete), true),
        (plain(b::bind_complete), true),
        (plain(b::close_complete), true),
        (plain(b::no_data), true),
        (plain(b::portal_suspended), true),
        (plain(b::empty_query_response), true),
    ]
}

/// Decodes and walks every list, so that a lying count has its chance.
fn walk_frontend(tag: u8, body: &[u8]) -> Result<(), WireError> {
    match frontend::decode(tag, body)? {
        FrontendMessage::Bind(bind) => {
            assert_eq!(bind.values.iter().count(), bind.values.len());
            assert_eq!(bind.value_formats.iter().count(), bind.value_formats.len());
            assert!(bind.result_formats.of(3).is_some() || bind.result_formats.len() > 1);
        }
        FrontendMessage::Parse(parse) => {
            assert_eq!(
                parse.parameter_types.iter().count(),
                parse.parameter_types.len()
            );
        }
        FrontendMessage::FunctionCall(call) => {
            assert_eq!(call.arguments.iter().count(), call.arguments.len());
        }
        _ => {}
    }
    Ok(())
}

fn walk_backend(tag: u8, body: &[u8]) -> Result<(), WireError> {
    match backend::decode(tag, body)? {
        BackendMessage::Authentication(request) => {
            request
                .mechanisms()
                .for_each(|name| assert!(!name.is_empty()));
        }
        BackendMessage::RowDescription(row) => assert_eq!(row.fields().count(), row.len()),
        BackendMessage::DataRow(row) => assert_eq!(row.iter().count(), row.len()),
        BackendMessage::ErrorResponse(report) | BackendMessage::NoticeResponse(report) => {
            report.fields().for_each(|(code, _)| assert_ne!(code, 0));
            assert!(!report.is_fatal() || report.severity().is_some());
        }
        BackendMessage::NegotiateProtocolVersion(offer) => {
            offer.options().for_each(drop);
        }
        _ => {}
    }
    Ok(())
}

fn sweep(samples: Vec<(Vec<u8>, bool)>, walk: fn(u8, &[u8]) -> Result<(), WireError>) {
    for (message, fixed) in samples {
        let (tag, body) = (message[0], &message[5..]);
        walk(tag, body).unwrap();
        for cut in 0..body.len() {
            let result = walk(tag, &body[..cut]);
            assert!(
                !fixed || result.is_err(),
                "{} cut at {cut}",
                char::from(tag)
            );
        }
        for more in [&b"\0"[..], b"x", b"\0\0\0\0"] {
            let result = walk(tag, &[body, more].concat());
            assert!(
                !fixed || result.is_err(),
                "{} with {more:?} behind",
                char::from(tag)
            );
        }
        for place in 0..body.len() {
            for lie in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut lying = body.to_vec();
                lying[place] = lie;
                let _ = walk(tag, &lying);
                lying[place..].fill(lie);
                let _ = walk(tag, &lying);
            }
        }
    }
}

#[test]
fn frontend_messages_survive_truncation_trailing_bytes_and_lies() {
    sweep(frontend_samples(), walk_frontend);
}

#[test]
fn backend_messages_survive_truncation_trailing_bytes_and_lies() {
    sweep(backend_samples(), walk_backend);
}

#[test]
fn every_known_type_has_a_sample_and_every_other_is_refused() {
    let tags = |samples: &[(Vec<u8>, bool)]| samples.iter().map(|s| s.0[0]).collect::<Vec<_>>();
    let (front, back) = (tags(&frontend_samples()), tags(&backend_samples()));
    for tag in 0..=u8::MAX {
        let unknown = WireError::UnknownTag { tag };
        let front_known = frontend::decode(tag, b"") != Err(unknown);
        assert_eq!(front_known, front.contains(&tag), "{tag}");
        assert_eq!(front_known, frontend::tag::is_known(tag));
        let back_known = backend::decode(tag, b"") != Err(unknown);
        assert_eq!(back_known, back.contains(&tag), "{tag}");
    }
}

#[test]
fn frontend_bytes_are_those_of_the_specification() {
    let cases: &[(Vec<u8>, &[u8])] = &[
        (
            encoded(|o| frontend::Query { text: b"select 1" }.encode(o)),
            b"Q\0\0\0\x0dselect 1\0",
        ),
        (
            encoded(|o| frontend::parse(o, b"s", b"x", &[23])),
            b"P\0\0\0\x0es\0x\0\0\x01\0\0\0\x17",
        ),
        (
            encoded(|o| frontend::bind(o, b"", b"s", &[], &[Some(b"7"), None], &[1])),
            b"B\0\0\0\x18\0s\0\0\0\0\x02\0\0\0\x017\xff\xff\xff\xff\0\x01\0\x01",
        ),
        (
            encoded(|o| {
                frontend::Execute {
                    portal: b"",
                    max_rows: 0,
                }
                .encode(o)
            }),
            b"E\0\0\0\x09\0\0\0\0\0",
        ),
        (
            encoded(|o| {
                frontend::Describe {
                    kind: Kind::Statement,
                    name: b"s",
                }
                .encode(o)
            }),
            b"D\0\0\0\x07Ss\0",
        ),
    ];
    for (got, want) in cases {
        assert_eq!(
            got.escape_ascii().to_string(),
            want.escape_ascii().to_string()
        );
    }
}

#[test]
fn backend_bytes_are_those_of_the_specification() {
    let cases: &[(Vec<u8>, &[u8])] = &[
        (plain(backend::authentication_ok), b"R\0\0\0\x08\0\0\0\0"),
        (
            encoded(|o| backend::authentication_sasl(o, &[b"SCRAM-SHA-256"])),
            b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0",
        ),
        (
            encoded(|o| backend::backend_key_data(o, 1, &[1, 2, 3, 4])),
            b"K\0\0\0\x0c\0\0\0\x01\x01\x02\x03\x04",
        ),
        (
            encoded(|o| backend::data_row(o, [Some(&b"1"[..]), None].into_iter())),
            b"D\0\0\0\x0f\0\x02\0\0\0\x011\xff\xff\xff\xff",
        ),
        (
            encoded(|o| backend::row_description(o, &[FIELD])),
            b"T\0\0\0\x1b\0\x01id\0\0\0\x40\0\0\x01\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0",
        ),
        (
            plain(|o| backend::ready_for_query(o, b'I')),
            b"Z\0\0\0\x05I",
        ),
    ];
    for (got, want) in cases {
        assert_eq!(
            got.escape_ascii().to_string(),
            want.escape_ascii().to_string()
        );
    }
}

#[test]
fn a_bind_gives_back_its_values_and_formats() {
    let values: &[Option<&[u8]>] = &[Some(b"a"), None, Some(b"")];
    let message = encoded(|o| frontend::bind(o, b"p", b"s", &[0, 1, 0], values, &[1]));
    let bind = frontend::Bind::decode(&message[5..]).unwrap();
    assert_eq!((bind.portal, bind.statement), (&b"p"[..], &b"s"[..]));
    assert_eq!(bind.values.iter().collect::<Vec<_>>(), values);
    let formats: Vec<_> = (0..4).map(|i| bind.value_formats.of(i)).collect();
    assert_eq!(formats, [Some(0), Some(1), Some(0), None]);
    assert_eq!(bind.result_formats.of(99), Some(1));
}

#[test]
fn counts_are_read_unsigned_as_the_server_does() {
    let values = vec![None; 40_000];
    let message = encoded(|o| frontend::bind(o, b"", b"", &[], &values, &[]));
    let bind = frontend::Bind::decode(&message[5..]).unwrap();
    assert_eq!(bind.values.len(), 40_000);
    let mut out = BytesMut::from(&b"before"[..]);
    let too_many = vec![None; 65_536];
    let result = frontend::bind(&mut out, b"", b"", &[], &too_many, &[]);
    assert_eq!(result, Err(WireError::TooLong));
    assert_eq!(&out[..], b"before");
}

#[test]
fn a_value_length_below_minus_one_is_refused_wherever_values_are() {
    let lie = (-2i32).to_be_bytes();
    let row = [&b"\0\x01"[..], &lie].concat();
    assert!(matches!(
        backend::decode_data_row(&row),
        Err(WireError::BadValue { .. })
    ));
    assert!(backend::decode_function_call_response(&lie).is_err());
}

#[test]
fn a_string_with_a_zero_byte_is_not_written() {
    let mut out = BytesMut::from(&b"before"[..]);
    let nul = Err(WireError::EmbeddedNul);
    assert_eq!(frontend::Query { text: b"a\0b" }.encode(&mut out), nul);
    assert_eq!(frontend::parse(&mut out, b"a\0b", b"", &[]), nul);
    assert_eq!(frontend::password(&mut out, b"a\0b"), nul);
    assert_eq!(backend::parameter_status(&mut out, b"a", b"\0"), nul);
    assert_eq!(backend::command_complete(&mut out, b"\0"), nul);
    assert!(backend::authentication_sasl(&mut out, &[b""]).is_err());
    assert!(backend::backend_key_data(&mut out, 1, &[1; 3]).is_err());
    assert!(backend::backend_key_data(&mut out, 1, &[1; 257]).is_err());
    assert_eq!(&out[..], b"before");
}

#[test]
fn a_refusal_becomes_an_error_response_that_no_text_can_break() {
    let refusal = Refusal::new(b"42501", "no\0way").with_hint("ask");
    let message = ReportBuilder::refusal(Severity::Error, &refusal).to_bytes();
    let BackendMessage::ErrorResponse(report) = backend::decode(message[0], &message[5..]).unwrap()
    else {
        panic!("an ErrorResponse was built");
    };
    let fields: Vec<_> = report.fields().collect();
    let want: Vec<(u8, &[u8])> = vec![
        (b'S', b"ERROR"),
        (b'V', b"ERROR"),
        (b'C', b"42501"),
        (b'M', b"no way"),
        (b'H', b"ask"),
    ];
    assert_eq!(fields, want);
    assert_eq!(report.sqlstate(), Some(*b"42501"));
    assert!(!report.is_fatal());
}

#[test]
fn sasl_messages_come_back() {
    let response = SaslInitialResponse {
        mechanism: b"M",
        data: Some(b"n,,"),
    };
    let message = encoded(|o| response.encode(o));
    assert!(SaslInitialResponse::decode(&message[5..]).unwrap() == response);
    for cut in 5..message.len() {
        assert!(SaslInitialResponse::decode(&message[5..cut]).is_err());
    }
    let offer = encoded(|o| backend::authentication_sasl(o, &[b"A", b"B"]));
    let offer = Authentication::decode(&offer[5..]).unwrap();
    assert_eq!(offer.mechanisms().collect::<Vec<_>>(), [b"A", b"B"]);
    assert_eq!(
        Authentication::decode(b"\0\0\0\x07xyz").unwrap(),
        Authentication::Other(7)
    );
}

#[test]
fn debug_of_a_password_message_does_not_show_it() {
    let decoded = frontend::decode(frontend::tag::PASSWORD, b"hunter2\0").unwrap();
    assert_eq!(decoded, FrontendMessage::Password(Secret(b"hunter2\0")));
    let shown = format!("{decoded:?}");
    assert!(
        !shown.contains("104") && !shown.contains("hunter2"),
        "{shown}"
    );
}

proptest! {
    #[test]
    fn random_bodies_never_panic(tag: u8, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = walk_frontend(tag, &body);
        let _ = walk_backend(tag, &body);
    }

    #[test]
    fn rows_come_back_as_they_were(
        values in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..20)), 0..20)
    ) {
        let refs: Vec<Option<&[u8]>> = values.iter().map(Option::as_deref).collect();
        let message = encoded(|o| backend::data_row(o, refs.iter().copied()));
        let row = backend::decode_data_row(&message[5..]).unwrap();
        prop_assert_eq!(row.iter().collect::<Vec<_>>(), refs);
    }
}
