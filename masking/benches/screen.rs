//! Speed of the screen, of masking and of streams, with the default pack and
//! twenty known secrets. Plain timing, about two seconds in all:
//! `cargo bench -p portcullis-masking`. Prints the best of several rounds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use portcullis_masking::{
    Config, Engine, Fill, Findings, KnownSecret, Masker, RuleSet, builtin_pack,
};

fn best(bytes: usize, name: &str, mut run: impl FnMut()) {
    let mut least = Duration::MAX;
    let begun = Instant::now();
    let mut rounds = 0u32;
    while rounds < 5 || (begun.elapsed() < Duration::from_millis(80) && rounds < 100_000) {
        let start = Instant::now();
        run();
        least = least.min(start.elapsed());
        rounds += 1;
    }
    let nanos = least.as_nanos() as f64;
    println!(
        "{name:<44} {:>9.0} ns {:>8.3} ns/byte {:>7.2} GB/s",
        nanos,
        nanos / bytes as f64,
        bytes as f64 / nanos
    );
}

fn repeat(text: &str, len: usize) -> Vec<u8> {
    text.bytes().cycle().take(len).collect()
}

fn json_rows(len: usize) -> Vec<u8> {
    let mut rows = Vec::new();
    for id in 0u64.. {
        if rows.len() >= len {
            break;
        }
        let hash = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        rows.extend_from_slice(
            format!(
                "{{\"id\":{id},\"name\":\"user {}\",\"email\":\"u{}@example.org\",\"etag\":\"{hash:016x}{:016x}\",\"url\":\"https://example.org/a/{id}?x=1\",\"total\":{}.50}}\n",
                hash % 977,
                hash % 9973,
                !hash,
                hash % 1000
            )
            .as_bytes(),
        );
    }
    rows.truncate(len);
    rows
}

fn main() {
    let known = (0..20u64)
        .map(|n| {
            KnownSecret::new(
                format!("password:{n}"),
                format!(
                    "{:x}Tq7vXz2{:x}",
                    n.wrapping_mul(0x9E37_79B9_7F4A_7C15),
                    n + 77
                ),
            )
        })
        .collect::<Vec<_>>();
    for engine in [Engine::Auto, Engine::Portable] {
        let start = Instant::now();
        let rules = RuleSet::compile(Config {
            detectors: builtin_pack("default").unwrap_or_default(),
            known: known.clone(),
            tag_key: [1; 32],
            engine,
        })
        .expect("the default pack compiles");
        println!(
            "{:?}: compiled in {:?}, hold-back at most {} bytes",
            rules.engine(),
            start.elapsed(),
            rules.hold_back_max()
        );
        let mut masker = Masker::new(rules).expect("memory");
        let rows = json_rows(128 << 10);
        assert!(masker.is_clean(&rows));
        best(rows.len(), "is_clean, 128 KiB of JSON rows", || {
            black_box(masker.is_clean(black_box(&rows)));
        });
        let base64 = repeat(
            "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJg",
            128 << 10,
        );
        best(base64.len(), "is_clean, 128 KiB of base64", || {
            black_box(masker.is_clean(black_box(&base64)));
        });
        let aws = repeat(
            "https://s3.eu-west-1.amazonaws.com/bucket/path/to/object-0123456789 aws ",
            128 << 10,
        );
        best(aws.len(), "is_clean, 128 KiB with context words", || {
            black_box(masker.is_clean(black_box(&aws)));
        });
        best(200, "is_clean, 200 bytes", || {
            black_box(masker.is_clean(black_box(&rows[..200])));
        });
        let mut findings = Findings::new();
        best(200, "mask_value, 200 bytes, nothing there", || {
            black_box(masker.mask_value(black_box(&rows[..200]), Fill::Placeholder, &mut findings));
        });
        let mut value = rows[..160].to_vec();
        value.extend_from_slice(
            ["ghp_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq17"]
                .concat()
                .as_bytes(),
        );
        best(value.len(), "mask_value, 200 bytes, one token", || {
            black_box(masker.mask_value(black_box(&value), Fill::Placeholder, &mut findings));
        });
        for (name, text) in [
            ("mask_value, 64 KiB of sk-ant-sk-ant-", "sk-ant-"),
            ("mask_value, 64 KiB of -eyJ-eyJ", "-eyJ"),
            (
                "mask_value, 64 KiB of eyJ heads",
                "-eyJabcdefgh.eyJabcdefghi",
            ),
            ("mask_value, 64 KiB of ://a:bcd@", "://a:bcd@"),
            ("mask_value, 64 KiB of ://::::", "://::::::"),
            (
                "mask_value, 64 KiB of aws secrets",
                "aws wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY ",
            ),
            (
                "mask_value, 64 KiB of BEGIN PRIVATE KEY",
                "-----BEGIN PRIVATE KEY-----",
            ),
        ] {
            let value = repeat(text, 64 << 10);
            best(value.len(), name, || {
                black_box(masker.mask_value(black_box(&value), Fill::Placeholder, &mut findings));
            });
        }
        let mut out = Vec::new();
        for size in [16 << 10, 256, 1] {
            let part = &rows[..if size == 1 { 8 << 10 } else { rows.len() }];
            best(
                part.len(),
                &format!("stream, JSON rows, {size} bytes a push"),
                || {
                    out.clear();
                    let mut stream = masker.stream(Fill::Placeholder);
                    for piece in part.chunks(size) {
                        stream.push(&mut masker, piece, &mut out, &mut findings);
                    }
                    stream.finish(&mut masker, &mut out, &mut findings);
                },
            );
        }
        let jwt = repeat("-eyJabcdefghijklmn", 8 << 10);
        best(jwt.len(), "stream, 1 byte a push, always held", || {
            out.clear();
            let mut stream = masker.stream(Fill::Placeholder);
            for piece in jwt.chunks(1) {
                stream.push(&mut masker, piece, &mut out, &mut findings);
            }
            stream.finish(&mut masker, &mut out, &mut findings);
        });
    }
}
