//! The untyped packets and the `options` parameter.

use bytes::{Bytes, BytesMut};
use postgres::startup::{StartupOptions, StartupPacket, startup_message};

use crate::input::Input;

/// Input: a mode; then the packet behind its length, or the value of `options`.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.byte();
    let bytes = Bytes::copy_from_slice(input.rest());
    if mode & 1 == 1 {
        return options(bytes);
    }
    match StartupPacket::decode(&bytes) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(StartupPacket::SslRequest | StartupPacket::GssEncRequest) => assert_eq!(bytes.len(), 4),
        Ok(StartupPacket::Cancel(request)) => {
            let again = request.encode().expect("what was decoded");
            assert_eq!(&again[4..], &bytes[..]);
        }
        Ok(StartupPacket::Startup(startup)) => {
            assert!(!startup.user.is_empty() && !startup.database.is_empty());
            for (name, _) in startup.settings() {
                assert!(!name.is_empty());
                if let Ok(name) = std::str::from_utf8(name) {
                    assert!(startup.setting(name).is_some());
                }
            }
            // Another case of a name that is written anew would be a duplicate of it.
            let names = [&b"user"[..], b"database", b"options"];
            let twin =
                |(name, _): &(Bytes, Bytes)| names.iter().any(|n| name.eq_ignore_ascii_case(n));
            if startup.parameters.iter().any(twin) {
                return;
            }
            // Written anew, in our order, it says the same.
            let fixed = [
                (&b"user"[..], &startup.user[..]),
                (b"database", &startup.database),
            ];
            let parameters = startup.parameters.iter().map(|(n, v)| (&n[..], &v[..]));
            let options = [(&b"options"[..], &startup.options.raw[..])];
            let mut out = BytesMut::new();
            let all = fixed.into_iter().chain(options).chain(parameters);
            startup_message(&mut out, startup.protocol, all).expect("what was decoded");
            let body = out.freeze().slice(4..);
            let Ok(StartupPacket::Startup(again)) = StartupPacket::decode(&body) else {
                panic!("a start-up message of our own is refused");
            };
            assert_eq!(
                (again.user, again.database),
                (startup.user, startup.database)
            );
            assert_eq!(again.parameters, startup.parameters);
            assert_eq!(again.options, startup.options);
        }
    }
}

fn options(raw: Bytes) {
    let options = StartupOptions::read(raw.clone());
    assert_eq!(options.raw, raw);
    for (name, _) in &options.settings {
        assert!(!name.is_empty() && !name.contains(&b'=') && !name.contains(&b'-'));
    }
    if let Some(word) = options.unread.first() {
        // The first unread word is really none that sets something by itself.
        let long = word
            .strip_prefix(b"--")
            .or_else(|| word.strip_prefix(b"-c"));
        assert!(long.is_none_or(|rest| rest.first() == Some(&b'=') || !rest.contains(&b'=')));
    }
}
