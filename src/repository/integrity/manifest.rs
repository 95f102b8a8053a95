//! A list of sums, as `sha256sum` writes it: 64 digits, two characters between, a relative path.

use std::collections::BTreeMap;
use std::path::{Component, Path};

/// Largest list, in lines.
const MAX_LINES: usize = 10_000;

/// Sums by path, relative to the list.
#[derive(Debug, PartialEq, Eq)]
pub struct Manifest(BTreeMap<String, String>);

impl Manifest {
    /// Reads a list.
    ///
    /// # Errors
    /// The line that is not as it must be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut sums = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            if number > MAX_LINES {
                return Err(format!("has more than {MAX_LINES} lines"));
            }
            if line.trim().is_empty() {
                continue;
            }
            let wrong = |problem: &str| Err(format!("line {number}: {problem}"));
            let Some((sum, rest)) = line.split_at_checked(64) else {
                return wrong("expected 64 digits, two characters and a path");
            };
            if !sum.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return wrong("expected 64 hexadecimal digits first");
            }
            // The second is a blank for text and a star for bytes, which are the same here.
            let Some(path) = rest.strip_prefix("  ").or_else(|| rest.strip_prefix(" *")) else {
                return wrong("expected two blanks, or a blank and a star, before the path");
            };
            let path = path.strip_prefix("./").unwrap_or(path);
            let mut parts = Path::new(path).components();
            if path.is_empty() || !parts.all(|part| matches!(part, Component::Normal(_))) {
                return wrong("expected a path inside the folder of the list");
            }
            if sums.insert(path.to_owned(), sum.to_ascii_lowercase()).is_some() {
                return wrong("names a file for the second time");
            }
        }
        Ok(Self(sums))
    }

    /// The sum of a file.
    ///
    /// # Errors
    /// A sentence with the file that is not listed.
    pub(super) fn sum_of(&self, path: &str) -> Result<&str, String> {
        let sum = self.0.get(path).map(String::as_str);
        sum.ok_or_else(|| format!("{path} is not listed in {}", super::SHA256SUMS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_sha256sum() {
        let sum = "a".repeat(64);
        let text = format!("{sum}  1/model.onnx\n\n{} *./model.toml\n", sum.to_uppercase());
        let list = Manifest::parse(&text).unwrap();
        assert_eq!(list.sum_of("1/model.onnx").unwrap(), sum);
        assert_eq!(list.sum_of("model.toml").unwrap(), sum);
        assert_eq!(list.sum_of("x").unwrap_err(), "x is not listed in SHA256SUMS");
        for wrong in [
            "abc  x".to_owned(),
            format!("{sum} x"),
            format!("{sum}  "),
            format!("{sum}  /etc/passwd"),
            format!("{sum}  ../x"),
            format!("{sum}  a/../../x"),
            format!("{}  x", "g".repeat(64)),
            format!("{sum}  x\n{sum}  ./x"),
            format!("\\{sum}  x"),
            "é".repeat(70),
        ] {
            Manifest::parse(&wrong).unwrap_err();
        }
    }
}
