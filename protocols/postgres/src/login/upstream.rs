//! The target's login: the client's role, from the first byte to ReadyForQuery.
//!
//! ```text
//!  new ─ Off ──────────────────────────────────────────┐
//!   ├─── Request ─► SslReply ─ 'S' ─┐                  ▼
//!   └─── Direct ────────────────────┴► Handshake ─► Greeting ─ NegotiateProtocolVersion? ─┐
//!                                                      ├◄─────────────────────────────────┘
//!      AuthenticationSASL     ─► ScramFirst ─► (Deriving) ─► ScramFinal ─► Answered
//!      MD5, clear-text        ─► Answered
//!      AuthenticationOk       ─► Settling ─ ParameterStatus*, BackendKeyData, ReadyForQuery ─► Done
//! ```
//!
//! An error of the server at any step, or anything that has no place, ends in
//! [`UpstreamOutput::Failed`]. Whatever the server sends before ReadyForQuery counts
//! against [`GREETING_BYTES_MAX`].

mod config;
mod output;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use zeroize::Zeroizing;

pub use self::config::{UpstreamConfig, UpstreamCredential, UpstreamTls};
pub use self::output::{ServerRefusal, UpstreamFailure, UpstreamOutput, UpstreamReady};
use crate::error::WireError;
use crate::scram::{
    ChannelBinding, ClientFinal, ClientFirst, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramKeys,
    ServerFirst,
};
use crate::startup::{self, ProtocolVersion};
use crate::wire::backend::{self, Authentication, BackendMessage, Report};
use crate::wire::frontend::{self, SaslInitialResponse};
use crate::wire::{Frame, Frames, Piece, Treatment};

/// Most bytes that a server may send from its first message to ReadyForQuery. A greeting
/// has about 600; login triggers may add notices.
pub const GREETING_BYTES_MAX: usize = 256 * 1024;
/// Longest single message of a greeting, in body bytes.
pub const GREETING_MESSAGE_BYTES_MAX: u32 = 64 * 1024;

#[derive(Debug)]
enum Step {
    /// SSLRequest was sent.
    SslReply,
    /// TLS is being set up.
    Handshake,
    /// The start-up message was sent.
    Greeting { negotiated: bool },
    /// client-first was sent.
    ScramFirst(ClientFirst),
    /// server-first has come; keys are being derived.
    Deriving(ServerFirst),
    /// client-final was sent.
    ScramFinal(ClientFinal),
    /// All was said; AuthenticationOk must follow.
    Answered { scram: bool },
    /// AuthenticationOk has come.
    Settling,
    /// Ready or failed.
    Done,
}

/// The machine. See the module's diagram. One change, then a full drain of
/// [`UpstreamLogin::poll_output`], then the next change.
pub struct UpstreamLogin {
    config: UpstreamConfig,
    step: Step,
    frames: Frames,
    received: usize,
    in_tls: bool,
    end_point: Option<Vec<u8>>,
    used_keys: Option<ScramKeys>,
    greeting: UpstreamReady,
    key_seen: bool,
    output: VecDeque<UpstreamOutput>,
}

impl std::fmt::Debug for UpstreamLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamLogin")
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

type Progress = Result<(), UpstreamFailure>;

impl UpstreamLogin {
    /// Starts a login; the first output is there at once.
    #[must_use]
    pub fn new(config: UpstreamConfig) -> UpstreamLogin {
        let protocol = config.protocol;
        let mut login = UpstreamLogin {
            config,
            step: Step::Done,
            frames: Frames::new(),
            received: 0,
            in_tls: false,
            end_point: None,
            used_keys: None,
            greeting: UpstreamReady {
                protocol,
                parameters: Vec::new(),
                process_id: 0,
                secret_key: Bytes::new(),
                status: b'I',
                notices: Vec::new(),
                leftover: Bytes::new(),
            },
            key_seen: false,
            output: VecDeque::new(),
        };
        match login.config.tls {
            UpstreamTls::Off => {
                let result = login.send_startup();
                login.settle(result);
            }
            UpstreamTls::Request => {
                let mut out = BytesMut::new();
                startup::ssl_request(&mut out);
                login.write(out);
                login.step = Step::SslReply;
            }
            UpstreamTls::Direct => {
                login.output.push_back(UpstreamOutput::StartTls);
                login.step = Step::Handshake;
            }
        }
        login
    }

