//! Writes the seed corpora into `corpus/`: `cargo run --example seeds` in this folder. What is there
//! already under the same name is replaced; nothing is removed.

use std::path::Path;

use aws_lc_rs::{hmac, pbkdf2};
use bytes::{BufMut, BytesMut};
use postgres::startup::{ProtocolVersion, SSL_REQUEST_CODE, startup_message};
use postgres::wire::backend::{self, Field, ReportBuilder};
use postgres::wire::frontend::{self, Kind, Query};
use recorder::{
    Body, FrameHead, FrameKind, Header, SessionId, WriterBody, chain_start, encode_frame,
};

fn save(target: &str, name: &str, parts: &[&[u8]]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join(name), parts.concat()).expect("a file");
}

fn main() {
    frames();
    logins();
    upstream();
    session();
    records();
    texts();
}

fn frames() {
    let mut out = BytesMut::new();
    Query { text: b"select 1" }.encode(&mut out).expect("short");
    frontend::parse(&mut out, b"s", b"select $1", &[25, 0]).expect("short");
    frontend::bind(&mut out, b"p", b"s", &[0], &[Some(b"x"), None], &[1]).expect("short");
    frontend::Describe {
        kind: Kind::Portal,
        name: b"p",
    }
    .encode(&mut out)
    .expect("short");
    frontend::Execute {
        portal: b"p",
        max_rows: 2,
    }
    .encode(&mut out)
    .expect("short");
    frontend::Close {
        kind: Kind::Statement,
        name: b"s",
    }
    .encode(&mut out)
    .expect("short");
    frontend::function_call(&mut out, 7, &[0, 1], &[Some(b"a"), None], 1).expect("short");
    frontend::copy_data(&mut out, &[b'r'; 100]).expect("short");
    frontend::copy_fail(&mut out, b"enough").expect("short");
    frontend::sync(&mut out);
    frontend::password(&mut out, b"token").expect("short");
    save("pg_frames", "frontend", &[&[0, 3, 1, 5, 40], &out]);
    save("pg_frames", "frontend-refused", &[&[1, 1, 7], &out]);
    let mut out = BytesMut::new();
    let field = Field {
        name: b"a",
        table_oid: 9,
        attribute: 1,
        type_oid: 25,
        type_size: -1,
        type_modifier: -1,
        format: 0,
    };
    backend::row_description(&mut out, &[field, field]).expect("short");
    backend::data_row(&mut out, [Some(&b"x"[..]), None].into_iter()).expect("short");
    backend::data_row(&mut out, [Some(&[b'y'; 90][..])].into_iter()).expect("short");
    backend::command_complete(&mut out, b"SELECT 2").expect("short");
    ReportBuilder::bare(b'E')
        .field(b'S', b"ERROR")
        .field(b'C', b"22012")
        .field(b'M', b"no")
        .encode(&mut out)
        .expect("short");
    backend::notification(&mut out, 1, b"c", b"p").expect("short");
    backend::parameter_status(&mut out, b"TimeZone", b"UTC").expect("short");
    backend::parameter_description(&mut out, &[25]).expect("short");
    backend::function_call_response(&mut out, None).expect("short");
    backend::copy_response(&mut out, b'H', false, &[0, 0]).expect("short");
    backend::authentication_sasl(&mut out, &[b"SCRAM-SHA-256"]).expect("short");
    backend::negotiate_protocol_version(&mut out, 196608, &[b"_pq_.x"]).expect("short");
    backend::ready_for_query(&mut out, b'I');
    save("pg_frames", "backend", &[&[0, 2, 3, 11], &out]);
    save("pg_frames", "backend-runs", &[&[2, 1, 0], &out]);
}

fn startup() -> BytesMut {
    let mut out = BytesMut::new();
    let pairs: [(&[u8], &[u8]); 4] = [
        (b"user", b"a"),
        (b"database", b"t"),
        (b"options", b"-c a=1 --b-c=2"),
        (b"client_encoding", b"UTF8"),
    ];
    startup_message(&mut out, ProtocolVersion::V3_2, pairs).expect("short");
    out
}

