//! Reads setting values from text. Every refusal says what would have been right.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use super::CrossOrigin;

/// A whole number of at least `least`.
pub(super) fn number<T>(text: &str, least: T) -> Result<T, String>
where
    T: FromStr + PartialOrd + std::fmt::Display + Copy,
{
    match text.trim().parse::<T>() {
        Ok(value) if value >= least => Ok(value),
        _ => Err(format!("expected a whole number of at least {least}, got {text:?}")),
    }
}

/// Milliseconds.
pub(super) fn millis(text: &str) -> Result<Duration, String> {
    number(text, 0).map(Duration::from_millis)
}

/// Milliseconds, at least one.
pub(super) fn some_millis(text: &str) -> Result<Duration, String> {
    number(text, 1).map(Duration::from_millis)
}

/// Microseconds.
pub(super) fn micros(text: &str) -> Result<Duration, String> {
    number(text, 0).map(Duration::from_micros)
}

/// `true` or `false`.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.trim() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("expected true or false, got {text:?}")),
    }
}

/// An address to listen on: `HOST:PORT`, or `:PORT` for all interfaces.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    full.to_socket_addrs()
        .ok()
        .and_then(|mut all| all.next())
        .ok_or_else(|| format!("expected HOST:PORT, got {text:?}"))
}

/// Sites whose pages may call: none, `*`, or `scheme://host[:port]` separated by commas.
pub(super) fn pages(text: &str) -> Result<Option<CrossOrigin>, String> {
    match text.trim() {
        "" => Ok(None),
        "*" => Ok(Some(CrossOrigin::Any)),
        sites => list(sites, site).map(|sites| Some(CrossOrigin::These(sites))),
    }
}

fn site(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let is_plain = |character: char| {
        character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | ':' | '[' | ']')
    };
    match host {
        Some(host) if !host.is_empty() && host.chars().all(is_plain) => Ok(text.to_owned()),
        _ => Err(format!("expected * or scheme://host[:port] without a path, got {text:?}")),
    }
}

/// One of the named values.
pub(super) fn choice<T: Clone>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(name, _)| *name == text.trim());
    found.map(|(_, value)| value.clone()).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        format!("expected one of {}, got {text:?}", names.join(", "))
    })
}

/// A list separated by commas, without duplicates, not empty.
pub(super) fn list<T: PartialEq>(
    text: &str,
    each: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let mut values = Vec::new();
    for part in text.split(',') {
        let value = each(part.trim())?;
        if values.contains(&value) {
            return Err(format!("{part:?} is listed twice"));
        }
        values.push(value);
    }
    Ok(values)
}
