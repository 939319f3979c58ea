//! Frames and the message decoders: however a stream is cut, the same messages come out,
//! no byte is lost, and what decodes encodes to the same bytes.

use bytes::{Bytes, BytesMut};
use postgres::WireError;
use postgres::wire::backend::{self, BackendMessage};
use postgres::wire::frontend::{self, FrontendMessage};
use postgres::wire::{Frame, Frames, Piece, Treatment};

use crate::input::{Input, pieces};

/// Largest body that is held; larger ones are streamed or refused, by the flags.
const WHOLE_BYTES_MAX: u32 = 64;

/// One message as it came out, in whatever way.
#[derive(Debug, PartialEq)]
enum Item {
    Whole(u8, Vec<u8>),
    Streamed(u8, u32, Vec<u8>, bool),
}

type Split = (Vec<Item>, Option<WireError>, Option<Bytes>);

/// Input: flags (1: large messages are refused, 2: runs are taken), read sizes, the stream.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.byte();
    let sizes = input.sizes();
    let stream = input.rest();
    let whole = split(stream, &[], flags & 1 != 0, false);
    let cut = split(stream, sizes, flags & 1 != 0, flags & 2 != 0);
    assert_eq!(whole, cut);
    for item in &whole.0 {
        if let Item::Whole(tag, body) = item {
            frontend_body(*tag, body);
            backend_body(*tag, body);
        }
    }
}

fn split(stream: &[u8], sizes: &[u8], refuse: bool, runs: bool) -> Split {
    let mut frames = Frames::new();
    let mut items = Vec::new();
    let mut pushed = 0;
    for piece in pieces(stream, sizes) {
        frames.push(Bytes::copy_from_slice(piece));
        pushed += piece.len();
        if let Err(error) = pull(&mut frames, &mut items, refuse, runs) {
            // Of a run it is the target that refuses, and the frames go on.
            if !runs {
                let again = frames.next(|_, _| Treatment::Whole);
                assert_eq!(again, Err(error), "for good");
            }
            return (items, Some(error), None);
        }
        assert_eq!(pushed, taken(&items) + frames.buffered());
    }
    let rest = frames.into_rest();
    (items, None, Some(rest))
}

fn taken(items: &[Item]) -> usize {
    let bytes = |item: &Item| match item {
        Item::Whole(_, body) | Item::Streamed(_, _, body, _) => 5 + body.len(),
    };
    items.iter().map(bytes).sum()
}

fn pull(
    frames: &mut Frames,
    items: &mut Vec<Item>,
    refuse: bool,
    runs: bool,
) -> Result<(), WireError> {
    loop {
        if runs {
            let run = frames.peek_run(|tag| tag == b'D' || tag == b'Q');
            let mut bytes = frames.contiguous()[..run].to_vec();
            if run > 0 {
                assert_eq!(frames.take_run(run), bytes);
            }
            while let Some((header, rest)) = bytes.split_first_chunk::<5>() {
                let [tag, length @ ..] = *header;
                let body = rest[..u32::from_be_bytes(length) as usize - 4].to_vec();
                bytes.drain(..5 + body.len());
                items.push(as_ruled(tag, body, refuse)?);
            }
        }
        let rule = |_, length| match length > WHOLE_BYTES_MAX {
            false => Treatment::Whole,
            true if refuse => Treatment::Refuse,
            true => Treatment::Stream,
        };
        match frames.next(rule)? {
            None => return Ok(()),
            Some(Piece::Frame(frame)) => items.push(Item::Whole(frame.tag, frame.body().to_vec())),
            Some(Piece::Start { tag, length }) => {
                items.push(Item::Streamed(tag, length, Vec::new(), false));
            }
            Some(Piece::Chunk(bytes)) => match items.last_mut() {
                Some(Item::Streamed(_, length, body, false)) => {
                    assert!(!bytes.is_empty());
                    body.extend_from_slice(&bytes);
                    assert!(body.len() <= *length as usize);
                }
                other => panic!("a chunk behind {other:?}"),
            },
            Some(Piece::End) => match items.last_mut() {
                Some(Item::Streamed(_, length, body, end @ false)) => {
                    assert_eq!(body.len(), *length as usize);
                    *end = true;
                }
                other => panic!("an end behind {other:?}"),
            },
        }
    }
}