fn logins() {
    let start = startup();
    save("pg_startup", "startup", &[&[0], &start[4..]]);
    save(
        "pg_startup",
        "ssl",
        &[&[0], &SSL_REQUEST_CODE.to_be_bytes()],
    );
    save("pg_startup", "gss", &[&[0], &80_877_104u32.to_be_bytes()]);
    save(
        "pg_startup",
        "cancel",
        &[
            &[0],
            &80_877_102u32.to_be_bytes(),
            &[0, 0, 0, 9, 1, 2, 3, 4],
        ],
    );
    save(
        "pg_startup",
        "replication",
        &[
            &[0, 0, 3, 0, 0],
            b"user\0a\0replication\0database\0_pq_.x\x001\0\0",
        ],
    );
    save(
        "pg_startup",
        "options",
        &[
            &[1],
            br"-c geqo=off --statement-timeout=5min -c datestyle=ISO,\ MDY -E x",
        ],
    );
    let mut password = BytesMut::new();
    frontend::password(&mut password, b"token").expect("short");
    let mut oauth = BytesMut::new();
    let data = Some(&b"n,,\x01auth=Bearer abc\x01\x01"[..]);
    frontend::SaslInitialResponse {
        mechanism: b"OAUTHBEARER",
        data,
    }
    .encode(&mut oauth)
    .expect("short");
    let mut ssl = BytesMut::new();
    postgres::startup::ssl_request(&mut ssl);
    let say = |bytes: &[u8], size: u8| [&[bytes.len() as u8, size], bytes].concat();
    let t = "pg_downstream_login";
    save(
        t,
        "loopback-password",
        &[&[8, 0, 2, 0, 0], &say(&start, 0), &say(&password, 1)],
    );
    save(
        t,
        "loopback-refused",
        &[&[8, 0, 3, 0, 0], &say(&start, 9), &say(&password, 0)],
    );
    save(
        t,
        "tls-password",
        &[
            &[2, 0, 0, 2, 0],
            &say(&ssl, 0),
            &say(&start, 0),
            &say(&password, 0),
        ],
    );
    save(
        t,
        "tls-oauth",
        &[
            &[17, 8, 1, 2, 0],
            &say(&ssl, 3),
            &say(&start, 7),
            &say(&oauth, 0),
        ],
    );
    save(
        t,
        "tls-oauth-refused",
        &[
            &[17, 8, 1, 3, 0],
            &say(&ssl, 0),
            &say(&start, 0),
            &say(&oauth, 0),
            &say(b"p\0\0\0\x05\x01", 0),
        ],
    );
    save(
        t,
        "direct-tls",
        &[
            &[6, 8, 0, 2, 0],
            &say(b"\x16\x03\x01\0\0", 0),
            &say(&start, 0),
            &say(&password, 0),
        ],
    );
    save(
        t,
        "stuffed",
        &[&[1, 0, 0, 0, 0], &say(&[&ssl[..], &start[..]].concat(), 0)],
    );
    save(
        t,
        "cancel",
        &[
            &[8, 0, 0, 0, 0],
            &say(&[0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 9, 1, 2, 3, 4], 2),
        ],
    );
    save(
        t,
        "lost",
        &[
            &[24, 0, 0, 0, 0],
            &say(&start, 0),
            &[200, 201, 202, 203, 204],
        ],
    );
}

/// What a server sends to let the client of the target in, SCRAM included.
fn upstream() {
    let mut end = BytesMut::new();
    backend::authentication_ok(&mut end);
    backend::parameter_status(&mut end, b"server_version", b"18.0").expect("short");
    backend::backend_key_data(&mut end, 4711, &[1, 2, 3, 4]).expect("short");
    ReportBuilder::bare(b'N')
        .field(b'S', b"NOTICE")
        .field(b'C', b"00000")
        .field(b'M', b"hello")
        .encode(&mut end)
        .expect("short");
    backend::ready_for_query(&mut end, b'I');
    end.put_slice(b"rest");
    let t = "pg_upstream_login";
    save(t, "trust", &[&[64, 2, 3, 17], &end]);
    let mut md5 = BytesMut::new();
    backend::authentication_md5_password(&mut md5, [1, 2, 3, 4]);
    save(t, "md5", &[&[16, 0], &md5, &end]);
    let mut clear = BytesMut::new();
    backend::authentication_cleartext_password(&mut clear);
    save(t, "clear", &[&[2 | 32, 1, 9], &clear, &end]);
    save(t, "clear-refused", &[&[32, 0], &clear, &end]);
    save(t, "tls", &[&[1 | 64, 2, 1, 200], b"S", &end]);
    save(t, "tls-refused", &[&[1, 0], b"N"]);
    let mut refused = BytesMut::new();
    ReportBuilder::bare(b'E')
        .field(b'S', b"FATAL")
        .field(b'C', b"28P01")
        .field(b'M', b"no")
        .encode(&mut refused)
        .expect("short");
    save(t, "refused", &[&[0, 1, 4], &refused]);
    let mut old = BytesMut::new();
    backend::negotiate_protocol_version(&mut old, 196_608, &[]).expect("short");
    save(t, "negotiated", &[&[64, 0], &old, &end]);
    save(t, "scram", &[&[4, 3, 7, 2, 90], &scram(), &end]);
}

