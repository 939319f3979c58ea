//! Names with `*`: exact text, or a star for any run of characters.

/// A compiled pattern. Case matters, as it does for quoted identifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob {
    text: String,
    star: bool,
}

impl Glob {
    pub(crate) fn new(text: &str) -> Glob {
        Glob {
            text: text.to_owned(),
            star: text.contains('*'),
        }
    }

    /// Whether it matches everything.
    pub(crate) fn is_all(&self) -> bool {
        self.star && self.text.bytes().all(|b| b == b'*')
    }

    /// Whether it has no star.
    pub(crate) fn is_exact(&self) -> bool {
        !self.star
    }

    /// Whether `name` fits. Linear in both but for stars, which go back at
    /// most once per byte.
    pub(crate) fn matches(&self, name: &str) -> bool {
        if !self.star {
            return self.text == name;
        }
        let (pattern, name) = (self.text.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        let mut back: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    back = Some((p, n));
                    p += 1;
                }
                Some(b) if Some(b) == name.get(n) => {
                    p += 1;
                    n += 1;
                }
                _ => match back {
                    Some((star, from)) => {
                        back = Some((star, from + 1));
                        p = star + 1;
                        n = from + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern
            .get(p..)
            .unwrap_or_default()
            .iter()
            .all(|b| *b == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::Glob;

    #[test]
    fn stars_match_any_run_and_the_rest_matches_itself() {
        for (pattern, name, fits) in [
            ("users", "users", true),
            ("users", "Users", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a*", "a", true),
            ("a*c", "abbc", true),
            ("a*c", "abcb", false),
            ("*b*b*", "abcb", true),
            ("*b*b*", "abc", false),
            ("a**c", "ac", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(name), fits, "{pattern} {name}");
        }
    }
}
