//! PROXY protocol version 2: the header by which a balancer names the source
//! of a connection. Source: HAProxy, `doc/proxy-protocol.txt`, section 2.2.
//!
//! ```text
//! 12 bytes  signature 0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A
//!  1 byte   version (high nibble, 2) and command (0 LOCAL, 1 PROXY)
//!  1 byte   family (high nibble) and transport (1 stream)
//!  2 bytes  length of what follows, big-endian
//!  n bytes  addresses, then TLVs (not read)
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes after the fixed part that are accepted; addresses take 36, the rest
/// is room for a balancer's TLVs.
pub const REST_BYTES_MAX: usize = 1024;

/// A whole header.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes that it takes at the front of the stream.
    pub length: usize,
    /// The source named; `None` for LOCAL (the balancer itself, a health check).
    pub source: Option<SocketAddr>,
}

/// Why the bytes are no header that we accept.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The signature differs.
    #[error("the connection does not begin with a PROXY protocol v2 header")]
    NoSignature,
    /// Version, command, family or transport is not one we serve.
    #[error("PROXY protocol header of an unsupported kind")]
    Unsupported,
    /// The length is too small for the family or over the bound.
    #[error("PROXY protocol header of an impossible length")]
    BadLength,
}

/// Reads a header from the front of `bytes`; `Ok(None)` asks for more bytes.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let signature_seen = bytes.len().min(SIGNATURE.len());
    if bytes[..signature_seen] != SIGNATURE[..signature_seen] {
        return Err(HeaderError::NoSignature);
    }
    let Some(fixed) = bytes.get(12..16) else {
        return Ok(None);
    };
    let (version, command, family, transport) =
        (fixed[0] >> 4, fixed[0] & 15, fixed[1] >> 4, fixed[1] & 15);
    let rest_length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if version != 2 || command > 1 {
        return Err(HeaderError::Unsupported);
    }
    if rest_length > REST_BYTES_MAX {
        return Err(HeaderError::BadLength);
    }
    let length = 16 + rest_length;
    if command == 0 {
        return Ok((bytes.len() >= length).then_some(Header {
            length,
            source: None,
        }));
    }
    let needed = match (family, transport) {
        (1, 1) => 12,
        (2, 1) => 36,
        _ => return Err(HeaderError::Unsupported),
    };
    if rest_length < needed {
        return Err(HeaderError::BadLength);
    }
    let Some(rest) = bytes.get(16..length) else {
        return Ok(None);
    };
    let source = if family == 1 {
        let ip: [u8; 4] = [rest[0], rest[1], rest[2], rest[3]];
        SocketAddr::new(
            IpAddr::V4(Ipv4Addr::from(ip)),
            u16::from_be_bytes([rest[8], rest[9]]),
        )
    } else {
        let mut ip = [0u8; 16];
        ip.copy_from_slice(&rest[..16]);
        SocketAddr::new(
            IpAddr::V6(Ipv6Addr::from(ip)).to_canonical(),
            u16::from_be_bytes([rest[32], rest[33]]),
        )
    };
    Ok(Some(Header {
        length,
        source: Some(source),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4() -> Vec<u8> {
        let mut h = SIGNATURE.to_vec();
        h.extend([
            0x21, 0x11, 0, 12, 192, 0, 2, 7, 127, 0, 0, 1, 0x30, 0x39, 0x15, 0x38,
        ]);
        h
    }

    #[test]
    fn reads_the_source_of_a_v4_header_and_leaves_the_rest() {
        let mut bytes = v4();
        bytes.extend(b"rest");
        let header = parse(&bytes).expect("valid").expect("whole");
        assert_eq!(
            header,
            Header {
                length: 28,
                source: Some("192.0.2.7:12345".parse().expect("an address"))
            }
        );
    }

    #[test]
    fn every_truncation_asks_for_more() {
        let bytes = v4();
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn every_single_changed_byte_of_the_head_is_refused_or_changes_nothing_else() {
        for at in 0..14 {
            for value in 0..=255u8 {
                let mut bytes = v4();
                if bytes[at] == value {
                    continue;
                }
                bytes[at] = value;
                match parse(&bytes) {
                    Err(_) => {}
                    // LOCAL is the one other valid reading.
                    Ok(Some(h)) => assert!(
                        at == 12 && value == 0x20 && h.source.is_none(),
                        "byte {at} = {value}"
                    ),
                    Ok(None) => panic!("byte {at} = {value} asks for more"),
                }
            }
        }
    }

    #[test]
    fn lying_lengths_are_refused() {
        for length in 0..12u16 {
            let mut bytes = v4();
            bytes[14..16].copy_from_slice(&length.to_be_bytes());
            assert_eq!(parse(&bytes), Err(HeaderError::BadLength));
        }
        let mut bytes = v4();
        bytes[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        assert_eq!(parse(&bytes), Err(HeaderError::BadLength));
    }

    #[test]
    fn v6_mapped_sources_count_as_v4() {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0x21, 0x21, 0, 36]);
        bytes.extend(
            "::ffff:192.0.2.9"
                .parse::<Ipv6Addr>()
                .expect("an address")
                .octets(),
        );
        bytes.extend([0; 16]);
        bytes.extend([0, 80, 0, 81]);
        let header = parse(&bytes).expect("valid").expect("whole");
        assert_eq!(
            header.source,
            Some("192.0.2.9:80".parse().expect("an address"))
        );
    }
}
