//! A simulated agent: start-up, token, frames in, frames out, and everything it
//! was ever sent kept for the hunt.

use super::world::GATEWAY;
use bytes::{Buf, Bytes, BytesMut};
use engine::{Conn, Reader, Writer};
use postgres::cancel::CancelRequest;
use postgres::startup::{ProtocolVersion, startup_message};
use postgres::wire::frontend;
use std::time::Duration;

/// A connected agent.
pub struct Agent {
    reader: Reader,
    /// Writes to the gateway.
    pub writer: Writer,
    input: BytesMut,
    /// Every byte received.
    pub received: Vec<u8>,
    /// Process id and key, once logged in.
    pub key: Option<CancelRequest>,
}

/// One message of the gateway: type byte and body.
pub type Message = (u8, Bytes);

impl Agent {
    /// Dials; `None` where the dial is refused.
    pub async fn dial() -> Option<Agent> {
        let until = engine::now().after(Duration::from_secs(30));
        let conn: Conn = engine::connect(GATEWAY, until).await.ok()?;
        let (reader, writer) = conn.split();
        Some(Agent {
            reader,
            writer,
            input: BytesMut::new(),
            received: Vec::new(),
            key: None,
        })
    }

    /// The start-up message, as bytes.
    pub fn startup() -> Bytes {
        let mut out = BytesMut::new();
        let parameters: [(&[u8], &[u8]); 2] = [(b"user", b"ada"), (b"database", b"vault")];
        startup_message(&mut out, ProtocolVersion::V3_0, parameters).expect("fits");
        out.freeze()
    }

    /// Logs in; true once ReadyForQuery has come.
    pub async fn login(&mut self, token: &str) -> bool {
        self.writer.queue(Self::startup());
        while let Some((tag, body)) = self.next().await {
            match tag {
                b'R' if body.starts_with(&3u32.to_be_bytes()) => {
                    let mut out = BytesMut::new();
                    frontend::password(&mut out, token.as_bytes()).expect("fits");
                    self.writer.queue(out.freeze());
                }
                b'K' => {
                    let mut body = body;
                    let process_id = body.get_u32();
                    let secret_key = body;
                    self.key = Some(CancelRequest {
                        process_id,
                        secret_key,
                    });
                }
                b'Z' => return true,
                _ => {}
            }
        }
        false
    }

    /// The next message; `None` once the connection has ended.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(head) = self.input.get(..5) {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if self.input.len() > length {
                    let mut frame = self.input.split_to(length + 1).freeze();
                    let tag = frame.get_u8();
                    frame.advance(4);
                    return Some((tag, frame));
                }
            }
            let bytes = self.reader.recv().await.ok()?;
            self.received.extend_from_slice(&bytes);
            self.input.extend_from_slice(&bytes);
        }
    }

    /// A Query, answered to its ReadyForQuery.
    pub async fn query(&mut self, text: &str) -> Vec<Message> {
        self.writer.queue(query(text));
        self.until_ready().await
    }

    /// Messages up to and with ReadyForQuery, or up to the end.
    pub async fn until_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.next().await {
            let tag = message.0;
            messages.push(message);
            if tag == b'Z' {
                break;
            }
        }
        messages
    }
}

/// A Query as bytes.
pub fn query(text: &str) -> Bytes {
    let mut out = BytesMut::new();
    let text = text.as_bytes();
    frontend::Query { text }.encode(&mut out).expect("fits");
    out.freeze()
}

/// SQLSTATE of an ErrorResponse or NoticeResponse.
pub fn sqlstate(body: &[u8]) -> String {
    field(body, b'C')
}

/// One field of an ErrorResponse or NoticeResponse.
pub fn field(body: &[u8], code: u8) -> String {
    let report = backend_report(body);
    let found = report.field(code).unwrap_or_default();
    String::from_utf8_lossy(found).into_owned()
}

fn backend_report(body: &[u8]) -> postgres::wire::backend::Report<'_> {
    postgres::wire::backend::Report::decode(body).expect("a whole report")
}
