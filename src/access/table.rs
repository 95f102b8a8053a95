//! The table of tokens and grants, and the file that it is read from.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use super::Proof;
use super::jwt::{JwtRules, Signed};
use crate::error::{Denial, Right};

/// SHA-256 of a secret.
pub(super) type Digest = [u8; 32];

/// The file as it is written. Keys that are not known are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    #[serde(default)]
    token: Vec<WrittenToken>,
    jwt: Option<JwtRules>,
    #[serde(default)]
    grant: Vec<WrittenGrant>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenToken {
    name: String,
    sha256: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenGrant {
    to: Vec<String>,
    models: Vec<String>,
    rights: Vec<String>,
}

/// Reads the text of an access file.
///
/// # Errors
/// A sentence with what is wrong.
pub fn parse(text: &str) -> Result<Written, String> {
    // The message alone: the whole would show the line, and in it a digest.
    toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
}

impl Written {
    /// Where the keys of signed tokens are, beside the file.
    pub fn keys(&self) -> Option<&str> {
        self.jwt.as_ref().map(|rules| rules.keys.as_str())
    }

    /// The table, with the text of the keys if there are some.
    ///
    /// # Errors
    /// A sentence with what is wrong.
    pub fn table(self, keys: Option<&str>) -> Result<Table, String> {
        let tokens: Result<Vec<_>, _> = self.token.into_iter().map(WrittenToken::read).collect();
        let tokens = tokens?;
        for (index, token) in tokens.iter().enumerate() {
            if tokens[..index].iter().any(|other| other.digest == token.digest) {
                return Err(format!("token {:?}: another token has the same sha256", token.name));
            }
        }
        let grants: Result<Vec<_>, _> = self.grant.into_iter().map(WrittenGrant::read).collect();
        let signed = match (self.jwt, keys) {
            (Some(rules), Some(keys)) => Some(Signed::new(rules, keys)?),
            _ => None,
        };
        Ok(Table { tokens, signed, grants: grants? })
    }
}

impl WrittenToken {
    fn read(self) -> Result<Token, String> {
        let Self { name, sha256 } = self;
        if name.is_empty() || name.contains('*') {
            return Err(format!("token {name:?}: expected a name without `*`"));
        }
        let digest = digest(&sha256)
            .ok_or_else(|| format!("token {name:?}: sha256 has 64 hexadecimal digits"))?;
        Ok(Token { name: format!("token:{name}"), digest })
    }
}

fn digest(text: &str) -> Option<Digest> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut digest = Digest::default();
    for (byte, pair) in digest.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

impl WrittenGrant {
    fn read(self) -> Result<Grant, String> {
        for name in &self.to {
            let proofs = ["token:", "jwt:", "cert:"];
            if name != "*" && !proofs.iter().any(|proof| name.starts_with(proof)) {
                let problem = "expected token:NAME, jwt:SUBJECT, cert:NAME or * for everybody";
                return Err(format!("grant to {name:?}: {problem}"));
            }
        }
        let right = |name: &String| {
            Right::ALL.into_iter().find(|right| right.name() == name).ok_or_else(|| {
                format!(
                    "right {name:?}: expected one of {}",
                    Right::ALL.map(Right::name).join(", ")
                )
            })
        };
        let rights: Result<Vec<_>, _> = self.rights.iter().map(right).collect();
        let (to, models) = (self.to, self.models);
        for (what, list) in [("to", &to), ("models", &models), ("rights", &self.rights)] {
            if list.is_empty() {
                return Err(format!("a grant has an empty list `{what}`"));
            }
        }
        Ok(Grant { to, models, rights: rights? })
    }
}

/// Who is known by what, and who may do what.
#[derive(Debug)]
pub struct Table {
    tokens: Vec<Token>,
    signed: Option<Signed>,
    grants: Vec<Grant>,
}

#[derive(Debug)]
struct Token {
    name: String,
    digest: Digest,
}

#[derive(Debug)]
struct Grant {
    to: Vec<String>,
    models: Vec<String>,
    rights: Vec<Right>,
}

impl Table {
    /// The name of whoever sends these credentials, if they are right.
    pub fn name(&self, credentials: &[u8], now: SystemTime) -> Option<String> {
        self.bearer(credentials, now).ok().map(|(name, _)| name)
    }

    /// Who sends these credentials, the value of an `authorization` header.
    ///
    /// # Errors
    /// [`Denial::BadCredentials`].
    pub(super) fn bearer(
        &self,
        credentials: &[u8],
        now: SystemTime,
    ) -> Result<(String, Proof), Denial> {
        let (scheme, secret) = credentials.split_at_checked(7).ok_or(Denial::BadCredentials)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return Err(Denial::BadCredentials);
        }
        let secret = secret.trim_ascii();
        let digest: Digest = Sha256::digest(secret).into();
        if let Some(name) = self.name_of(&digest) {
            return Ok((name.to_owned(), Proof::Token(digest)));
        }
        let signed = self.signed.as_ref().ok_or(Denial::BadCredentials)?;
        let (subject, ends_at) = signed.verify(secret, unix(now)).ok_or(Denial::BadCredentials)?;
        Ok((format!("jwt:{subject}"), Proof::Signed(ends_at)))
    }

    /// The token with that digest. Every entry is looked at, and each in constant time.
    fn name_of(&self, digest: &Digest) -> Option<&str> {
        let mut found = None;
        for token in &self.tokens {
            if bool::from(token.digest.ct_eq(digest)) {
                found = Some(token.name.as_str());
            }
        }
        found
    }

    /// Whether what proved a name proves it still.
    pub(super) fn still_holds(&self, name: &str, proof: &Proof, now: SystemTime) -> bool {
        match proof {
            Proof::Token(digest) => self.name_of(digest) == Some(name),
            Proof::Signed(ends_at) => self.signed.is_some() && unix(now) < *ends_at,
            Proof::Certificate => true,
        }
    }

    /// Whether `caller` has a right to `model`.
    pub(super) fn grants(&self, caller: &str, right: Right, model: &str) -> bool {
        self.grants.iter().any(|grant| {
            grant.rights.iter().any(|granted| granted.includes(right))
                && grant.to.iter().any(|pattern| fits(pattern, caller))
                && grant.models.iter().any(|pattern| fits(pattern, model))
        })
    }
}

