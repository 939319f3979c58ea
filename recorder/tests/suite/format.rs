//! The worked example of FORMAT.md is what the code writes.

use portcullis_recorder::*;

use super::common::id;

/// All bytes of the document's `hex` blocks; text after `;` is a remark.
fn example() -> Vec<u8> {
    let document = include_str!("../../FORMAT.md");
    let mut bytes = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        match line.trim() {
            "```hex" => inside = true,
            "```" => inside = false,
            line if inside => {
                for word in line.split(';').next().unwrap_or("").split_whitespace() {
                    let (pairs, rest) = word.as_bytes().as_chunks::<2>();
                    assert!(rest.is_empty(), "{word}");
                    for pair in pairs {
                        let pair = std::str::from_utf8(pair).expect("text");
                        bytes.push(u8::from_str_radix(pair, 16).expect("hex"));
                    }
                }
            }
            _ => {}
        }
    }
    bytes
}

#[test]
fn the_worked_example_is_what_is_written() {
    let header = Header {
        segment: 1,
        first_position: 0,
        created_us: 1_800_000_000_000_000,
        writer: id(0xaa),
        previous: [0; 32],
    };
    let head = FrameHead {
        kind: FrameKind::Session,
        shard: 1,
        session: id(0x5e),
        sequence: 0,
        position: 0,
        wall_clock_us: 1_800_000_000_000_001,
        previous: chain_start(id(0x5e)),
    };
    let body = Body::Cancel {
        unit: 7,
        source: "[::1]:9".into(),
        accepted: true,
    };
    let mut written = header.encode().to_vec();
    encode_frame(&mut written, &head, &body.encode().expect("it encodes"));
    let hex: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(example() == written, "FORMAT.md should show:\n{hex}");

    let documented = example();
    assert_eq!(Header::decode(&documented), Ok(header));
    let frame = decode_frame(&documented[HEADER_BYTES..]).expect("a whole frame");
    assert_eq!(frame.head, head);
    assert_eq!(Body::decode(frame.body), Ok(body));
}

#[test]
fn the_variant_numbers_are_those_documented() {
    let document = include_str!("../../FORMAT.md");
    for body in super::common::every_body() {
        let number = body.encode().expect("it encodes")[0];
        let name = format!("{body:?}");
        let name = name.split(' ').next().expect("a name");
        assert!(
            document.contains(&format!("| {number} | `{name}` |")),
            "{number} {name}"
        );
    }
    for body in super::common::every_writer_body() {
        let number = body.encode().expect("it encodes")[0];
        let name = format!("{body:?}");
        let name = name.split(' ').next().expect("a name");
        assert!(
            document.contains(&format!("| {number} | `{name}` |")),
            "{number} {name}"
        );
    }
}
