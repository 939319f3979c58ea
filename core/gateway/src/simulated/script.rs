//! What an agent does in one run, drawn from the seed, and what it must see.

use super::agent::{Message, field, query, sqlstate};
use super::model::{Model, Refusal};
use bytes::{Bytes, BytesMut};
use masking::Masker;
use postgres::wire::backend::{self, BackendMessage};
use postgres::wire::frontend::{self, Describe, Execute, Kind};
use std::collections::HashMap;

/// SplitMix64, as the simulation's own.
pub struct Random(pub u64);

impl Random {
    /// The next value below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// What a human does with one held statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Human {
    /// Says yes.
    Approves,
    /// Says no.
    Denies,
    /// Says nothing.
    Sleeps,
}

/// One run of one agent.
pub struct Script {
    /// Messages sent without waiting, and how many ReadyForQuery end them.
    pub batches: Vec<(Bytes, usize)>,
    /// Held statements and what becomes of each.
    pub held: HashMap<String, Human>,
}

impl Script {
    /// Draws a script. `unique` keeps its held statements apart from all others.
    pub fn draw(seed: u64, unique: &str) -> Script {
        let mut random = Random(seed ^ 0x0005_1a7e_5c21_7700);
        let mut script = Script {
            batches: Vec::new(),
            held: HashMap::new(),
        };
        for batch in 0..2 + random.below(3) {
            let mut out = BytesMut::new();
            let units = 1 + random.below(4);
            for unit in 0..units {
                let label = format!("{unique}-{batch}-{unit}");
                if random.below(2) == 0 {
                    let text = script.text(&mut random, &label);
                    out.extend_from_slice(&query(&text));
                } else {
                    for part in 0..1 + random.below(3) {
                        script.extended(&mut random, &format!("{label}-{part}"), &mut out);
                    }
                    frontend::sync(&mut out);
                }
            }
            let units = usize::try_from(units).expect("small");
            script.batches.push((out.freeze(), units));
        }
        script
    }

    fn text(&mut self, random: &mut Random, label: &str) -> String {
        match random.below(12) {
            0..=3 => format!("select note from vault limit {}", random.below(20)),
            4 => format!("insert into orders values ('{label}')"),
            5 => "begin".into(),
            6 => "commit".into(),
            7 => "rollback".into(),
            8 => "select 1/0".into(),
            9 | 10 => {
                ["drop table people", "truncate vault"][usize::from(random.below(2) == 0)].into()
            }
            _ => {
                let text = format!("update people set flag = '{label}'");
                let human = match random.below(4) {
                    0 => Human::Denies,
                    1 => Human::Sleeps,
                    _ => Human::Approves,
                };
                self.held.insert(text.clone(), human);
                text
            }
        }
    }

    fn extended(&mut self, random: &mut Random, label: &str, out: &mut BytesMut) {
        // Each text once, so that a human can tell which one it is that waits.
        let plain = self.text(random, label);
        let text = format!("{plain} -- {label}");
        if let Some(human) = self.held.remove(&plain) {
            self.held.insert(text.clone(), human);
        }
        let name = if random.below(2) == 0 { "" } else { label };
        frontend::parse(out, name.as_bytes(), text.as_bytes(), &[]).expect("fits");
        frontend::bind(out, b"", name.as_bytes(), &[], &[], &[]).expect("fits");
        if random.below(2) == 0 {
            let name = b"";
            let kind = Kind::Portal;
            Describe { kind, name }.encode(out).expect("fits");
        }
        if random.below(3) == 0 {
            let few = 1 + i32::try_from(random.below(5)).expect("small");
            let portal = b"";
            let max_rows = few;
            Execute { portal, max_rows }.encode(out).expect("fits");
        }
        let portal = b"";
        let max_rows = 0;
        Execute { portal, max_rows }.encode(out).expect("fits");
    }

    /// What the agent must see, in the words of [`seen`].
    pub fn expected(&self, masker: &mut Masker) -> Vec<String> {
        let held = self.held.clone();
        let mut model = Model::oracle(Box::new(move |text| {
            if text.starts_with("drop") || text.starts_with("truncate") {
                return Some(Refusal::AtText(b"42501"));
            }
            match held.get(text)? {
                Human::Approves => None,
                Human::Denies => Some(Refusal::AtBind(b"42501")),
                Human::Sleeps => Some(Refusal::AtBind(b"57014")),
            }
        }));
        for (bytes, _) in &self.batches {
            model.feed(bytes.clone());
        }
        let mut messages = Vec::new();
        let mut rest = model.out.freeze();
        while !rest.is_empty() {
            let length = u32::from_be_bytes([rest[1], rest[2], rest[3], rest[4]]) as usize;
            let frame = rest.split_to(length + 1);
            messages.push((frame[0], frame.slice(5..)));
        }
        seen(&messages, Some(masker))
    }
}

/// Messages in words that can be compared: whole, but for the words of refusals and
/// the notices of holds. With a masker, values are masked first.
pub fn seen(messages: &[Message], mut masker: Option<&mut Masker>) -> Vec<String> {
    let mut mask = |value: &[u8]| {
        let mut findings = masking::Findings::new();
        let masked = masker
            .as_mut()
            .and_then(|m| m.mask_value(value, masking::Fill::Placeholder, &mut findings));
        String::from_utf8_lossy(masked.as_deref().unwrap_or(value)).into_owned()
    };
    let mut out = Vec::new();
    for (tag, body) in messages {
        let words = match backend::decode(*tag, body).expect("a message of the protocol") {
            BackendMessage::DataRow(values) => {
                let values: Vec<Option<String>> = values.iter().map(|v| v.map(&mut mask)).collect();
                format!("D {values:?}")
            }
            _ if *tag == b'N' && sqlstate(body) == "01000" => continue,
            _ if *tag == b'E' => match sqlstate(body).as_str() {
                ours @ ("42501" | "57014") => format!("E {ours}"),
                code => format!("E {code} {}", mask(field(body, b'M').as_bytes())),
            },
            _ => format!("{} {}", char::from(*tag), body.escape_ascii()),
        };
        out.push(words);
    }
    out
}
