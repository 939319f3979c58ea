//! The agent's login: the server's role, from the first byte to the moment before
//! AuthenticationOk.
//!
//! ```text
//!            ┌── SSLRequest 'N', GSSENCRequest 'N' ──┐
//!            ▼                                       │
//!  ──► Opening ──────────────────────────────────────┘
//!        │  │ └─ SSLRequest 'S', or first byte 0x16 ─► Handshake ─ tls_established ─► Opening
//!        │  └─ CancelRequest ─► Cancel, Close
//!        ▼ StartupMessage (NegotiateProtocolVersion first, where needed)
//!     Deciding ── ask_password ─► Password ─ Token ─┐
//!        │  └──── ask_oauth ────► Oauth ──── Token ─┤
//!        │                                          ▼
//!        ├─────────────── accept ◄────────────── Judging
//!        └─────────────── refuse ◄──────────────────┘
//!                           └─ (OAUTHBEARER: error challenge, dummy answer) ─► Close
//! ```
//!
//! **One method per connection.** The server names one way to log in and the client
//! follows or gives up: libpq asked for OAUTHBEARER without `oauth_issuer` set fails, and
//! asked for a password never sends an OAuth token. Nothing in a start-up packet tells
//! which the client could do. So the gateway picks one per listener or role, with
//! [`DownstreamLogin::ask_password`] or [`DownstreamLogin::ask_oauth`].

mod config;
mod output;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use zeroize::{Zeroize, Zeroizing};

pub use self::config::{DownstreamConfig, OauthConfig, TlsPolicy};
pub use self::output::{Accepted, DownstreamOutput, TlsFacts, TokenVia};
use super::oauth;
use crate::error::{LoginError, Refusal, WireError};
use crate::startup::{ProtocolVersion, StartupMessage, StartupPacket};
use crate::wire::backend::{self, ReportBuilder, Severity};
use crate::wire::{Frame, Frames, Piece, Treatment, frontend};

/// First byte of a TLS record that carries a handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// The ALPN protocol that PostgreSQL registered.
const ALPN: &[u8] = b"postgresql";
/// Least length of an untyped packet: the length itself and a code.
const PACKET_BYTES_MIN: u32 = 8;

#[derive(Debug)]
enum Step {
    /// Untyped packets are read into `buffer`.
    Opening { ssl_done: bool, gss_done: bool },
    /// TLS is being set up.
    Handshake { direct: bool },
    /// The start-up message is with the gateway.
    Deciding,
    /// AuthenticationCleartextPassword was sent.
    Password,
    /// AuthenticationSASL was sent.
    Oauth,
    /// The credential is with the gateway.
    Judging(TokenVia),
    /// An OAUTHBEARER error was sent; the dummy answer comes, then the refusal goes out.
    OauthRefused(Refusal),
    /// Over.
    Closed,
}

/// The machine. See the module's diagram.
///
/// One change, then a full drain of [`DownstreamLogin::poll_output`], then the next
/// change. After an error the drain still gives the ErrorResponse to send, then Close.
pub struct DownstreamLogin {
    config: DownstreamConfig,
    step: Step,
    /// Untyped packets, and whatever came behind them.
    buffer: BytesMut,
    /// Typed messages, from the start-up message on.
    frames: Frames,
    tls: Option<TlsFacts>,
    startup: Option<(StartupMessage, ProtocolVersion)>,
    output: VecDeque<DownstreamOutput>,
}

impl std::fmt::Debug for DownstreamLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DownstreamLogin")
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

impl DownstreamLogin {
    /// A login at its first byte.
    #[must_use]
    pub fn new(config: DownstreamConfig) -> DownstreamLogin {
        DownstreamLogin {
            config,
            step: Step::Opening {
                ssl_done: false,
                gss_done: false,
            },
            buffer: BytesMut::new(),
            frames: Frames::new(),
            tls: None,
            startup: None,
            output: VecDeque::new(),
        }
    }

    /// The next thing to do, or `None`.
    pub fn poll_output(&mut self) -> Option<DownstreamOutput> {
        self.output.pop_front()
    }

