//! What the login hands out, and what it is told of TLS.

use bytes::Bytes;
use zeroize::Zeroizing;

#[cfg(doc)]
use super::{DownstreamLogin, welcome};
use crate::cancel::CancelRequest;
use crate::startup::{ProtocolVersion, StartupMessage};

/// What the TLS handshake settled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// The ALPN protocol.
    pub alpn: Option<Vec<u8>>,
    /// The name that the client asked for (SNI).
    pub server_name: Option<String>,
    /// The client's own certificate, DER, verified by the TLS layer.
    pub client_certificate: Option<Vec<u8>>,
}

/// By which way a token came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenVia {
    /// As a clear-text password.
    Password,
    /// As an OAUTHBEARER token.
    Oauth,
}

/// What the gateway is to do next. `Debug` shows no bytes and no token.
pub enum DownstreamOutput {
    /// Send these bytes to the agent.
    Write(Bytes),
    /// Start the TLS handshake, after what was to be written before. `received` belongs
    /// to TLS already: empty after an SSLRequest, the start of the ClientHello for direct
    /// TLS. Answer with [`DownstreamLogin::tls_established`]; decrypted bytes go to
    /// [`DownstreamLogin::handle_input`] after that.
    StartTls {
        /// Bytes that the TLS layer must read first.
        received: Bytes,
    },
    /// The agent said who it is and where it wants to go. Answer with `ask_password`,
    /// `ask_oauth`, `accept` (client certificate) or `refuse`.
    Startup(Box<StartupMessage>),
    /// The agent's credential. Answer with `accept` or `refuse`.
    Token(Zeroizing<Vec<u8>>, TokenVia),
    /// The connection is a cancel request. Pass it on, then go on draining: Close
    /// follows; the agent waits for the close to know that it was passed on.
    Cancel(CancelRequest),
    /// Send what is unsent and close.
    Close,
}

impl std::fmt::Debug for DownstreamOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DownstreamOutput::Write(bytes) => write!(f, "Write({} bytes)", bytes.len()),
            DownstreamOutput::StartTls { received } => {
                write!(f, "StartTls({} bytes received)", received.len())
            }
            DownstreamOutput::Startup(startup) => f.debug_tuple("Startup").field(startup).finish(),
            DownstreamOutput::Token(_, via) => write!(f, "Token(.., {via:?})"),
            DownstreamOutput::Cancel(request) => f.debug_tuple("Cancel").field(request).finish(),
            DownstreamOutput::Close => f.write_str("Close"),
        }
    }
}

/// A login that was accepted. Nothing was said to the agent yet; see [`welcome`].
#[derive(Debug)]
pub struct Accepted {
    /// What the agent asked for.
    pub startup: StartupMessage,
    /// The version that was settled on.
    pub protocol: ProtocolVersion,
    /// What TLS settled, where it was used.
    pub tls: Option<TlsFacts>,
    /// Bytes that came after the login's last message: the session's first.
    pub leftover: Bytes,
}
