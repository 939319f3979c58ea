//! The agent's login: no token without TLS or loopback, no start-up in clear where TLS is
//! required, one end, and nothing behind it.

use bytes::Bytes;
use postgres::Refusal;
use postgres::login::downstream::{
    DownstreamConfig, DownstreamLogin, DownstreamOutput, OauthConfig, TlsFacts, TlsPolicy,
};
use postgres::startup::ProtocolVersion;

use crate::input::{Input, pieces};

struct World {
    login: Option<DownstreamLogin>,
    config: DownstreamConfig,
    in_tls: bool,
    /// What the gateway does next; the lowest bits choose.
    answers: Vec<u8>,
    closed: bool,
    written: Vec<u8>,
}

/// Input: flags of the listener, four answers of the gateway, then operations (a byte;
/// 0 to 191: so many of the agent's bytes, cut by the byte behind it).
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.byte();
    let config = DownstreamConfig {
        tls: [
            TlsPolicy::Off,
            TlsPolicy::Optional,
            TlsPolicy::Required,
            TlsPolicy::Optional,
        ][usize::from(flags & 3)],
        direct_tls: flags & 4 != 0,
        loopback: flags & 8 != 0,
        oauth: (flags & 16 != 0).then(|| OauthConfig {
            issuer_url: "https://issuer.example".into(),
            scope: "openid".into(),
        }),
        protocol_max: if flags & 32 != 0 {
            ProtocolVersion::V3_0
        } else {
            ProtocolVersion::V3_2
        },
        startup_bytes_max: 300,
        password_bytes_max: 200,
    };
    let mut world = World {
        login: Some(DownstreamLogin::new(config.clone())),
        config,
        in_tls: false,
        answers: input.take(4).iter().rev().copied().collect(),
        closed: false,
        written: Vec::new(),
    };
    while !input.is_empty() && world.login.is_some() {
        match input.byte() {
            count @ 0..=191 => {
                let size = input.byte();
                let sizes: &[u8] = if size == 0 { &[] } else { &[size] };
                for piece in pieces(input.take(usize::from(count)), sizes) {
                    world.step(|login| {
                        let _ = login.handle_input(Bytes::copy_from_slice(piece));
                    });
                }
            }
            // What a gateway that lost its way might do: an error, never a way in.
            op => world.step(|login| match op % 5 {
                0 => drop(login.tls_established(facts(op))),
                1 => drop(login.ask_password()),
                2 => drop(login.ask_oauth()),
                3 => login.refuse(&Refusal::new(b"57P01", "stopping")),
                _ => assert!(login.handle_input(Bytes::new()).is_ok()),
            }),
        }
    }
    // The accept of a login that nobody judged is refused.
    if let Some(login) = world.login
        && login.wants_input()
    {
        assert!(login.accept().is_err());
    }
}

fn facts(choice: u8) -> TlsFacts {
    TlsFacts {
        alpn: [
            None,
            Some(b"postgresql".to_vec()),
            Some(b"h2".to_vec()),
            None,
        ][usize::from(choice >> 3 & 3)]
        .clone(),
        ..TlsFacts::default()
    }
}

impl World {
    fn step(&mut self, change: impl FnOnce(&mut DownstreamLogin)) {
        let Some(login) = &mut self.login else {
            return;
        };
        change(login);
        self.in_tls |= login.tls().is_some();
        while let Some(output) = self.login.as_mut().and_then(DownstreamLogin::poll_output) {
            assert!(!self.closed, "{output:?} behind the end");
            self.output(output);
        }
    }

    fn output(&mut self, output: DownstreamOutput) {
        match output {
            DownstreamOutput::Write(bytes) => {
                assert!(!bytes.is_empty());
                self.written.extend_from_slice(&bytes);
                assert!(self.written.len() < 1 << 16);
            }
            DownstreamOutput::StartTls { received } => {
                assert!(self.config.tls != TlsPolicy::Off && !self.in_tls);
                assert!(received.is_empty() || self.config.direct_tls);
                let choice = self.answers.pop().unwrap_or(8);
                if choice & 128 == 0 {
                    let _ = self
                        .login
                        .as_mut()
                        .map(|login| login.tls_established(facts(choice)));
                    self.in_tls = self
                        .login
                        .as_ref()
                        .is_some_and(|login| login.tls().is_some());
                }
            }
            DownstreamOutput::Startup(startup) => {
                assert!(self.in_tls || self.config.tls != TlsPolicy::Required);
                assert!(!startup.user.is_empty());
                self.answer(0);
            }
            DownstreamOutput::Token(token, _) => {
                assert!(self.in_tls || self.config.loopback);
                assert!(token.len() <= self.config.password_bytes_max as usize);
                self.answer(2);
            }
            DownstreamOutput::Cancel(request) => drop(request.encode().expect("what was decoded")),
            DownstreamOutput::Close => self.closed = true,
        }
    }

    /// `judged`: 2 where accept and refuse are what is asked for.
    fn answer(&mut self, judged: u8) {
        let choice = (self.answers.pop().unwrap_or(0) & 3).max(judged);
        let Some(login) = &mut self.login else {
            return;
        };
        match choice {
            0 => drop(login.ask_password()),
            1 => drop(login.ask_oauth()),
            2 if !self.closed => {
                let accepted = self.login.take().and_then(|login| login.accept().ok());
                let accepted = accepted.expect("a login that was asked about");
                assert!(accepted.protocol <= self.config.protocol_max);
                assert_eq!(accepted.tls.is_some(), self.in_tls);
            }
            _ => login.refuse(&Refusal::new(b"28000", "no")),
        }
    }
}
