//! Detectors that come with the program.

use crate::Detector;

/// The detectors of a named pack: `default`. `None` for an unknown name.
pub fn builtin_pack(name: &str) -> Option<Vec<Detector>> {
    (name == "default").then(Vec::new)
}