/// What the rule would have made of a message that was taken in a run. Runs are not held
/// to the rule, so only those of messages that are held whole can be compared.
fn as_ruled(tag: u8, body: Vec<u8>, refuse: bool) -> Result<Item, WireError> {
    let length = body.len() as u32;
    match length > WHOLE_BYTES_MAX {
        false => Ok(Item::Whole(tag, body)),
        true if refuse => Err(WireError::TooLarge { tag, length }),
        true => Ok(Item::Streamed(tag, length, body, true)),
    }
}

fn frontend_body(tag: u8, body: &[u8]) {
    let Ok(message) = frontend::decode(tag, body) else {
        return;
    };
    let mut out = BytesMut::new();
    match message {
        FrontendMessage::Query(query) => query.encode(&mut out),
        FrontendMessage::Parse(parse) => {
            let oids: Vec<u32> = parse.parameter_types.iter().collect();
            assert_eq!(oids.len(), parse.parameter_types.len());
            frontend::parse(&mut out, parse.name, parse.text, &oids)
        }
        FrontendMessage::Bind(bind) => {
            let formats: Vec<i16> = bind.value_formats.iter().collect();
            let values: Vec<_> = bind.values.iter().collect();
            let results: Vec<i16> = bind.result_formats.iter().collect();
            for index in [0, 1, values.len(), usize::MAX] {
                let _ = (bind.value_formats.of(index), bind.result_formats.of(index));
            }
            frontend::bind(
                &mut out,
                bind.portal,
                bind.statement,
                &formats,
                &values,
                &results,
            )
        }
        FrontendMessage::Describe(describe) => describe.encode(&mut out),
        FrontendMessage::Execute(execute) => execute.encode(&mut out),
        FrontendMessage::Close(close) => close.encode(&mut out),
        FrontendMessage::FunctionCall(call) => {
            let formats: Vec<i16> = call.argument_formats.iter().collect();
            let values: Vec<_> = call.arguments.iter().collect();
            frontend::function_call(&mut out, call.oid, &formats, &values, call.result_format)
        }
        FrontendMessage::CopyData(data) => frontend::copy_data(&mut out, data),
        FrontendMessage::CopyFail(reason) => frontend::copy_fail(&mut out, reason),
        FrontendMessage::Password(_) => {
            let _ = frontend::decode_password(body);
            if let Ok(sasl) = frontend::SaslInitialResponse::decode(body) {
                let mut again = BytesMut::new();
                sasl.encode(&mut again).expect("what was decoded");
                assert_eq!(&again[5..], body);
            }
            return;
        }
        FrontendMessage::Sync | FrontendMessage::Flush => return assert!(body.is_empty()),
        FrontendMessage::CopyDone | FrontendMessage::Terminate => return assert!(body.is_empty()),
    }
    .expect("what was decoded");
    assert_eq!((out[0], &out[5..]), (tag, body));
}

fn backend_body(tag: u8, body: &[u8]) {
    let Ok(message) = backend::decode(tag, body) else {
        return;
    };
    let mut out = BytesMut::new();
    match message {
        BackendMessage::DataRow(values) => {
            let values: Vec<_> = values.iter().collect();
            backend::data_row(&mut out, values.into_iter())
        }
        BackendMessage::RowDescription(row) => {
            let fields: Vec<_> = row.fields().collect();
            assert_eq!(fields.len(), row.len());
            backend::row_description(&mut out, &fields)
        }
        BackendMessage::CommandComplete(words) => backend::command_complete(&mut out, words),
        BackendMessage::ParameterDescription(oids) => {
            backend::parameter_description(&mut out, &oids.iter().collect::<Vec<_>>())
        }
        BackendMessage::ParameterStatus(status) => {
            backend::parameter_status(&mut out, status.name, status.value)
        }
        BackendMessage::FunctionCallResponse(value) => {
            backend::function_call_response(&mut out, value)
        }
        BackendMessage::Notification(note) => {
            backend::notification(&mut out, note.process_id, note.channel, note.payload)
        }
        BackendMessage::ErrorResponse(report) | BackendMessage::NoticeResponse(report) => {
            let _ = (report.sqlstate(), report.severity(), report.is_fatal());
            assert!(report.fields().count() <= body.len());
            return;
        }
        BackendMessage::Authentication(request) => {
            assert!(request.mechanisms().count() <= body.len());
            return;
        }
        BackendMessage::NegotiateProtocolVersion(version) => {
            assert!(version.options().count() <= body.len());
            return;
        }
        _ => return,
    }
    .expect("what was decoded");
    assert_eq!((out[0], &out[5..]), (tag, body));
    let raw = Bytes::from(out);
    let frame = Frame { tag, raw };
    assert_eq!(frame.share(frame.body()), frame.body_bytes());
}
