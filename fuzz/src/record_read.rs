//! The record's readers: what reads back is byte for byte what was written, and no
//! changed or missing byte of a frame goes unnoticed.

use recorder::{
    Body, Frame, FrameError, FrameHead, FrameKind, HEADER_BYTES, Header, SessionId, Style,
    WriterBody, chain_start, decode_frame, encode_frame, neutralise, render,
};

use crate::input::Input;

/// Input: a mode; then the bytes of a header, a frame, a body, or choices for a frame
/// that is damaged.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 5 {
        0 => header(input.rest()),
        1 => frame(input.rest()),
        2 => body(input.rest()),
        3 => damaged(&mut input),
        _ => shown(input.rest()),
    }
}

fn header(bytes: &[u8]) {
    if let Ok(header) = Header::decode(bytes) {
        assert_eq!(header.encode(), bytes[..HEADER_BYTES]);
    }
}

fn frame(bytes: &[u8]) {
    if let Ok(frame) = decode_frame(bytes) {
        again(&frame, &bytes[..frame.size]);
        for cut in [0, 1, frame.size / 2, frame.size - 1] {
            assert_eq!(decode_frame(&bytes[..cut]), Err(FrameError::Partial));
        }
    }
}

fn again(frame: &Frame<'_>, bytes: &[u8]) {
    let mut out = Vec::new();
    let hash = encode_frame(&mut out, &frame.head, frame.body);
    assert_eq!((&out[..], hash), (bytes, frame.hash));
}

fn body(bytes: &[u8]) {
    if let Ok(body) = Body::decode(bytes) {
        assert_eq!(body.encode().as_deref(), Ok(bytes));
        let _ = body.unit();
    }
    if let Ok(body) = WriterBody::decode(bytes) {
        assert_eq!(body.encode().as_deref(), Ok(bytes));
    }
}

fn damaged(input: &mut Input<'_>) {
    let [kind, change, at_high, at_low] = [(); 4].map(|()| input.byte());
    let session = SessionId::from_bytes([kind; 16]);
    let head = FrameHead {
        kind: if kind & 1 == 0 {
            FrameKind::Session
        } else {
            FrameKind::Writer
        },
        shard: u16::from(kind),
        session,
        sequence: u64::from(at_low),
        position: u64::from(at_high),
        wall_clock_us: u64::from(change),
        previous: chain_start(session),
    };
    let body = input.rest();
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, &head, body);
    let whole = decode_frame(&bytes).expect("a frame just written");
    assert_eq!((whole.head, whole.body), (head, body));
    let at = usize::from(u16::from_be_bytes([at_high, at_low])) % bytes.len();
    assert_eq!(decode_frame(&bytes[..at]), Err(FrameError::Partial));
    bytes[at] ^= change.max(1);
    assert!(decode_frame(&bytes).is_err(), "byte {at} was changed");
}

fn shown(bytes: &[u8]) {
    let text = neutralise(bytes);
    assert!(text.chars().all(|c| !c.is_control()));
    let _ = (render, Style::default);
}
