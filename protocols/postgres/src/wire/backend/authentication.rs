//! Authentication requests (`R`): Int32 code, then what the code brings along.

use bytes::{BufMut, BytesMut};

use super::tag;
use crate::error::WireError;
use crate::wire::Reader;
use crate::wire::encode::{message, put_cstr};

/// A decoded authentication request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// Code 0: logged in.
    Ok,
    /// Code 3: send the password in clear.
    CleartextPassword,
    /// Code 5: send the password hashed with this salt.
    Md5Password {
        /// Four bytes of salt.
        salt: [u8; 4],
    },
    /// Code 10: choose one of these mechanisms.
    Sasl {
        /// Strings one after the other, each with its terminator, without the closing
        /// empty one; see [`Authentication::mechanisms`].
        mechanisms: &'a [u8],
    },
    /// Code 11: the mechanism's next words.
    SaslContinue(&'a [u8]),
    /// Code 12: the mechanism's last words.
    SaslFinal(&'a [u8]),
    /// Any other code (Kerberos, GSSAPI, SSPI, SCM): not spoken here.
    Other(u32),
}

impl<'a> Authentication<'a> {
    /// Errors: [`WireError::Truncated`], [`WireError::NoTerminator`],
    /// [`WireError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Authentication<'a>, WireError> {
        let mut reader = Reader::new(body);
        let request = match reader.take_u32()? {
            0 => Authentication::Ok,
            3 => Authentication::CleartextPassword,
            5 => {
                let mut salt = [0; 4];
                salt.copy_from_slice(reader.take_bytes(4)?);
                Authentication::Md5Password { salt }
            }
            10 => {
                let all = reader.clone().rest();
                while !reader.take_cstr()?.is_empty() {}
                reader.expect_end()?;
                let mechanisms = all.get(..all.len().saturating_sub(1)).unwrap_or_default();
                Authentication::Sasl { mechanisms }
            }
            11 => Authentication::SaslContinue(reader.rest()),
            12 => Authentication::SaslFinal(reader.rest()),
            other => {
                reader.rest();
                Authentication::Other(other)
            }
        };
        reader.expect_end()?;
        Ok(request)
    }

    /// The mechanisms of an [`Authentication::Sasl`]; none for the others.
    pub fn mechanisms(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = Reader::new(match self {
            Authentication::Sasl { mechanisms } => mechanisms,
            _ => &[],
        });
        std::iter::from_fn(move || reader.take_cstr().ok())
    }
}

/// Appends an AuthenticationOk.
pub fn authentication_ok(out: &mut BytesMut) {
    out.put_slice(b"R\0\0\0\x08\0\0\0\0");
}

/// Appends an AuthenticationCleartextPassword.
pub fn authentication_cleartext_password(out: &mut BytesMut) {
    out.put_slice(b"R\0\0\0\x08\0\0\0\x03");
}

/// Appends an AuthenticationMD5Password.
pub fn authentication_md5_password(out: &mut BytesMut, salt: [u8; 4]) {
    out.put_slice(b"R\0\0\0\x0c\0\0\0\x05");
    out.put_slice(&salt);
}

/// Appends an AuthenticationSASL. Errors: [`WireError::EmbeddedNul`];
/// [`WireError::BadValue`] for an empty name, which would end the list.
pub fn authentication_sasl(out: &mut BytesMut, mechanisms: &[&[u8]]) -> Result<(), WireError> {
    message(out, tag::AUTHENTICATION, |out| {
        out.put_u32(10);
        for mechanism in mechanisms {
            if mechanism.is_empty() {
                return Err(WireError::BadValue { field: "mechanism" });
            }
            put_cstr(out, mechanism)?;
        }
        out.put_u8(0);
        Ok(())
    })
}

/// Appends an AuthenticationSASLContinue. Errors: [`WireError::TooLong`].
pub fn authentication_sasl_continue(out: &mut BytesMut, data: &[u8]) -> Result<(), WireError> {
    with_data(out, 11, data)
}

/// Appends an AuthenticationSASLFinal. Errors: [`WireError::TooLong`].
pub fn authentication_sasl_final(out: &mut BytesMut, data: &[u8]) -> Result<(), WireError> {
    with_data(out, 12, data)
}

fn with_data(out: &mut BytesMut, code: u32, data: &[u8]) -> Result<(), WireError> {
    message(out, tag::AUTHENTICATION, |out| {
        out.put_u32(code);
        out.put_slice(data);
        Ok(())
    })
}
