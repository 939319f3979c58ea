//! The target's login: ready only after a login as good as was asked for, one end, and the
//! same end however the server's bytes are cut.

use bytes::Bytes;
use postgres::login::upstream::{
    UpstreamConfig, UpstreamCredential, UpstreamLogin, UpstreamOutput, UpstreamTls,
};

use crate::input::{Input, contains, pieces};

/// The password that is injected.
pub const PASSWORD: &str = "hunter2hunter2";
/// Rounds of derivation that one input may cost; a server may ask for many more.
const WORK_MAX: usize = 2;

/// Input: flags, read sizes, the server's bytes.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.byte();
    let sizes = input.sizes();
    let bytes = input.rest();
    // A server's reply to SSLRequest must come alone: cuts decide there, and should.
    let cut = login(flags, bytes, sizes);
    if flags & 3 != 1 {
        assert_eq!(cut, login(flags, bytes, &[]));
    }
}

fn login(flags: u8, bytes: &[u8], sizes: &[u8]) -> (Vec<u8>, String) {
    let mut config = UpstreamConfig::new("app", "db", [7; 24]);
    config.tls = [
        UpstreamTls::Off,
        UpstreamTls::Request,
        UpstreamTls::Direct,
        UpstreamTls::Off,
    ][usize::from(flags & 3)];
    config.require_scram = flags & 4 != 0;
    config.require_channel_binding = flags & 8 != 0;
    config.allow_md5 = flags & 16 != 0;
    config.allow_cleartext = flags & 32 != 0;
    config.scram_iterations_min = 1;
    if flags & 64 == 0 {
        config.credential = UpstreamCredential::Password(PASSWORD.to_owned().into());
    }
    let wants_scram = config.require_scram || config.require_channel_binding;
    let clear_allowed = config.allow_cleartext && !wants_scram;
    let mut login = UpstreamLogin::new(config);
    let mut written = Vec::new();
    let (mut end, mut in_tls, mut work, mut derived) = (None, false, 0, false);
    let drain = |login: &mut UpstreamLogin,
                 written: &mut Vec<u8>,
                 end: &mut Option<String>,
                 in_tls: &mut bool,
                 work: &mut usize,
                 derived: &mut bool| {
        while let Some(output) = login.poll_output() {
            assert!(end.is_none(), "{output:?} behind the end");
            match output {
                UpstreamOutput::Write(bytes) => {
                    assert!(!bytes.is_empty());
                    written.extend_from_slice(&bytes);
                }
                UpstreamOutput::StartTls => {
                    *in_tls = true;
                    login.tls_established(Some(vec![1; 32]));
                }
                UpstreamOutput::DeriveKeys(derivation) => {
                    *work += 1;
                    // Rounds are not shown but in `Debug`; large counts are left undone.
                    let cheap = format!("{derivation:?}").len() < 46;
                    if cheap && *work <= WORK_MAX {
                        *derived = true;
                        login.provide_keys(derivation.run());
                    }
                }
                UpstreamOutput::Ready(ready) => {
                    assert!(*derived || !wants_scram, "in without SCRAM");
                    assert!(matches!(ready.status, b'I' | b'T' | b'E'));
                    *end = Some(format!(
                        "{ready:?} {:?} {:?} {:?}",
                        ready.parameters, ready.notices, ready.status
                    ));
                }
                UpstreamOutput::Failed(failure) => *end = Some(format!("{failure:?}")),
            }
        }
    };
    drain(
        &mut login,
        &mut written,
        &mut end,
        &mut in_tls,
        &mut work,
        &mut derived,
    );
    for piece in pieces(bytes, sizes) {
        login.handle_input(Bytes::copy_from_slice(piece));
        drain(
            &mut login,
            &mut written,
            &mut end,
            &mut in_tls,
            &mut work,
            &mut derived,
        );
    }
    if !(clear_allowed && in_tls) {
        assert!(
            !contains(&written, PASSWORD.as_bytes()),
            "the password in clear"
        );
    }
    (written, end.unwrap_or_default())
}
