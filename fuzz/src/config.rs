//! The configuration file's structure: any text gives a document or complaints that can
//! be printed, each within the text. What is checked across keys needs the whole gateway
//! and is left to its own tests.

#[allow(dead_code, missing_docs)]
#[path = "../../core/gateway/src/config/document.rs"]
mod document;
#[allow(dead_code, missing_docs)]
#[path = "../../core/gateway/src/config/keys.rs"]
mod keys;
#[allow(dead_code, missing_docs)]
#[path = "../../core/gateway/src/config/raw.rs"]
mod raw;

/// Input: the file.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (document, complaints) = document::Document::parse(text);
    let whole = 0..=text.len();
    for complaint in &complaints {
        assert!(whole.contains(&complaint.span.start) && whole.contains(&complaint.span.end));
        assert!(!complaint.message.is_empty());
    }
    let clean = complaints.is_empty();
    let printed = document::ConfigErrors {
        file: "fuzz.toml".into(),
        text: text.into(),
        complaints,
    }
    .to_string();
    assert!(printed.contains("fuzz.toml"));
    // What the key table lets through the types must take too, or say where not.
    if let (true, Err(error)) = (clean, toml::from_str::<raw::RawConfig>(text)) {
        let span = error.span().unwrap_or(0..0);
        assert!(whole.contains(&span.end), "{error}");
    }
    for path in [
        "",
        "gateway.shards",
        "roles[0].rules[1].when",
        "targets[9].name",
    ] {
        assert!(whole.contains(&document.span(path).end));
    }
}