    /// The next thing to do, or `None`.
    pub fn poll_output(&mut self) -> Option<UpstreamOutput> {
        self.output.pop_front()
    }

    /// Keys that this login used and the server accepted, to be cached for the next one
    /// beside the password's version. There once Ready came out after a SCRAM exchange.
    pub fn take_keys(&mut self) -> Option<ScramKeys> {
        match self.step {
            Step::Done => self.used_keys.take(),
            _ => None,
        }
    }

    /// TLS is set up. `end_point` is the tls-server-end-point binding (RFC 5929): the hash
    /// of the server's certificate, where one is defined for its signature.
    pub fn tls_established(&mut self, end_point: Option<Vec<u8>>) {
        let result = match self.step {
            Step::Handshake => {
                self.in_tls = true;
                self.end_point = end_point;
                self.send_startup()
            }
            Step::Done => return,
            _ => Err(UpstreamFailure::Misuse),
        };
        self.settle(result);
    }

    /// Takes bytes as they came, decrypted once TLS is set up. Harmless after the end.
    pub fn handle_input(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let result = match self.step {
            Step::Done => return,
            Step::SslReply => self.ssl_reply(&bytes),
            Step::Handshake => Err(UpstreamFailure::StuffedBytes),
            _ => {
                self.frames.push(bytes);
                self.read_messages()
            }
        };
        self.settle(result);
    }

    /// The derived keys are here. Harmless after the end.
    pub fn provide_keys(&mut self, keys: ScramKeys) {
        let result = match std::mem::replace(&mut self.step, Step::Done) {
            Step::Done => return,
            Step::Deriving(first) => self.prove(first, keys).and_then(|()| self.read_messages()),
            _ => Err(UpstreamFailure::Misuse),
        };
        self.settle(result);
    }

    fn settle(&mut self, result: Progress) {
        if let Err(failure) = result {
            self.step = Step::Done;
            self.used_keys = None;
            self.frames = Frames::new();
            self.output.push_back(UpstreamOutput::Failed(failure));
        }
    }

    fn ssl_reply(&mut self, bytes: &Bytes) -> Progress {
        match bytes.split_first() {
            Some((b'S', [])) => {
                self.output.push_back(UpstreamOutput::StartTls);
                self.step = Step::Handshake;
                Ok(())
            }
            Some((b'S', _)) => Err(UpstreamFailure::StuffedBytes),
            // `N`, or `E` of a server that does not know the request; its text came
            // unprotected and could be anybody's.
            Some((b'N' | b'E', _)) | None => Err(UpstreamFailure::TlsRefused),
            Some((tag, _)) => Err(UpstreamFailure::Unexpected { tag: *tag }),
        }
    }

    fn send_startup(&mut self) -> Progress {
        let config = &self.config;
        let database =
            (!config.database.is_empty()).then_some((&b"database"[..], &config.database[..]));
        let parameters = std::iter::once((&b"user"[..], &config.user[..]))
            .chain(database)
            .chain(config.parameters.iter().map(|(n, v)| (&n[..], &v[..])));
        let mut out = BytesMut::new();
        startup::startup_message(&mut out, config.protocol, parameters)?;
        self.write(out);
        self.step = Step::Greeting { negotiated: false };
        Ok(())
    }

    fn read_messages(&mut self) -> Progress {
        while !matches!(self.step, Step::Done | Step::Deriving(_)) {
            let piece = self.frames.next(|_, body_bytes| {
                match body_bytes > GREETING_MESSAGE_BYTES_MAX {
                    true => Treatment::Refuse,
                    false => Treatment::Whole,
                }
            })?;
            let Some(Piece::Frame(frame)) = piece else {
                break;
            };
            self.received = self.received.saturating_add(frame.raw.len());
            if self.received > GREETING_BYTES_MAX {
                return Err(UpstreamFailure::TooMuch);
            }
            self.message(&frame)?;
        }
        // Bytes after ReadyForQuery are the session's and not counted here.
        let held = self.received.saturating_add(self.frames.buffered());
        match !matches!(self.step, Step::Done) && held > GREETING_BYTES_MAX {
            true => Err(UpstreamFailure::TooMuch),
            false => Ok(()),
        }
    }

