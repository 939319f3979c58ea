//! Frontend messages as bytes, and a reader of backend streams.

use bytes::BytesMut;
use postgres::wire::frontend::{self, Kind, Query};

/// Messages one after the other.
#[derive(Default, Clone)]
pub struct Say(pub BytesMut);

impl Say {
    pub fn new() -> Say {
        Say::default()
    }
    pub fn query(mut self, text: &str) -> Say {
        Query {
            text: text.as_bytes(),
        }
        .encode(&mut self.0)
        .unwrap();
        self
    }
    pub fn parse(mut self, name: &str, text: &str) -> Say {
        frontend::parse(&mut self.0, name.as_bytes(), text.as_bytes(), &[]).unwrap();
        self
    }
    pub fn bind(self, portal: &str, statement: &str) -> Say {
        self.bind_values(portal, statement, &[], &[])
    }
    pub fn bind_values(
        mut self,
        portal: &str,
        statement: &str,
        values: &[&[u8]],
        results: &[i16],
    ) -> Say {
        let values: Vec<_> = values.iter().map(|value| Some(*value)).collect();
        frontend::bind(
            &mut self.0,
            portal.as_bytes(),
            statement.as_bytes(),
            &[],
            &values,
            results,
        )
        .unwrap();
        self
    }
    pub fn describe(mut self, kind: Kind, name: &str) -> Say {
        frontend::Describe {
            kind,
            name: name.as_bytes(),
        }
        .encode(&mut self.0)
        .unwrap();
        self
    }
    pub fn execute(mut self, portal: &str, max_rows: i32) -> Say {
        frontend::Execute {
            portal: portal.as_bytes(),
            max_rows,
        }
        .encode(&mut self.0)
        .unwrap();
        self
    }
    pub fn close(mut self, kind: Kind, name: &str) -> Say {
        frontend::Close {
            kind,
            name: name.as_bytes(),
        }
        .encode(&mut self.0)
        .unwrap();
        self
    }
    pub fn call(mut self, oid: u32) -> Say {
        frontend::function_call(&mut self.0, oid, &[], &[Some(b"x")], 0).unwrap();
        self
    }
    pub fn sync(mut self) -> Say {
        frontend::sync(&mut self.0);
        self
    }
    pub fn flush(mut self) -> Say {
        frontend::flush(&mut self.0);
        self
    }
    pub fn copy_data(mut self, data: &[u8]) -> Say {
        frontend::copy_data(&mut self.0, data).unwrap();
        self
    }
    pub fn copy_done(mut self) -> Say {
        frontend::copy_done(&mut self.0);
        self
    }
    pub fn copy_fail(mut self) -> Say {
        frontend::copy_fail(&mut self.0, b"enough").unwrap();
        self
    }
    pub fn terminate(mut self) -> Say {
        frontend::terminate(&mut self.0);
        self
    }
    pub fn raw(mut self, bytes: &[u8]) -> Say {
        self.0.extend_from_slice(bytes);
        self
    }
    pub fn bytes(&self) -> Vec<u8> {
        self.0.to_vec()
    }
}

/// Any message with this body.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// Splits a stream of whole messages; panics on anything else.
pub fn split(mut stream: &[u8]) -> Vec<(u8, &[u8])> {
    let mut out = Vec::new();
    while !stream.is_empty() {
        assert!(stream.len() >= 5, "cut header: {stream:?}");
        let length = u32::from_be_bytes(stream[1..5].try_into().unwrap()) as usize;
        assert!(
            stream.len() > length,
            "cut message of type {}",
            stream[0] as char
        );
        out.push((stream[0], &stream[5..=length]));
        stream = &stream[length + 1..];
    }
    out
}

/// The type bytes of a stream, in order.
pub fn tags(stream: &[u8]) -> String {
    split(stream).iter().map(|(tag, _)| *tag as char).collect()
}

/// All SQLSTATEs of errors in a stream, in order.
pub fn sqlstates(stream: &[u8]) -> Vec<String> {
    split(stream)
        .into_iter()
        .filter(|(tag, _)| *tag == b'E')
        .map(|(_, body)| {
            let report = postgres::wire::backend::Report::decode(body).unwrap();
            String::from_utf8(report.sqlstate().unwrap().to_vec()).unwrap()
        })
        .collect()
}

/// Transaction statuses of a stream, in order.
pub fn statuses(stream: &[u8]) -> String {
    split(stream)
        .iter()
        .filter(|(tag, _)| *tag == b'Z')
        .map(|(_, body)| body[0] as char)
        .collect()
}