fn unix(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether a text fits a pattern, in which `*` stands for any letters, also none. Takes the product
/// of their lengths at most.
fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut seen) = (0, 0);
    // The last `*` and how far the text had come then: it may stand for one letter more.
    let mut star = None;
    while seen < text.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, seen));
            at += 1;
        } else if pattern.get(at) == Some(&text[seen]) {
            (at, seen) = (at + 1, seen + 1);
        } else if let Some((back, from)) = star {
            star = Some((back, from + 1));
            (at, seen) = (back + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|letter| *letter == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_shells_have_them() {
        for (pattern, text, wanted) in [
            ("*", "", true),
            ("*", "a", true),
            ("", "a", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "a", true),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("a*a", "a", false),
            ("**", "a", true),
            ("*ab*ab", "abab", true),
            ("resnet*", "resnet-50", true),
            ("resnet*", "Resnet", false),
        ] {
            assert_eq!(fits(pattern, text), wanted, "{pattern:?} {text:?}");
        }
        assert!(!fits(&"*a".repeat(50), &"a".repeat(49)));
        assert!(!fits(&format!("{}b", "*a".repeat(200)), &"a".repeat(4000)));
    }

    #[test]
    fn mistakes_are_told() {
        let digest = "0".repeat(64);
        let token = |name: &str| format!("[[token]]\nname = {name:?}\nsha256 = {digest:?}\n");
        let grant = |to: &str, right: &str| {
            format!("[[grant]]\nto = [{to:?}]\nmodels = [\"*\"]\nrights = [{right:?}]\n")
        };
        for (text, wanted) in [
            ("tokens = 1".to_owned(), "unknown field `tokens`"),
            ("[[token]]\nname = \"a\"\nsha256 = \"00\"".to_owned(), "64 hexadecimal digits"),
            (token("*"), "without `*`"),
            (token("a") + &token("b"), "the same sha256"),
            (grant("ci", "infer"), "expected token:NAME"),
            (grant("token:ci", "read"), "expected one of describe, infer, control"),
            ("[[grant]]\nto = []\nmodels = [\"*\"]\nrights = [\"infer\"]".to_owned(), "empty list"),
        ] {
            let read = parse(&text).and_then(|written| written.table(None));
            let problem = read.unwrap_err();
            assert!(problem.contains(wanted), "{problem}");
            assert!(!problem.contains(&digest), "{problem}");
        }
    }
}