    /// False while the agent has to wait for the gateway: nothing needs to be read then.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        !matches!(
            self.step,
            Step::Handshake { .. } | Step::Deciding | Step::Judging(_) | Step::Closed
        )
    }

    /// What TLS settled, where it was used.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsFacts> {
        self.tls.as_ref()
    }

    /// Takes bytes as they came, decrypted after [`DownstreamLogin::tls_established`].
    /// Harmless after the end. Errors: the login is over; see [`LoginError`].
    pub fn handle_input(&mut self, bytes: Bytes) -> Result<(), LoginError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let result = match self.step {
            Step::Closed => return Ok(()),
            Step::Handshake { .. } => Err(LoginError::StuffedBytes),
            Step::Opening { .. } => {
                self.buffer.extend_from_slice(&bytes);
                self.read_packets()
            }
            _ => {
                self.frames.push(bytes);
                self.read_messages()
            }
        };
        result.inspect_err(|error| self.fail(error))
    }

    /// The TLS handshake is done. Errors: [`LoginError::Alpn`] where the client did not
    /// settle on `postgresql` though it must; [`LoginError::Misuse`].
    pub fn tls_established(&mut self, facts: TlsFacts) -> Result<(), LoginError> {
        let Step::Handshake { direct } = self.step else {
            return Err(self.misuse());
        };
        let alpn_fits = match facts.alpn.as_deref() {
            Some(alpn) => alpn == ALPN,
            None => !direct,
        };
        self.tls = Some(facts);
        if !alpn_fits {
            self.fail(&LoginError::Alpn);
            return Err(LoginError::Alpn);
        }
        // Inside TLS neither a second TLS nor GSS is possible, as in the server.
        self.step = Step::Opening {
            ssl_done: true,
            gss_done: true,
        };
        Ok(())
    }

    /// Asks for a token as a clear-text password, which is done inside TLS or on loopback
    /// only. Errors: [`LoginError::Unprotected`], [`LoginError::Misuse`], or what is wrong
    /// with an answer that was sent too early.
    pub fn ask_password(&mut self) -> Result<(), LoginError> {
        if !matches!(self.step, Step::Deciding) {
            return Err(self.misuse());
        }
        if self.tls.is_none() && !self.config.loopback {
            self.fail(&LoginError::Unprotected);
            return Err(LoginError::Unprotected);
        }
        let mut out = BytesMut::new();
        backend::authentication_cleartext_password(&mut out);
        self.write(out);
        self.step = Step::Password;
        self.read_messages().inspect_err(|error| self.fail(error))
    }

    /// Asks for a token by OAUTHBEARER, inside TLS only (RFC 7628, section 5).
    /// Errors: as [`DownstreamLogin::ask_password`]; [`LoginError::Misuse`] also without
    /// [`DownstreamConfig::oauth`].
    pub fn ask_oauth(&mut self) -> Result<(), LoginError> {
        if !matches!(self.step, Step::Deciding) || self.config.oauth.is_none() {
            return Err(self.misuse());
        }
        if self.tls.is_none() {
            self.fail(&LoginError::Unprotected);
            return Err(LoginError::Unprotected);
        }
        let mut out = BytesMut::new();
        backend::authentication_sasl(&mut out, &[oauth::MECHANISM])?;
        self.write(out);
        self.step = Step::Oauth;
        self.read_messages().inspect_err(|error| self.fail(error))
    }

    /// Refuses the agent: a FATAL ErrorResponse, then Close (for OAUTHBEARER after the
    /// error challenge and its dummy answer, so that the client shows it). Possible at
    /// every step; harmless after the end.
    pub fn refuse(&mut self, refusal: &Refusal) {
        match self.step {
            Step::Closed => {}
            Step::Judging(TokenVia::Oauth) => self.challenge(refusal.clone()),
            Step::Handshake { .. } => self.close(),
            _ => self.refuse_now(refusal),
        }
    }

    /// Accepts the agent, whose start-up message (client certificate) or token the
    /// gateway has judged. Errors: [`LoginError::Misuse`] at any other step.
    pub fn accept(self) -> Result<Accepted, LoginError> {
        match (self.step, self.startup) {
            (Step::Deciding | Step::Judging(_), Some((startup, protocol))) => Ok(Accepted {
                startup,
                protocol,
                tls: self.tls,
                leftover: self.frames.into_rest(),
            }),
            _ => Err(LoginError::Misuse),
        }
    }

    fn read_packets(&mut self) -> Result<(), LoginError> {
        while let Step::Opening { ssl_done, gss_done } = self.step {
            if !ssl_done && self.buffer.first() == Some(&TLS_HANDSHAKE) {
                if self.config.tls == TlsPolicy::Off || !self.config.direct_tls || gss_done {
                    return Err(LoginError::DirectTlsRefused);
                }
                let received = self.buffer.split().freeze();
                self.output
                    .push_back(DownstreamOutput::StartTls { received });
                self.step = Step::Handshake { direct: true };
                return Ok(());
            }
            let Some(body) = self.take_packet()? else {
                return Ok(());
            };
            match StartupPacket::decode(&body)? {
                StartupPacket::SslRequest if !ssl_done => self.ssl_request(gss_done)?,
                StartupPacket::GssEncRequest if !gss_done => {
                    self.refuse_stuffed_bytes()?;
                    self.write(BytesMut::from(&b"N"[..]));
                    self.step = Step::Opening {
                        ssl_done,
                        gss_done: true,
                    };
                }
                StartupPacket::SslRequest | StartupPacket::GssEncRequest => {
                    let code = body.first_chunk::<4>().copied().unwrap_or_default();
                    let version = ProtocolVersion::from_wire(u32::from_be_bytes(code));
                    return Err(LoginError::UnsupportedProtocol {
                        major: version.major,
                        minor: version.minor,
                    });
                }
                StartupPacket::Cancel(request) => {
                    self.output.push_back(DownstreamOutput::Cancel(request));
                    self.close();
                }
                StartupPacket::Startup(startup) => self.startup(startup)?,
            }
        }
        Ok(())
    }

    /// The body of one untyped packet, once it is whole.
    fn take_packet(&mut self) -> Result<Option<Bytes>, LoginError> {
        let Some(length) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length);
        if length < PACKET_BYTES_MIN || length.saturating_sub(4) > self.config.startup_bytes_max {
            return Err(LoginError::StartupLength { length });
        }
        if self.buffer.len() < length as usize {
            return Ok(None);
        }
        let packet = self.buffer.split_to(length as usize).freeze();
        Ok(Some(packet.slice(4..)))
    }

    fn ssl_request(&mut self, gss_done: bool) -> Result<(), LoginError> {
        self.refuse_stuffed_bytes()?;
        if self.config.tls == TlsPolicy::Off {
            self.write(BytesMut::from(&b"N"[..]));
            self.step = Step::Opening {
                ssl_done: true,
                gss_done,
            };
        } else {
            self.write(BytesMut::from(&b"S"[..]));
            self.output.push_back(DownstreamOutput::StartTls {
                received: Bytes::new(),
            });
            self.step = Step::Handshake { direct: false };
        }
        Ok(())
    }

    /// Nobody speaks on before the answer to a request for encryption is there.
    fn refuse_stuffed_bytes(&self) -> Result<(), LoginError> {
        match self.buffer.is_empty() {
            true => Ok(()),
            false => Err(LoginError::StuffedBytes),
        }
    }

    fn startup(&mut self, startup: StartupMessage) -> Result<(), LoginError> {
        if self.tls.is_none() && self.config.tls == TlsPolicy::Required {
            return Err(LoginError::TlsRequired);
        }
        let protocol = startup.protocol.min(self.config.protocol_max);
        if protocol != startup.protocol || !startup.protocol_options.is_empty() {
            let unknown: Vec<&[u8]> = startup.protocol_options.iter().map(|o| &o[..]).collect();
            let mut out = BytesMut::new();
            backend::negotiate_protocol_version(&mut out, protocol.to_wire(), &unknown)?;
            self.write(out);
        }
        let rest = self.buffer.split().freeze();
        self.frames.push(rest);
        self.step = Step::Deciding;
        self.output
            .push_back(DownstreamOutput::Startup(Box::new(startup.clone())));
        self.startup = Some((startup, protocol));
        self.refuse_early_bytes()
    }

    fn read_messages(&mut self) -> Result<(), LoginError> {
        loop {
            match self.step {
                Step::Password => {
                    let Some(frame) = self.take_message()? else {
                        return Ok(());
                    };
                    let body = frontend::decode_password(frame.body())?;
                    if body.is_empty() {
                        return Err(LoginError::EmptyPassword);
                    }
                    let token = Zeroizing::new(body.to_vec());
                    wipe(frame);
                    self.hand_out(token, TokenVia::Password);
                }
                Step::Oauth => {
                    let Some(frame) = self.take_message()? else {
                        return Ok(());
                    };
                    let token = oauth::read_initial_response(frame.body())?;
                    wipe(frame);
                    match token {
                        Some(token) => self.hand_out(token, TokenVia::Oauth),
                        None => self.challenge(Refusal::new(
                            b"28000",
                            "OAuth bearer authentication failed: no token was sent",
                        )),
                    }
                }
                Step::OauthRefused(_) => {
                    let Some(frame) = self.take_message()? else {
                        return Ok(());
                    };
                    if frame.body() != oauth::DUMMY_RESPONSE {
                        return Err(LoginError::Oauth("no dummy response to the error"));
                    }
                    if let Step::OauthRefused(refusal) =
                        std::mem::replace(&mut self.step, Step::Closed)
                    {
                        self.refuse_now(&refusal);
                    }
                }
                Step::Deciding | Step::Judging(_) => return self.refuse_early_bytes(),
                Step::Opening { .. } | Step::Handshake { .. } | Step::Closed => return Ok(()),
            }
        }
    }

    /// The next message of type `p`; every other has no place in a login.
    fn take_message(&mut self) -> Result<Option<Frame>, LoginError> {
        let body_bytes_max = self.config.password_bytes_max;
        let mut unexpected = None;
        let piece = self.frames.next(|tag, body_bytes| {
            if tag != frontend::tag::PASSWORD {
                unexpected = Some(tag);
                Treatment::Refuse
            } else if body_bytes > body_bytes_max {
                Treatment::Refuse
            } else {
                Treatment::Whole
            }
        });
        match (piece, unexpected) {
            (_, Some(tag)) => Err(LoginError::Unexpected { tag }),
            (Ok(Some(Piece::Frame(frame))), None) => Ok(Some(frame)),
            (Ok(_), None) => Ok(None),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// While the gateway thinks, an agent has nothing to say yet; a little is held.
    fn refuse_early_bytes(&self) -> Result<(), LoginError> {
        let most = self.config.password_bytes_max as usize;
        match self.frames.buffered() > most.saturating_add(5) {
            true => Err(LoginError::EarlyBytes),
            false => Ok(()),
        }
    }

    fn hand_out(&mut self, token: Zeroizing<Vec<u8>>, via: TokenVia) {
        self.output.push_back(DownstreamOutput::Token(token, via));
        self.step = Step::Judging(via);
    }

    /// Sends the OAUTHBEARER error; `refusal` follows after the dummy answer.
    fn challenge(&mut self, refusal: Refusal) {
        let Some(config) = &self.config.oauth else {
            return self.refuse_now(&refusal);
        };
        let mut out = BytesMut::new();
        let json = oauth::error_challenge(&config.issuer_url, &config.scope);
        match backend::authentication_sasl_continue(&mut out, json.as_bytes()) {
            Ok(()) => {
                self.write(out);
                self.step = Step::OauthRefused(refusal);
            }
            Err(_) => self.refuse_now(&refusal),
        }
    }

    fn write(&mut self, out: BytesMut) {
        self.output.push_back(DownstreamOutput::Write(out.freeze()));
    }

    fn refuse_now(&mut self, refusal: &Refusal) {
        let report = ReportBuilder::refusal(Severity::Fatal, refusal).to_bytes();
        self.output.push_back(DownstreamOutput::Write(report));
        self.close();
    }

    fn close(&mut self) {
        self.step = Step::Closed;
        self.buffer = BytesMut::new();
        self.frames = Frames::new();
        self.output.push_back(DownstreamOutput::Close);
    }

    /// Says why, where the agent can read it, and ends the login.
    fn fail(&mut self, error: &LoginError) {
        match (&self.step, error) {
            (Step::Closed, _) => {}
            // The peer speaks TLS (or another's words); a clear message would not be read.
            (Step::Handshake { .. }, _) | (_, LoginError::DirectTlsRefused) => self.close(),
            _ => self.refuse_now(&error.refusal()),
        }
    }

    fn misuse(&mut self) -> LoginError {
        self.fail(&LoginError::Misuse);
        LoginError::Misuse
    }
}

/// What follows an accepted login: AuthenticationOk, the parameters, the cancel key and
/// ReadyForQuery with `status`. Errors: [`WireError::EmbeddedNul`] in a parameter;
/// [`WireError::BadValue`] for a key of a length that is not 4 to 256 bytes.
pub fn welcome<'p>(
    parameters: impl IntoIterator<Item = (&'p [u8], &'p [u8])>,
    process_id: u32,
    secret_key: &[u8],
    status: u8,
) -> Result<Bytes, WireError> {
    let mut out = BytesMut::with_capacity(512);
    backend::authentication_ok(&mut out);
    for (name, value) in parameters {
        backend::parameter_status(&mut out, name, value)?;
    }
    backend::backend_key_data(&mut out, process_id, secret_key)?;
    backend::ready_for_query(&mut out, status);
    Ok(out.freeze())
}

/// Overwrites a message that carried a credential, where nobody shares its memory (a
/// message that lay whole in a read buffer belongs to the buffer's owner).
fn wipe(frame: Frame) {
    if let Ok(mut raw) = frame.raw.try_into_mut() {
        raw.zeroize();
    }
}

#[cfg(test)]
mod tests;
