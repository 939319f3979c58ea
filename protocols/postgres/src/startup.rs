//! The untyped packets that open a connection: StartupMessage, SSLRequest,
//! GSSENCRequest, CancelRequest.
//!
//! Shape of all four: Int32 length (counts itself), Int32 protocol version or request
//! code, then what belongs to it. Source: PostgreSQL documentation, "Message Formats".

pub mod options;

use bytes::{BufMut, Bytes, BytesMut};

pub use options::StartupOptions;

use crate::cancel::{CANCEL_REQUEST_CODE, CancelRequest};
use crate::error::{LoginError, WireError};
use crate::wire::Reader;
use crate::wire::encode::{counted, put_cstr};

/// SSLRequest's code: 1234.5679.
pub const SSL_REQUEST_CODE: u32 = 80_877_103;
/// GSSENCRequest's code: 1234.5680.
pub const GSSENC_REQUEST_CODE: u32 = 80_877_104;
/// Prefix of protocol options among the start-up parameters.
const PROTOCOL_OPTION_PREFIX: &[u8] = b"_pq_.";

/// A protocol version; ordered by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProtocolVersion {
    /// Upper 16 bits on the wire.
    pub major: u16,
    /// Lower 16 bits on the wire.
    pub minor: u16,
}

impl ProtocolVersion {
    /// What every server and client speaks.
    pub const V3_0: ProtocolVersion = ProtocolVersion { major: 3, minor: 0 };
    /// PostgreSQL 18: longer cancel keys.
    pub const V3_2: ProtocolVersion = ProtocolVersion { major: 3, minor: 2 };

    /// From an Int32: major in the upper half, minor in the lower.
    #[must_use]
    pub fn from_wire(version: u32) -> ProtocolVersion {
        let [a, b, c, d] = version.to_be_bytes();
        ProtocolVersion {
            major: u16::from_be_bytes([a, b]),
            minor: u16::from_be_bytes([c, d]),
        }
    }

    /// As an Int32.
    #[must_use]
    pub fn to_wire(self) -> u32 {
        u32::from(self.major) << 16 | u32::from(self.minor)
    }

    /// Bytes of a cancel key that a server of this version hands out: 32 from 3.2 on,
    /// as PostgreSQL 18 does, before that 4.
    #[must_use]
    pub fn cancel_key_bytes(self) -> usize {
        if self >= ProtocolVersion::V3_2 { 32 } else { 4 }
    }
}

impl std::fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What a start-up message asks for as to replication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    /// An ordinary session.
    No,
    /// `replication=true`: a physical walsender, connected to no database.
    Physical,
    /// `replication=database`: a logical walsender, which takes SQL too.
    Logical,
}

/// A decoded StartupMessage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartupMessage {
    /// The version that the client asks for (3.x), not what was settled on.
    pub protocol: ProtocolVersion,
    /// `user`; never empty.
    pub user: Bytes,
    /// `database`; the user's name where it is missing or empty, as the server does.
    pub database: Bytes,
    /// `replication`.
    pub replication: Replication,
    /// `options`, read as far as possible.
    pub options: StartupOptions,
    /// All other parameters in order: settings such as `application_name` and
    /// `client_encoding`.
    pub parameters: Vec<(Bytes, Bytes)>,
    /// Names of protocol options (`_pq_.`...). None is known to this version, so all of
    /// them go into NegotiateProtocolVersion.
    pub protocol_options: Vec<Bytes>,
}

impl StartupMessage {
    /// All settings that the client wants, in the order in which the server applies
    /// them: those in `options` first, then the parameters.
    pub fn settings(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        let options = self.options.settings.iter();
        options
            .chain(self.parameters.iter())
            .map(|(name, value)| (name, value))
    }

    /// The value of the last setting with this name, in any case.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&Bytes> {
        self.settings()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
            .last()
            .map(|(_, value)| value)
    }

    fn decode(protocol: ProtocolVersion, body: &Bytes) -> Result<StartupMessage, LoginError> {
        // The list must end exactly with the zero byte that closes the packet.
        let mut reader = Reader::new(body);
        let mut pairs: Vec<(&[u8], &[u8])> = Vec::new();
        loop {
            let name = reader.take_cstr().map_err(|_| LoginError::StartupLayout)?;
            if name.is_empty() {
                break;
            }
            let value = reader.take_cstr().map_err(|_| LoginError::StartupLayout)?;
            pairs.push((name, value));
        }
        reader.expect_end().map_err(|_| LoginError::StartupLayout)?;
        refuse_duplicates(&pairs)?;

        let mut user = Bytes::new();
        let mut database = Bytes::new();
        let mut replication = Replication::No;
        let mut options = StartupOptions::default();
        let mut parameters = Vec::new();
        let mut protocol_options = Vec::new();
        for (name, value) in pairs {
            match name {
                b"user" => user = body.slice_ref(value),
                b"database" => database = body.slice_ref(value),
                b"options" => options = StartupOptions::read(body.slice_ref(value)),
                b"replication" => replication = read_replication(value)?,
                name if name.starts_with(PROTOCOL_OPTION_PREFIX) => {
                    protocol_options.push(body.slice_ref(name));
                }
                name => parameters.push((body.slice_ref(name), body.slice_ref(value))),
            }
        }
        if user.is_empty() {
            return Err(LoginError::NoUser);
        }
        if database.is_empty() {
            database = user.clone();
        }
        Ok(StartupMessage {
            protocol,
            user,
            database,
            replication,
            options,
            parameters,
            protocol_options,
        })
    }
}

