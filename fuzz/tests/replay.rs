//! Every corpus and every past crash, without a fuzzer.

use std::path::Path;

#[test]
fn corpora_and_past_crashes_keep_every_invariant() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = 0;
    for (name, run) in portcullis_fuzz::TARGETS {
        for folder in ["corpus", "regressions"] {
            let Ok(entries) = std::fs::read_dir(root.join(folder).join(name)) else {
                assert_eq!(folder, "regressions", "no corpus for {name}");
                continue;
            };
            for entry in entries {
                let path = entry.expect("an entry").path();
                println!("{}", path.display());
                run(&std::fs::read(&path).expect("a readable file"));
                files += 1;
            }
        }
    }
    assert!(files >= portcullis_fuzz::TARGETS.len(), "{files} files");
}
