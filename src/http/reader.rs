//! Reads JSON piece by piece: no tree is made of it.
//!
//! A request can hold millions of numbers, and a tree of values would take tens of bytes for each.
//! So every value goes straight to where it belongs.
//!
//! JSON has no word for numbers that are none. Python's `json`, which most clients are, and
//! Triton's parser write and read the bare words `NaN`, `Infinity` and `-Infinity`; so they are
//! read here, which is why the parser is not `serde_json`, and written by [`super::answer`].

use jiter::{Jiter, JiterError, Peek};

use super::Failure;

/// A position in a text.
#[derive(Debug)]
pub(super) struct Reader<'j> {
    json: Jiter<'j>,
    length: usize,
}

/// Why a text is not what it should be, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) String);

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::invalid(format!("malformed request: {}", malformed.0))
    }
}

type Read<T> = Result<T, Malformed>;

impl<'j> Reader<'j> {
    pub(super) fn new(text: &'j [u8]) -> Self {
        Self { json: Jiter::new(text).with_allow_inf_nan(), length: text.len() }
    }

    /// Bytes that were not read yet.
    pub(super) fn left(&self) -> usize {
        self.length.saturating_sub(self.json.current_index())
    }

    fn malformed(&self, error: &JiterError) -> Malformed {
        Malformed(error.description(&self.json))
    }

    /// What kind of value comes next.
    pub(super) fn peek(&mut self) -> Read<Peek> {
        self.json.peek().map_err(|error| self.malformed(&error))
    }

    /// Reads an object. `each` gets every key, as `key` understood it, and reads its value.
    pub(super) fn object<K, E: From<Malformed>>(
        &mut self,
        key: impl Fn(&str) -> K,
        mut each: impl FnMut(&mut Self, K) -> Result<(), E>,
    ) -> Result<(), E> {
        let first = self.json.next_object().map(|found| found.map(&key));
        let mut found = first.map_err(|error| self.malformed(&error))?;
        while let Some(field) = found {
            each(self, field)?;
            let next = self.json.next_key().map(|found| found.map(&key));
            found = next.map_err(|error| self.malformed(&error))?;
        }
        Ok(())
    }

    /// Enters an array; the kind of its first entry, if it has one.
    pub(super) fn enter(&mut self) -> Read<Option<Peek>> {
        self.json.next_array().map_err(|error| self.malformed(&error))
    }

    /// Goes on in an array; the kind of the next entry, if there is one.
    pub(super) fn step(&mut self) -> Read<Option<Peek>> {
        self.json.array_step().map_err(|error| self.malformed(&error))
    }

    /// Reads an array. `each` reads one entry.
    pub(super) fn array<E: From<Malformed>>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut entry = self.enter()?;
        while entry.is_some() {
            each(self)?;
            entry = self.step()?;
        }
        Ok(())
    }

    /// A string.
    pub(super) fn string<T>(&mut self, make: impl FnOnce(&str) -> T) -> Read<T> {
        let text = self.json.next_str().map(make);
        text.map_err(|error| self.malformed(&error))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self) -> Read<bool> {
        self.json.next_bool().map_err(|error| self.malformed(&error))
    }

    /// A number, as it is written.
    pub(super) fn number<T>(&mut self, make: impl FnOnce(&str) -> T) -> Read<T> {
        // Digits and letters only: the parser has looked.
        let text = self.json.next_number_bytes();
        let made = text.map(|text| make(std::str::from_utf8(text).unwrap_or_default()));
        made.map_err(|error| self.malformed(&error))
    }

    /// Passes over a value.
    pub(super) fn skip(&mut self) -> Read<&'j [u8]> {
        let start = self.json.current_index();
        self.json.next_skip().map_err(|error| self.malformed(&error))?;
        Ok(self.json.slice_to_current(start))
    }

    /// Nothing may follow.
    pub(super) fn finish(mut self) -> Read<()> {
        let end = self.json.finish();
        end.map_err(|error| self.malformed(&error))
    }
}

/// What a kind of value is called.
pub(super) fn kind(peek: Peek) -> &'static str {
    match peek {
        Peek::Null => "null",
        Peek::True | Peek::False => "a bool",
        Peek::String => "a string",
        Peek::Array => "a list",
        Peek::Object => "an object",
        _ if peek.is_num() => "a number",
        _ => "no value",
    }
}
