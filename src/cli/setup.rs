//! `onnxd setup`: gets the ONNX Runtime library.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command};

use super::{Outcome, WRONG_SETTINGS};
use crate::runtime::pins::Flavor;
use crate::runtime::setup::{SetupOptions, setup};

pub(super) fn command() -> Command {
    let path = || clap::value_parser!(PathBuf);
    Command::new("setup")
        .about("Fetch the tested ONNX Runtime library (with pip), or unpack a given wheel")
        .arg(
            Arg::new("flavor")
                .long("flavor")
                .value_name("NAME")
                .default_value("cpu")
                .value_parser(Flavor::NAMES.map(|(name, _)| name))
                .help("Build of ONNX Runtime; the GPU builds are for x86-64"),
        )
        .arg(
            Arg::new("version")
                .long("version")
                .value_name("X.Y.Z")
                .help("A tested version other than the default"),
        )
        .arg(
            Arg::new("dir")
                .long("dir")
                .value_name("FOLDER")
                .value_parser(path())
                .help("Where to put it; else a folder of the user that `serve` looks in"),
        )
        .arg(
            Arg::new("wheel")
                .long("wheel")
                .value_name("FILE")
                .value_parser(path())
                .help("Take this wheel instead of fetching one, for machines without a network"),
        )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let flavor = matches.get_one::<String>("flavor").map_or("cpu", String::as_str);
    let Some((_, flavor)) = Flavor::NAMES.into_iter().find(|(name, _)| *name == flavor) else {
        return Outcome::new(WRONG_SETTINGS, "no such flavor");
    };
    let options = SetupOptions {
        flavor,
        version: matches.get_one::<String>("version").cloned(),
        dir: matches.get_one::<PathBuf>("dir").cloned(),
        wheel: matches.get_one::<PathBuf>("wheel").cloned(),
    };
    match setup(&options) {
        Ok(report) if report.already_there => {
            Outcome::ok(format!("already there: {}", report.library.display()))
        }
        Ok(report) => Outcome::ok(format!("ready: {}", report.library.display())),
        Err(error) => Outcome::new(1, error.to_string()),
    }
}
