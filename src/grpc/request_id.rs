//! The name that a caller gives its request, told back to it and written into the log.
//!
//! The protocol's `id` in the message, else the header `x-request-id`. Both are foreign text: what is
//! told back is cut, and what does not fit into a header is escaped.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header, both ways.
pub static HEADER: HeaderName = HeaderName::from_static(NAME);
/// Its name.
pub const NAME: &str = "x-request-id";

/// Longest part that is told back, in bytes.
const MOST_BYTES: usize = 128;

/// What the header says, if it is there and says something.
pub fn of(headers: &HeaderMap) -> Option<String> {
    text(headers.get(&HEADER)?)
}

/// The same of the header's value.
pub fn text(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?;
    (!text.is_empty()).then(|| text.chars().take(MOST_BYTES).collect())
}

/// An id as a header tells it; `None` for none.
pub fn told(id: &str) -> Option<HeaderValue> {
    if id.is_empty() {
        return None;
    }
    let is_plain = id.len() <= MOST_BYTES && id.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let value = if is_plain {
        HeaderValue::from_str(id)
    } else {
        HeaderValue::from_str(&id.escape_default().take(MOST_BYTES).collect::<String>())
    };
    // Never the same twice: no place in the peer's table of known headers for it.
    let mut value = value.ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_fits_into_a_header() {
        let told = |id: &str| told(id).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(told(""), None);
        assert_eq!(told("order 7/\"a\"").unwrap(), "order 7/\"a\"");
        assert_eq!(told("a\nb\u{1b}é").unwrap(), "a\\nb\\u{1b}\\u{e9}");
        assert_eq!(told(&"x".repeat(1 << 20)).unwrap(), "x".repeat(128));
    }

    #[test]
    fn what_is_no_text_is_no_id() {
        let mut headers = HeaderMap::new();
        assert_eq!(of(&headers), None);
        headers.insert(&HEADER, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(of(&headers), None);
        headers.insert(&HEADER, "r-1".parse().unwrap());
        assert_eq!(of(&headers).as_deref(), Some("r-1"));
    }
}