    fn message(&mut self, frame: &Frame) -> Progress {
        // A message of a session, say a DataRow, is not even decoded here.
        let unexpected = Err(UpstreamFailure::Unexpected { tag: frame.tag });
        match frame.tag {
            backend::tag::AUTHENTICATION
            | backend::tag::BACKEND_KEY_DATA
            | backend::tag::ERROR_RESPONSE
            | backend::tag::NEGOTIATE_PROTOCOL_VERSION
            | backend::tag::NOTICE_RESPONSE
            | backend::tag::PARAMETER_STATUS
            | backend::tag::READY_FOR_QUERY => {}
            _ => return unexpected,
        }
        match (backend::decode(frame.tag, frame.body())?, &self.step) {
            (BackendMessage::ErrorResponse(report), _) => {
                Err(UpstreamFailure::Rejected(refusal(frame, &report)))
            }
            (BackendMessage::NoticeResponse(_), _) => {
                let notice = Bytes::copy_from_slice(&frame.raw);
                self.greeting.notices.push(notice);
                Ok(())
            }
            (
                BackendMessage::NegotiateProtocolVersion(offer),
                Step::Greeting { negotiated: false },
            ) => {
                // Only downwards, only within 3.x, and never for an option: we sent none.
                let version = ProtocolVersion::from_wire(offer.version);
                let down = version >= ProtocolVersion::V3_0 && version < self.config.protocol;
                if !down || offer.options().next().is_some() {
                    return Err(UpstreamFailure::BadNegotiation);
                }
                self.greeting.protocol = version;
                self.step = Step::Greeting { negotiated: true };
                Ok(())
            }
            (BackendMessage::Authentication(request), step) if !matches!(step, Step::Settling) => {
                self.authentication(request)
            }
            (BackendMessage::ParameterStatus(status), Step::Settling) => {
                // Copied: they live as long as the session, the read buffer must not.
                let copy = Bytes::copy_from_slice;
                let pair = (copy(status.name), copy(status.value));
                self.greeting.parameters.push(pair);
                Ok(())
            }
            (BackendMessage::BackendKeyData(key), Step::Settling) if !self.key_seen => {
                // Longer keys exist from 3.2 on only.
                if self.greeting.protocol < ProtocolVersion::V3_2 && key.secret_key.len() != 4 {
                    return Err(UpstreamFailure::Wire(WireError::BadValue {
                        field: "secret key",
                    }));
                }
                self.key_seen = true;
                self.greeting.process_id = key.process_id;
                self.greeting.secret_key = Bytes::copy_from_slice(key.secret_key);
                Ok(())
            }
            (BackendMessage::ReadyForQuery(status), Step::Settling) => {
                self.ready(status);
                Ok(())
            }
            _ => unexpected,
        }
    }

    fn authentication(&mut self, request: Authentication<'_>) -> Progress {
        match (std::mem::replace(&mut self.step, Step::Done), request) {
            (Step::Greeting { .. }, Authentication::Ok) => {
                if self.wants_scram() {
                    return Err(UpstreamFailure::AuthTooWeak);
                }
                self.step = Step::Settling;
                Ok(())
            }
            (Step::Greeting { .. }, Authentication::CleartextPassword) => {
                if self.wants_scram() || !self.config.allow_cleartext || !self.in_tls {
                    return Err(UpstreamFailure::AuthTooWeak);
                }
                let password = self.password()?;
                self.send_password(password.as_bytes())
            }
            (Step::Greeting { .. }, Authentication::Md5Password { salt }) => {
                if self.wants_scram() || !self.config.allow_md5 {
                    return Err(UpstreamFailure::AuthTooWeak);
                }
                let password = self.password()?;
                let hash = Zeroizing::new(postgres_protocol::authentication::md5_hash(
                    &self.config.user,
                    password.as_bytes(),
                    salt,
                ));
                self.send_password(hash.as_bytes())
            }
            (Step::Greeting { .. }, request @ Authentication::Sasl { .. }) => {
                self.choose_mechanism(&request)
            }
            (Step::ScramFirst(first), Authentication::SaslContinue(data)) => {
                let first = first.server_first(data, self.config.scram_iterations_min)?;
                match self.config.scram_keys.take() {
                    Some(keys) if first.takes(&keys) => self.prove(first, keys),
                    _ => {
                        let work = first.derivation(&self.password()?);
                        self.output.push_back(UpstreamOutput::DeriveKeys(work));
                        self.step = Step::Deriving(first);
                        Ok(())
                    }
                }
            }
            (Step::ScramFinal(last), Authentication::SaslFinal(data)) => {
                last.server_final(data)?;
                self.step = Step::Answered { scram: true };
                Ok(())
            }
            // The server lets us in before it has proved that it knows the keys.
            (Step::ScramFirst(_) | Step::ScramFinal(_), Authentication::Ok) => {
                Err(UpstreamFailure::BadServerSignature)
            }
            (Step::Answered { scram }, Authentication::Ok) => {
                debug_assert!(scram || !self.wants_scram());
                self.step = Step::Settling;
                Ok(())
            }
            (Step::Greeting { .. }, Authentication::Other(_)) => {
                Err(UpstreamFailure::AuthUnsupported)
            }
            _ => Err(UpstreamFailure::Unexpected {
                tag: backend::tag::AUTHENTICATION,
            }),
        }
    }

