//! Bodies on the wire: the bytes are bincode's, and nothing else is read.

use portcullis_recorder::*;
use proptest::prelude::*;

use super::common::{every_body, every_writer_body};

/// Fixed-width integers, little-endian, 32-bit variant numbers: what wincode writes by default.
fn reference() -> impl bincode::config::Config {
    bincode::config::legacy()
}

#[test]
fn bodies_are_bincode_both_ways() {
    for body in every_body() {
        let ours = body.encode().expect("it encodes");
        let theirs = bincode::serde::encode_to_vec(&body, reference()).expect("it encodes");
        assert_eq!(ours, theirs, "{body:?}");
        let (read, size): (Body, usize) =
            bincode::serde::decode_from_slice(&ours, reference()).expect("bincode reads ours");
        assert_eq!((read, size), (body.clone(), ours.len()));
        assert_eq!(Body::decode(&theirs).as_ref(), Ok(&body));
    }
    for body in every_writer_body() {
        let ours = body.encode().expect("it encodes");
        let theirs = bincode::serde::encode_to_vec(&body, reference()).expect("it encodes");
        assert_eq!(ours, theirs, "{body:?}");
        assert_eq!(WriterBody::decode(&theirs).as_ref(), Ok(&body));
    }
}

#[test]
fn bodies_survive_json() {
    for body in every_body() {
        let text = serde_json::to_string(&body).expect("it encodes");
        assert_eq!(serde_json::from_str::<Body>(&text).expect("it reads"), body);
    }
}

#[test]
fn refuses_each_truncation_and_each_trailing_byte() {
    for body in every_body() {
        let mut bytes = body.encode().expect("it encodes");
        for cut in 0..bytes.len() {
            assert!(
                Body::decode(&bytes[..cut]).is_err(),
                "{body:?} cut at {cut}"
            );
        }
        bytes.push(0);
        assert!(Body::decode(&bytes).is_err(), "{body:?} with one more byte");
    }
}

#[test]
fn refuses_unknown_variants_and_lying_lengths() {
    for body in every_body() {
        let bytes = body.encode().expect("it encodes");
        let mut unknown = bytes.clone();
        unknown[..4].copy_from_slice(&1000u32.to_le_bytes());
        let error = Body::decode(&unknown).expect_err("no such variant");
        assert!(error.to_string().contains("version 1"), "{error}");
        // Every eight bytes read as a length of almost everything: an error or another body, and
        // never more memory than the limit.
        for at in 4..bytes.len().saturating_sub(8) {
            for lie in [u64::MAX, 1 << 40, 1 << 20, bytes.len() as u64 + 1] {
                let mut lying = bytes.clone();
                lying[at..at + 8].copy_from_slice(&lie.to_le_bytes());
                if let Ok(read) = Body::decode(&lying) {
                    assert_eq!(read.encode().expect("it encodes"), lying);
                }
            }
        }
    }
}

#[test]
fn refuses_more_than_the_limits() {
    let Body::Request {
        unit,
        kind,
        name,
        text_masked,
        text_length,
        digest,
        truncated,
        decision,
        ..
    } = super::common::request(1, "x")
    else {
        unreachable!("a request")
    };
    let with = |count: usize| Body::Request {
        unit,
        kind: kind.clone(),
        name: name.clone(),
        text_masked: text_masked.clone(),
        text_length,
        digest,
        binds_masked: vec![None; count],
        truncated,
        decision: decision.clone(),
    };
    let most = with(BINDS_MAX);
    assert_eq!(Body::decode(&most.encode().expect("it fits")), Ok(most));
    assert!(with(BINDS_MAX + 1).encode().is_err());
    let large = Body::Rows {
        unit: 1,
        data_masked: vec![7; 3 << 20],
        truncated: false,
    };
    assert_eq!(Body::decode(&large.encode().expect("it fits")), Ok(large));
    let over = Body::Rows {
        unit: 1,
        data_masked: vec![7; BODY_BYTES_MAX],
        truncated: false,
    };
    assert!(over.encode().is_err());
}

proptest! {
    #[test]
    fn random_bytes_are_refused_or_read_exactly(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), variant in 0u32..16) {
        if bytes.len() >= 4 {
            bytes[..4].copy_from_slice(&variant.to_le_bytes());
        }
        if let Ok(body) = Body::decode(&bytes) {
            prop_assert_eq!(body.encode().expect("it encodes"), bytes);
        }
    }

    #[test]
    fn mutated_bodies_are_refused_or_read_exactly(index in 0usize..30, at in any::<prop::sample::Index>(), value: u8) {
        let bodies = every_body();
        let mut bytes = bodies[index % bodies.len()].encode().expect("it encodes");
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(body) = Body::decode(&bytes) {
            prop_assert_eq!(body.encode().expect("it encodes"), bytes);
        }
    }
}
