//! CancelRequest: the one message of a connection that exists only to cancel.
//!
//! Shape: Int32 length (counts itself), Int32 80877102, Int32 process id, then the
//! secret key: 4 bytes up to protocol 3.1, 4 to 256 from 3.2 on, to the end of the
//! packet. Source: PostgreSQL documentation, "Message Formats".

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::WireError;
use crate::wire::Reader;
use crate::wire::backend::SECRET_KEY_BYTES;
use crate::wire::encode::counted;

/// The request code, where a start-up packet has its protocol version: 1234.5678.
pub const CANCEL_REQUEST_CODE: u32 = 80_877_102;

/// A request to cancel what a backend is doing. `Debug` does not show the key.
#[derive(Clone)]
pub struct CancelRequest {
    /// Process id, as BackendKeyData gave it.
    pub process_id: u32,
    /// Secret key, as BackendKeyData gave it; 4 to 256 bytes.
    pub secret_key: Bytes,
}

impl std::fmt::Debug for CancelRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelRequest")
            .field("process_id", &self.process_id)
            .finish_non_exhaustive()
    }
}

impl CancelRequest {
    /// Decodes what follows the request code: process id and key.
    /// Errors: [`WireError::Truncated`]; [`WireError::BadValue`] for a key of another
    /// length than [`SECRET_KEY_BYTES`].
    pub fn decode(body: &[u8]) -> Result<CancelRequest, WireError> {
        let mut reader = Reader::new(body);
        let process_id = reader.take_u32()?;
        let key = reader.rest();
        if !SECRET_KEY_BYTES.contains(&key.len()) {
            return Err(WireError::BadValue {
                field: "secret key",
            });
        }
        Ok(CancelRequest {
            process_id,
            secret_key: Bytes::copy_from_slice(key),
        })
    }

    /// The whole packet. Errors: [`WireError::BadValue`] for a key of another length
    /// than [`SECRET_KEY_BYTES`].
    pub fn encode(&self) -> Result<Bytes, WireError> {
        if !SECRET_KEY_BYTES.contains(&self.secret_key.len()) {
            return Err(WireError::BadValue {
                field: "secret key",
            });
        }
        let mut out = BytesMut::with_capacity(self.secret_key.len().saturating_add(12));
        counted(&mut out, |out| {
            out.put_u32(CANCEL_REQUEST_CODE);
            out.put_u32(self.process_id);
            out.put_slice(&self.secret_key);
            Ok(())
        })?;
        Ok(out.freeze())
    }

    /// True when this request names exactly that session. The keys are compared in
    /// constant time; keys of different lengths never match.
    #[must_use]
    pub fn is_for(&self, process_id: u32, secret_key: &[u8]) -> bool {
        self.process_id == process_id
            && aws_lc_rs::constant_time::verify_slices_are_equal(&self.secret_key, secret_key)
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key_bytes: usize) -> CancelRequest {
        CancelRequest {
            process_id: 0x0102_0304,
            secret_key: Bytes::from(vec![0xab; key_bytes]),
        }
    }

    #[test]
    fn encodes_as_the_specification_prints_it() {
        let packet = request(4).encode().unwrap();
        assert_eq!(
            &packet[..],
            b"\0\0\0\x10\x04\xd2\x16\x2e\x01\x02\x03\x04\xab\xab\xab\xab"
        );
    }

    #[test]
    fn keys_of_4_to_256_bytes_come_back_and_others_are_refused() {
        for length in 0..300 {
            let encoded = request(length).encode();
            let body = [&[1, 2, 3, 4][..], &vec![0xab; length]].concat();
            let decoded = CancelRequest::decode(&body);
            if (4..=256).contains(&length) {
                let packet = encoded.unwrap();
                assert_eq!(&packet[8..], &body[..]);
                assert!(decoded.unwrap().is_for(0x0102_0304, &vec![0xab; length]));
            } else {
                assert!(encoded.is_err());
                assert!(decoded.is_err());
            }
        }
    }

    #[test]
    fn matches_only_the_exact_process_and_key() {
        let request = request(32);
        assert!(!request.is_for(0x0102_0305, &[0xab; 32]));
        assert!(!request.is_for(0x0102_0304, &[0xab; 31]));
        assert!(!request.is_for(0x0102_0304, &[0xab; 33]));
        assert!(!request.is_for(0x0102_0304, &[0xac; 32]));
    }

    #[test]
    fn debug_does_not_show_the_key() {
        let shown = format!("{:?}", request(4));
        assert!(!shown.contains("ab") && !shown.contains("171"), "{shown}");
    }
}
