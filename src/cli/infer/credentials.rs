//! How a client shows who it is, and how it knows the server.
//!
//! Everything is read from files, so that no token stands in a list of processes. Authorities are
//! always given: those of the system are not looked at.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::wrong;
use crate::cli::Outcome;

/// TLS and a token, each where it was asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Credentials {
    /// `None` for clear text.
    pub(super) tls: Option<ClientTlsConfig>,
    /// Value of the header `authorization`.
    pub(super) token: Option<MetadataValue<Ascii>>,
}

/// Adds the flags.
pub(super) fn flags(command: Command) -> Command {
    let file = |name: &'static str, help: &'static str| {
        let parser = clap::value_parser!(PathBuf);
        Arg::new(name).long(name).value_name("FILE").value_parser(parser).help(help)
    };
    command
        .arg(file(
            "tls-ca",
            "Speak TLS to a server whose certificate these authorities (PEM) signed",
        ))
        .arg(
            Arg::new("tls-name")
                .long("tls-name")
                .value_name("NAME")
                .requires("tls-ca")
                .help("Name in the server's certificate [default: the host of --addr]"),
        )
        .arg(
            file("tls-cert", "Certificate (PEM) to show to the server")
                .requires("tls-ca")
                .requires("tls-key"),
        )
        .arg(file("tls-key", "Private key (PEM) to it").requires("tls-cert"))
        .arg(file("token-file", "Bearer token to send"))
}

impl Credentials {
    /// What the flags of [`flags`] name.
    pub(super) fn read(matches: &ArgMatches) -> Result<Self, Outcome> {
        let token = read(matches, "token-file")?.map(|token| {
            let value = format!("Bearer {}", String::from_utf8_lossy(&token).trim());
            let value = value.parse().map_err(|_| wrong("--token-file holds no token"));
            value.map(|mut value: MetadataValue<Ascii>| {
                value.set_sensitive(true);
                value
            })
        });
        let token = token.transpose()?;
        let Some(authorities) = read(matches, "tls-ca")? else {
            return Ok(Self { tls: None, token });
        };
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authorities));
        if let Some(name) = matches.get_one::<String>("tls-name") {
            tls = tls.domain_name(name);
        }
        if let (Some(cert), Some(key)) = (read(matches, "tls-cert")?, read(matches, "tls-key")?) {
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        Ok(Self { tls: Some(tls), token })
    }
}

fn read(matches: &ArgMatches, flag: &str) -> Result<Option<Vec<u8>>, Outcome> {
    let Some(path) = matches.get_one::<PathBuf>(flag) else { return Ok(None) };
    let read = std::fs::read(path);
    read.map(Some).map_err(|error| wrong(format!("--{flag} {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn credentials(flags: &[&str]) -> Result<Credentials, Outcome> {
        let line = ["infer", "m"].iter().chain(flags);
        Credentials::read(&super::super::command().try_get_matches_from(line).unwrap())
    }

    #[test]
    fn a_token_comes_from_its_file_and_is_not_shown() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"sesame\n").unwrap();
        let found = credentials(&["--token-file", file.path().to_str().unwrap()]).unwrap();
        let token = found.token.unwrap();
        assert_eq!(token.to_str().unwrap(), "Bearer sesame");
        assert!(found.tls.is_none() && !format!("{token:?}").contains("sesame"));
    }

    #[test]
    fn a_file_that_is_missing_or_no_token_is_told() {
        let gone = credentials(&["--tls-ca", "gone.pem"]).unwrap_err();
        assert!(gone.code == 2 && gone.text.starts_with("--tls-ca gone.pem: "), "{gone:?}");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"two\nlines").unwrap();
        let wrong = credentials(&["--token-file", file.path().to_str().unwrap()]).unwrap_err();
        assert_eq!((wrong.code, wrong.text.as_str()), (2, "--token-file holds no token"));
    }
}
