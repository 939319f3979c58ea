//! SCRAM: the RFC's vector, a server role for other tests, lies of a server.

use super::*;

/// A server that knows a password, for tests.
pub(crate) struct ScramServer {
    pub keys: ScramKeys,
    /// The hash of the server's certificate, where it has one.
    pub end_point: Option<Vec<u8>>,
    auth: String,
    gs2: Vec<u8>,
}

impl ScramServer {
    pub(crate) fn new(password: &str, iterations: u32) -> ScramServer {
        let derivation = ScramDerivation {
            password: normalise(password),
            salt: b"0123456789abcdef".to_vec(),
            iterations: NonZeroU32::new(iterations).unwrap(),
        };
        ScramServer {
            keys: derivation.run(),
            end_point: None,
            auth: String::new(),
            gs2: Vec::new(),
        }
    }

    /// Takes client-first, gives server-first.
    pub(crate) fn first(&mut self, client_first: &[u8]) -> String {
        let text = std::str::from_utf8(client_first).unwrap();
        let bare = text.find("n=").unwrap();
        self.gs2 = text.as_bytes()[..bare].to_vec();
        let bare = &text[bare..];
        let nonce = bare.split_once(",r=").unwrap().1;
        let salt = BASE64.encode(&self.keys.salt);
        let first = format!("r={nonce}srv,s={salt},i={}", self.keys.iterations);
        self.auth = format!("{bare},{first}");
        first
    }

    /// Takes client-final; gives server-final where the proof is right.
    pub(crate) fn last(&mut self, client_final: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(client_final).unwrap();
        let (without_proof, proof) = text.rsplit_once(",p=").unwrap();
        let binding = without_proof
            .split(',')
            .next()
            .unwrap()
            .strip_prefix("c=")
            .unwrap();
        let mut want = self.gs2.clone();
        if want.starts_with(b"p=") {
            want.extend(self.end_point.as_ref().unwrap());
        }
        if BASE64.decode(binding).unwrap() != want {
            return None;
        }
        let auth = format!("{},{without_proof}", self.auth);
        let signature = hmac(&self.keys.stored_key, auth.as_bytes());
        let mut client_key = BASE64.decode(proof).unwrap();
        for (byte, mask) in client_key.iter_mut().zip(signature) {
            *byte ^= mask;
        }
        (sha256(&client_key) == self.keys.stored_key).then(|| {
            format!(
                "v={}",
                BASE64.encode(hmac(&self.keys.server_key, auth.as_bytes()))
            )
        })
    }
}