fn scram() -> BytesMut {
    // The client's nonce is fixed, so this exchange is valid whenever it is replayed.
    let first =
        postgres::scram::ClientFirst::new(postgres::scram::ChannelBinding::Unsupported, [7; 24]);
    let message = first.message();
    let bare = message.strip_prefix("n,,").expect("no channel binding");
    let nonce = bare.split_once("r=").expect("a nonce").1;
    let server_first = format!("r={nonce}srv,s=c2FsdHNhbHQ=,i=1");
    let without_proof = format!("c=biws,r={nonce}srv");
    let signed = format!("{bare},{server_first},{without_proof}");
    let mut salted = [0; 32];
    let rounds = std::num::NonZeroU32::MIN;
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        rounds,
        b"saltsalt",
        portcullis_fuzz::pg_upstream_login::PASSWORD.as_bytes(),
        &mut salted,
    );
    let sign = |key: &[u8], data: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    let server_key = sign(&salted, b"Server Key");
    let signature = sign(server_key.as_ref(), signed.as_bytes());
    let mut out = BytesMut::new();
    backend::authentication_sasl(&mut out, &[b"SCRAM-SHA-256"]).expect("short");
    backend::authentication_sasl_continue(&mut out, server_first.as_bytes()).expect("short");
    let last = format!("v={}", base64(signature.as_ref()));
    backend::authentication_sasl_final(&mut out, last.as_bytes()).expect("short");
    out
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let bits = three
            .iter()
            .chain([&0, &0])
            .take(3)
            .fold(0usize, |n, b| n << 8 | usize::from(*b));
        for place in 0..4 {
            let digit = ALPHABET[bits >> (18 - 6 * place) & 63];
            out.push(if place <= three.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    out
}

/// Operations of `pg_session`: agent messages are `[0, kind, choice, more]`, 5 lets the
/// model server answer, 11 decides (0 forwards, 1 refuses), 9 is a message of the server.
fn session() {
    let t = "pg_session";
    for text in 0..16u8 {
        save(
            t,
            &format!("query-{text:02}"),
            &[&[1, 0, 0, 0, text, 0, 5, 0, 13, 0, 0, 5, 0, 15, 0, 0, 5]],
        );
    }
    let prepared = [
        0, 2, 0x51, 0, 0, 4, 0x51, 0, 0, 8, 0x51, 1, 0, 6, 0x51, 0, 0, 10, 0, 0,
    ];
    save(t, "extended", &[&[1, 2, 3, 0], &prepared, &[5]]);
    save(
        t,
        "extended-decided",
        &[&[0, 0], &prepared, &[11, 0, 11, 0, 11, 0, 5]],
    );
    save(
        t,
        "extended-refused",
        &[&[0, 0], &prepared, &[11, 0, 11, 1, 5, 11, 0, 5, 15, 0]],
    );
    save(
        t,
        "small-limits",
        &[&[5, 1, 9], &prepared, &[5, 0, 0, 1, 0, 5]],
    );
    save(
        t,
        "held-parked",
        &[&[0, 0, 0, 0, 1, 0, 15, 6, 0, 10, 0, 0, 11, 0, 5]],
    );
    save(
        t,
        "server-first",
        &[&[1, 0, 9, 3, 0, 0, 9, 4, 0, 0, 9, 5, 0, 0, 9, 6, 0, 0]],
    );
    save(
        t,
        "rows-in-parts",
        &[&[
            5, 1, 3, 0, 0, 1, 0, 9, 15, 0, 0, 9, 2, 0, 0, 9, 0, 1, 3, 9, 0, 2, 3, 9, 7, 0, 0, 9, 8,
            0, 0,
        ]],
    );
    save(
        t,
        "copy-out-in-parts",
        &[&[
            1, 0, 0, 0, 8, 0, 9, 10, 0, 1, 9, 11, 1, 3, 9, 11, 2, 3, 9, 13, 0, 0, 9, 7, 0, 0, 9, 8,
            0, 0,
        ]],
    );
    save(
        t,
        "call",
        &[&[1, 0, 0, 12, 7, 0, 5, 0, 12, 0, 2, 0, 12, 0, 3]],
    );
    save(
        t,
        "raw",
        &[
            &[1, 0, 4, 15, b'Q', 0, 0, 0, 13],
            b"select 1\0",
            &[0, 8, 6, b'Z', 0, 0, 0, 5, b'I'],
        ],
    );
}

fn records() {
    let session = SessionId::from_bytes([3; 16]);
    let t = "record_read";
    let header = Header {
        segment: 2,
        first_position: 9,
        created_us: 1,
        writer: session,
        previous: [4; 32],
    };
    save(t, "header", &[&[0], &header.encode()]);
    let body = Body::Request {
        unit: 1,
        kind: "query".into(),
        name: b"n".to_vec(),
        text_masked: b"select 1".to_vec(),
        text_length: 8,
        digest: [5; 32],
        binds_masked: vec![Some(b"x".to_vec()), None],
        truncated: false,
        decision: None,
    }
    .encode()
    .expect("small");
    let end = Body::SessionEnd {
        reason: "agent closed".into(),
        requests: 1,
        denied: 0,
        bytes_down: 2,
        bytes_up: 3,
    }
    .encode()
    .expect("small");
    let head = FrameHead {
        kind: FrameKind::Session,
        shard: 1,
        session,
        sequence: 0,
        position: 9,
        wall_clock_us: 7,
        previous: chain_start(session),
    };
    let mut frame = Vec::new();
    encode_frame(&mut frame, &head, &body);
    save(t, "frame", &[&[1], &frame, b"more"]);
    save(t, "request", &[&[2], &body]);
    save(t, "end", &[&[2], &end]);
    save(
        t,
        "writer",
        &[
            &[2],
            &WriterBody::Closed { rotated: true }
                .encode()
                .expect("small"),
        ],
    );
    save(t, "damaged", &[&[3, 1, 128, 0, 90], &end]);
    save(
        t,
        "shown",
        &[
            &[4],
            "a\u{202e}b\x1b]52;c;x\x07\n\u{200b}\u{e0041}".as_bytes(),
            &[0xff, 0xc2],
        ],
    );
}

fn texts() {
    let tokens = [
        ["AKIA", "IOSFODNN7EXAMPLE"],
        ["ghp_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq17"],
        ["glpat-", "x7Kq2mZpT9vLrB4cN8sW"],
        [
            "eyJ",
            "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl",
        ],
        ["postgres://app:", "s3cr3t@db/app"],
        ["aws secret ", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"],
        ["password Tq7vXz2LmP9d", "Rk4WbN8s sk-ant-password"],
    ];
    for (index, [a, b]) in tokens.iter().enumerate() {
        save(
            "masking_cuts",
            &format!("token-{index}"),
            &[
                &[index as u8 & 2, 2, 3, 20],
                a.as_bytes(),
                b.as_bytes(),
                b" end",
            ],
        );
    }
    save(
        "masking_cuts",
        "tangled",
        &[
            &[1, 2, 2, 9],
            b"-abcabc-abca-acc-abc-acac-b-babab-CBA abababab cabc-abccac-",
        ],
    );
    save(
        "masking_cuts",
        "tangled-filled",
        &[
            &[7, 1, 5],
            &(0..120u8)
                .map(|n| n.wrapping_mul(37) >> 3)
                .collect::<Vec<_>>(),
        ],
    );
    let t = "proxy_protocol";
    let start = b"\r\n\r\n\0\r\nQUIT\n";
    save(
        t,
        "v4",
        &[
            start,
            &[
                0x21, 0x11, 0, 12, 192, 0, 2, 7, 127, 0, 0, 1, 0x30, 0x39, 0x15, 0x38,
            ],
            b"rest",
        ],
    );
    save(t, "v6", &[start, &[0x21, 0x21, 0, 36], &[9; 36]]);
    save(t, "local", &[start, &[0x20, 0, 0, 0]]);
    save(t, "tlv", &[start, &[0x21, 0x11, 0, 16], &[1; 16]]);
    let t = "config";
    save(t, "short", &[b"[gateway]\nshards = 0\nshard = 1\n[[listeners]]\nname = \"a\"\naddress = '127.0.0.1:1'\n"]);
    save(t, "roles", &["[[roles]]\nname = \"é\"\n[[roles.rules]]\nname=\"r\"\naction = \"deny\"\nwhen = '''x'''\n[control]\naddress = 5\n".as_bytes()]);
    save(t, "secret", &[b"[[targets]]\nname=\"t\"\npassword = { env = \"X\", file = \"y\" }\nhosts = [1, 'a']\n"]);
    save(t, "broken", &["a = \"\u{1F512}\nb = [1,\n[x\n".as_bytes()]);
}