    fn wants_scram(&self) -> bool {
        self.config.require_scram || self.config.require_channel_binding
    }

    fn password(&self) -> Result<Zeroizing<String>, UpstreamFailure> {
        match &self.config.credential {
            UpstreamCredential::Password(password) if !password.is_empty() => Ok(password.clone()),
            _ => Err(UpstreamFailure::PasswordMissing),
        }
    }

    fn choose_mechanism(&mut self, offer: &Authentication<'_>) -> Progress {
        self.password()?;
        let offers = |name: &[u8]| offer.mechanisms().any(|mechanism| mechanism == name);
        let plus = offers(SCRAM_SHA_256_PLUS);
        let binding = match self.end_point.take() {
            Some(hash) if plus => ChannelBinding::ServerEndPoint(hash),
            _ if self.config.require_channel_binding => {
                return Err(UpstreamFailure::ChannelBindingImpossible);
            }
            _ if !offers(SCRAM_SHA_256) => return Err(UpstreamFailure::AuthUnsupported),
            Some(_) => ChannelBinding::NotOffered,
            None => ChannelBinding::Unsupported,
        };
        let first = ClientFirst::new(binding, self.config.nonce);
        let mut out = BytesMut::new();
        SaslInitialResponse {
            mechanism: first.mechanism(),
            data: Some(first.message().as_bytes()),
        }
        .encode(&mut out)?;
        self.write(out);
        self.step = Step::ScramFirst(first);
        Ok(())
    }

    fn prove(&mut self, first: ServerFirst, keys: ScramKeys) -> Progress {
        let (message, last) = first.client_final(&keys)?;
        self.used_keys = Some(keys);
        let mut out = BytesMut::new();
        frontend::sasl_response(&mut out, message.as_bytes())?;
        self.write(out);
        self.step = Step::ScramFinal(last);
        Ok(())
    }

    /// Sends a PasswordMessage out of memory that is wiped when it has been written.
    fn send_password(&mut self, password: &[u8]) -> Progress {
        let mut out = BytesMut::with_capacity(password.len().saturating_add(6));
        frontend::password(&mut out, password)?;
        let wiped = Zeroizing::new(Vec::from(out));
        self.output
            .push_back(UpstreamOutput::Write(Bytes::from_owner(wiped)));
        self.step = Step::Answered { scram: false };
        Ok(())
    }

    fn ready(&mut self, status: u8) {
        let frames = std::mem::take(&mut self.frames);
        let protocol = self.greeting.protocol;
        let ready = std::mem::replace(
            &mut self.greeting,
            UpstreamReady {
                protocol,
                parameters: Vec::new(),
                process_id: 0,
                secret_key: Bytes::new(),
                status,
                notices: Vec::new(),
                leftover: Bytes::new(),
            },
        );
        self.step = Step::Done;
        self.output.push_back(UpstreamOutput::Ready(UpstreamReady {
            status,
            leftover: frames.into_rest(),
            ..ready
        }));
    }

    fn write(&mut self, out: BytesMut) {
        self.output.push_back(UpstreamOutput::Write(out.freeze()));
    }
}

fn refusal(frame: &Frame, report: &Report<'_>) -> ServerRefusal {
    let copy = |value: Option<&[u8]>| value.map(Bytes::copy_from_slice).unwrap_or_default();
    ServerRefusal {
        severity: copy(report.severity()),
        sqlstate: report.sqlstate().unwrap_or(*b"XX000"),
        message: copy(report.field(b'M')),
        report: Bytes::copy_from_slice(&frame.raw),
    }
}

#[cfg(test)]
mod tests;
