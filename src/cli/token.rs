//! `onnxd token`: a new secret, and what an access file says of it.

use clap::{Arg, ArgMatches, Command};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

use super::Outcome;
use crate::runtime::digest::hex;

/// Bytes of a secret: nobody guesses it, so a plain digest of it is safe to keep.
const SECRET_BYTES: usize = 32;

pub(super) fn command() -> Command {
    Command::new("token")
        .about("Make a bearer token, and the lines of an access file that let it in")
        .arg(Arg::new("name").value_name("NAME").required(true).help("Whose token it is"))
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let name = matches.get_one::<String>("name").cloned().unwrap_or_default();
    let mut secret = [0; SECRET_BYTES];
    if SystemRandom::new().fill(&mut secret).is_err() {
        return Outcome::new(1, "the system gives no random bytes");
    }
    Outcome::ok(lines(&name, &format!("onnxd_{}", hex(&secret))))
}

fn lines(name: &str, token: &str) -> String {
    let name = toml::Value::String(name.to_owned());
    let digest = hex(&Sha256::digest(token));
    format!(
        "# Shown once; the file keeps only its digest. Callers send: authorization: Bearer TOKEN\n\
         {token}\n\n[[token]]\nname = {name}\nsha256 = \"{digest}\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::table::parse;

    #[test]
    fn the_lines_are_those_of_an_access_file() {
        let shown = lines("ci \"1\"", "onnxd_00");
        let (head, file) = shown.split_once("\n\n").unwrap();
        assert!(head.ends_with("\nonnxd_00"));
        parse(file).unwrap().table(None).unwrap();
        assert!(!file.contains("onnxd_00") && file.contains(&hex(&Sha256::digest("onnxd_00"))));
    }
}