#[test]
fn follows_the_exchange_of_rfc_7677_section_3() {
    let nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
    let first = ClientFirst::with_names(ChannelBinding::Unsupported, "user", nonce);
    assert_eq!(first.message(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    let first = first
        .server_first(
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            4096,
        )
        .unwrap();
    let keys = first.derivation("pencil").run();
    let (message, last) = first.client_final(&keys).unwrap();
    assert_eq!(
        message,
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    );
    last.server_final(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
        .unwrap();
}

fn exchange(binding: ChannelBinding, password: &str, server: &mut ScramServer) -> Option<bool> {
    let first = ClientFirst::new(binding, [7; 24]);
    let answer = server.first(first.message().as_bytes());
    let first = first.server_first(answer.as_bytes(), 1).unwrap();
    let keys = first.derivation(password).run();
    let (message, last) = first.client_final(&keys).unwrap();
    let answer = server.last(message.as_bytes())?;
    Some(last.server_final(answer.as_bytes()).is_ok())
}

#[test]
fn only_the_right_password_and_binding_pass() {
    let mut server = ScramServer::new("pencil", 2);
    server.end_point = Some(vec![1; 32]);
    assert_eq!(
        exchange(ChannelBinding::Unsupported, "pencil", &mut server),
        Some(true)
    );
    assert_eq!(
        exchange(ChannelBinding::NotOffered, "pencil", &mut server),
        Some(true)
    );
    let right = ChannelBinding::ServerEndPoint(vec![1; 32]);
    let wrong = ChannelBinding::ServerEndPoint(vec![2; 32]);
    assert_eq!(exchange(right, "pencil", &mut server), Some(true));
    assert_eq!(exchange(wrong, "pencil", &mut server), None);
    assert_eq!(
        exchange(ChannelBinding::Unsupported, "Pencil", &mut server),
        None
    );
}

#[test]
fn passwords_go_through_saslprep_where_they_can() {
    // RFC 4013, section 3: soft hyphen to nothing, feminine ordinal to a.
    let mut server = ScramServer::new("IXa", 2);
    let spelt = "I\u{ad}X\u{aa}";
    assert_eq!(
        exchange(ChannelBinding::Unsupported, spelt, &mut server),
        Some(true)
    );
    // A control character is prohibited: the bytes are taken as they are.
    let mut server = ScramServer::new("a\u{7}b", 2);
    assert_eq!(
        exchange(ChannelBinding::Unsupported, "a\u{7}b", &mut server),
        Some(true)
    );
}

#[test]
fn a_server_first_that_lies_is_refused() {
    let nonce = BASE64.encode([7; 24]);
    let good = format!("r={nonce}x,s=AAAA,i=4096");
    let long = "A".repeat(4 * SALT_BYTES_MAX);
    let cases: &[(String, ScramError)] = &[
        (String::new(), ScramError::Malformed("nonce")),
        (format!("m=ext,{good}"), ScramError::Malformed("nonce")),
        (format!("r={nonce},s=AAAA,i=4096"), ScramError::Nonce),
        ("r=other,s=AAAA,i=4096".into(), ScramError::Nonce),
        (
            format!("r={nonce}x y,s=AAAA,i=4096"),
            ScramError::Malformed("nonce"),
        ),
        (
            format!("r={nonce}{long},s=AAAA,i=4096"),
            ScramError::Malformed("nonce"),
        ),
        (
            format!("r={nonce}x,s=,i=4096"),
            ScramError::Malformed("salt"),
        ),
        (
            format!("r={nonce}x,s=???,i=4096"),
            ScramError::Malformed("salt"),
        ),
        (
            format!("r={nonce}x,s={long},i=4096"),
            ScramError::Malformed("salt"),
        ),
        (
            format!("r={nonce}x,i=4096,s=AAAA"),
            ScramError::Malformed("salt"),
        ),
        (
            format!("r={nonce}x,s=AAAA"),
            ScramError::Malformed("rounds"),
        ),
        (
            format!("r={nonce}x,s=AAAA,i="),
            ScramError::Malformed("rounds"),
        ),
        (
            format!("r={nonce}x,s=AAAA,i=-1"),
            ScramError::Malformed("rounds"),
        ),
        (
            format!("r={nonce}x,s=AAAA,i=+4096"),
            ScramError::Malformed("rounds"),
        ),
        (format!("r={nonce}x,s=AAAA,i=0"), ScramError::Iterations(0)),
        (
            format!("r={nonce}x,s=AAAA,i=4095"),
            ScramError::Iterations(4095),
        ),
        (
            format!("r={nonce}x,s=AAAA,i=1000001"),
            ScramError::Iterations(1_000_001),
        ),
        (
            format!("r={nonce}x,s=AAAA,i=99999999999"),
            ScramError::Iterations(u32::MAX),
        ),
    ];
    let take = |text: &[u8]| {
        ClientFirst::new(ChannelBinding::Unsupported, [7; 24]).server_first(text, 4096)
    };
    assert!(take(good.as_bytes()).is_ok());
    assert!(take(format!("{good},x=ext").as_bytes()).is_ok());
    assert!(take(b"r=\xff").is_err());
    for (text, want) in cases {
        assert_eq!(take(text.as_bytes()).map(|_| ()), Err(*want), "{text}");
    }
    for cut in 0..good.len() {
        let _ = take(&good.as_bytes()[..cut]);
    }
}

#[test]
fn a_server_final_that_lies_is_refused() {
    let keys = ScramServer::new("pencil", 1).keys;
    let cases: &[(&[u8], ScramError)] = &[
        (b"", ScramError::Malformed("verifier")),
        (b"v=", ScramError::Signature),
        (b"v=AAAA", ScramError::Signature),
        (
            b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ScramError::Signature,
        ),
        (b"v=???", ScramError::Malformed("verifier")),
        (b"e=other-error", ScramError::ServerError),
        (b"\xff", ScramError::Malformed("encoding")),
    ];
    for (message, want) in cases {
        let mut server = ScramServer::new("pencil", 1);
        let first = ClientFirst::new(ChannelBinding::Unsupported, [7; 24]);
        let answer = server.first(first.message().as_bytes());
        let first = first.server_first(answer.as_bytes(), 1).unwrap();
        let (_, last) = first.client_final(&keys).unwrap();
        assert_eq!(last.server_final(message), Err(*want));
    }
}

#[test]
fn cached_keys_fit_only_their_salt_and_rounds() {
    let mut server = ScramServer::new("pencil", 2);
    let foreign = ScramServer::new("pencil", 3).keys;
    let first = ClientFirst::new(ChannelBinding::Unsupported, [7; 24]);
    let answer = server.first(first.message().as_bytes());
    let first = first.server_first(answer.as_bytes(), 1).unwrap();
    assert!(first.takes(&server.keys));
    assert!(!first.takes(&foreign));
    assert_eq!(
        first.client_final(&foreign).map(|_| ()),
        Err(ScramError::ForeignKeys)
    );
}

#[test]
fn debug_shows_no_secret() {
    let server = ScramServer::new("pencil", 1);
    let first = ServerFirst {
        salt: vec![1],
        iterations: NonZeroU32::MIN,
        without_proof: String::new(),
        auth_message: String::new(),
    };
    let work = first.derivation("pencil");
    let last = ClientFinal {
        expected: [0xab; 32],
    };
    for shown in [
        format!("{:?}", server.keys),
        format!("{work:?}"),
        format!("{last:?}"),
    ] {
        assert!(!shown.contains("pencil") && !shown.contains("171") && !shown.contains('['));
    }
}
