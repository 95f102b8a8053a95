//! `grpc-timeout` to a deadline, once, at arrival.
//!
//! Source: gRPC over HTTP/2, "Requests" (`Timeout`: at most 8 digits and a unit).

use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use crate::config::RequestLimits;
use crate::deadline::Deadline;
use crate::error::InvalidRequest;

/// The deadline of a call that arrived at `now`: what the header says, at most the configured
/// maximum; the configured default without a header.
///
/// # Errors
/// [`InvalidRequest`] (INVALID_ARGUMENT) for a header that is not a timeout.
pub fn from_metadata(
    now: Instant,
    metadata: &MetadataMap,
    limits: &RequestLimits,
) -> Result<Deadline, InvalidRequest> {
    Ok(of(now, header(metadata)?, limits))
}

/// The same for a header that was read already.
pub fn of(now: Instant, asked: Option<Duration>, limits: &RequestLimits) -> Deadline {
    Deadline::after(now, asked.unwrap_or(limits.default_timeout).min(limits.max_timeout))
}

/// The header.
pub const HEADER: &str = "grpc-timeout";

/// The header's value, if there is one.
///
/// # Errors
/// [`InvalidRequest`] for a header that is not a timeout.
pub fn header(metadata: &MetadataMap) -> Result<Option<Duration>, InvalidRequest> {
    let mut values = metadata.as_ref().get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(InvalidRequest::new(HEADER, "grpc-timeout is given twice"));
    }
    timeout(value).map(Some)
}

/// What the header's value says.
///
/// # Errors
/// [`InvalidRequest`] for a value that is not a timeout.
pub fn timeout(value: &HeaderValue) -> Result<Duration, InvalidRequest> {
    let wrong = |found: &str| {
        let found = crate::model::quoted(found);
        let message = format!(
            "grpc-timeout is {found:?}, expected 1 to 8 digits and one of the units H, M, S, m, u, n"
        );
        InvalidRequest::new(HEADER, message)
    };
    let text = value.to_str().map_err(|_| wrong("bytes that are not text"))?;
    parse(text).ok_or_else(|| wrong(text))
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_and_every_mistake() {
        assert_eq!(parse("1H"), Some(Duration::from_hours(1)));
        assert_eq!(parse("99999999H"), Some(Duration::from_hours(99_999_999)));
        assert_eq!(parse("0m"), Some(Duration::ZERO));
        assert_eq!(parse("7u"), Some(Duration::from_micros(7)));
        assert_eq!(parse("1n"), Some(Duration::from_nanos(1)));
        for wrong in ["", "1", "m", "10x", "123456789m", "-1m", "+1m", "1 m", " 1m", "1é"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn default_without_a_header_and_never_above_the_maximum() {
        let limits = crate::config::Config::resolve(|_| None).unwrap().requests;
        let now = Instant::now();
        let remaining = |text: Option<&str>| {
            let mut metadata = MetadataMap::new();
            if let Some(text) = text {
                metadata.insert("grpc-timeout", text.parse().unwrap());
            }
            from_metadata(now, &metadata, &limits).map(|deadline| deadline.remaining(now))
        };
        assert_eq!(remaining(None), Ok(limits.default_timeout));
        assert_eq!(remaining(Some("50m")), Ok(Duration::from_millis(50)));
        assert_eq!(remaining(Some("9999H")), Ok(limits.max_timeout));
        assert!(remaining(Some("soon")).unwrap_err().message.contains("\"soon\""));
    }

    #[test]
    fn a_doubled_header_is_refused() {
        let mut metadata = MetadataMap::new();
        metadata.append("grpc-timeout", "1S".parse().unwrap());
        metadata.append("grpc-timeout", "2S".parse().unwrap());
        assert!(header(&metadata).is_err());
    }
}