/// The server takes the last of two; which of them another reader takes is a guess, so
/// two are refused. Names of settings are compared without case, as the server does.
fn refuse_duplicates(pairs: &[(&[u8], &[u8])]) -> Result<(), LoginError> {
    let mut names: Vec<Vec<u8>> = pairs
        .iter()
        .map(|(name, _)| name.to_ascii_lowercase())
        .collect();
    names.sort_unstable();
    match names.windows(2).any(|two| two.first() == two.last()) {
        true => Err(LoginError::DuplicateParameter),
        false => Ok(()),
    }
}

/// `database`, or a Boolean as the server reads it: any unique beginning of true, false,
/// yes, no, on, off, or 1 or 0, in any case.
fn read_replication(value: &[u8]) -> Result<Replication, LoginError> {
    if value == b"database" {
        return Ok(Replication::Logical);
    }
    let value = value.to_ascii_lowercase();
    let begins = |word: &[u8], least: usize| value.len() >= least && word.starts_with(&value);
    if begins(b"true", 1) || begins(b"yes", 1) || begins(b"on", 2) || value == b"1" {
        Ok(Replication::Physical)
    } else if begins(b"false", 1) || begins(b"no", 1) || begins(b"off", 2) || value == b"0" {
        Ok(Replication::No)
    } else {
        Err(LoginError::BadReplication)
    }
}

/// Any of the packets that can open a connection.
#[derive(Debug, Clone)]
pub enum StartupPacket {
    /// StartupMessage of protocol 3.x.
    Startup(StartupMessage),
    /// SSLRequest.
    SslRequest,
    /// GSSENCRequest.
    GssEncRequest,
    /// CancelRequest.
    Cancel(CancelRequest),
}

impl StartupPacket {
    /// Decodes what follows the length. Errors: see [`LoginError`].
    pub fn decode(body: &Bytes) -> Result<StartupPacket, LoginError> {
        let mut reader = Reader::new(body);
        let code = reader.take_u32()?;
        match code {
            SSL_REQUEST_CODE => {
                reader.expect_end()?;
                Ok(StartupPacket::SslRequest)
            }
            GSSENC_REQUEST_CODE => {
                reader.expect_end()?;
                Ok(StartupPacket::GssEncRequest)
            }
            CANCEL_REQUEST_CODE => {
                let request = CancelRequest::decode(reader.rest())?;
                Ok(StartupPacket::Cancel(request))
            }
            version => {
                let ProtocolVersion { major, minor } = ProtocolVersion::from_wire(version);
                if major != 3 {
                    return Err(LoginError::UnsupportedProtocol { major, minor });
                }
                let protocol = ProtocolVersion { major, minor };
                let body = body.slice_ref(reader.rest());
                StartupMessage::decode(protocol, &body).map(StartupPacket::Startup)
            }
        }
    }
}

/// Appends a StartupMessage. Parameters with an empty name would end the list and are
/// refused. Errors: [`WireError::EmbeddedNul`], [`WireError::BadValue`].
pub fn startup_message<'p>(
    out: &mut BytesMut,
    protocol: ProtocolVersion,
    parameters: impl IntoIterator<Item = (&'p [u8], &'p [u8])>,
) -> Result<(), WireError> {
    counted(out, |out| {
        out.put_u32(protocol.to_wire());
        for (name, value) in parameters {
            if name.is_empty() {
                return Err(WireError::BadValue {
                    field: "parameter name",
                });
            }
            put_cstr(out, name)?;
            put_cstr(out, value)?;
        }
        out.put_u8(0);
        Ok(())
    })
}

/// Appends an SSLRequest.
pub fn ssl_request(out: &mut BytesMut) {
    out.put_u32(8);
    out.put_u32(SSL_REQUEST_CODE);
}

#[cfg(test)]
mod tests;
