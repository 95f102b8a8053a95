//! `onnxd simulate`: compares batching policies on virtual time.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Outcome, WRONG_SETTINGS};
use crate::simulate::curve::Curve;
use crate::simulate::suite::{self, Compared, Scale};
use crate::simulate::{plot, report};

pub(super) fn command() -> Command {
    let path = || value_parser!(PathBuf);
    Command::new("simulate")
        .about("Compare batching policies on virtual time")
        .arg(
            Arg::new("quick")
                .long("quick")
                .action(ArgAction::SetTrue)
                .help("Short traces: about a minute instead of ten"),
        )
        .arg(
            Arg::new("only")
                .long("only")
                .value_name("CURVE")
                .value_parser(Curve::NAMES)
                .help("One of the built-in cost curves instead of all"),
        )
        .arg(
            Arg::new("curve")
                .long("curve")
                .value_name("FILE")
                .value_parser(path())
                .conflicts_with("only")
                .help(
                    "A measured curve instead of all: TOML, points = [{ rows = 1, micros = 260 }]",
                ),
        )
        .arg(
            Arg::new("seed")
                .long("seed")
                .value_name("N")
                .default_value("1")
                .value_parser(value_parser!(u64))
                .help("Repeats a simulation exactly"),
        )
        .arg(
            Arg::new("requests")
                .long("requests")
                .value_name("N")
                .value_parser(value_parser!(u32).range(100..))
                .help("Requests in each situation, instead of as many as it needs"),
        )
        .arg(
            Arg::new("out")
                .long("out")
                .value_name("DIR")
                .value_parser(path())
                .help("Write table.md, results.json and plots there instead of printing the table"),
        )
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let curves = match curves(matches) {
        Ok(curves) => curves,
        Err(error) => return Outcome::new(WRONG_SETTINGS, error),
    };
    let scale = scale(matches);
    let compared = match compare(&curves, scale) {
        Ok(compared) => compared,
        Err(error) => return Outcome::new(1, error),
    };
    match matches.get_one::<PathBuf>("out") {
        None => Outcome::ok(report::markdown(&compared)),
        Some(folder) => match write(folder, &compared, scale.seed) {
            Ok(()) => {
                let summary = report::in_words(&compared);
                Outcome::ok(format!("written to {}\n{summary}", folder.display()))
            }
            Err(error) => Outcome::new(1, error),
        },
    }
}

fn curves(matches: &ArgMatches) -> Result<Vec<Curve>, String> {
    if let Some(path) = matches.get_one::<PathBuf>("curve") {
        let wrong = |error: String| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let name = path.file_stem().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        return Ok(vec![Curve::parse(&name, &text).map_err(|error| wrong(error.to_string()))?]);
    }
    let only = matches.get_one::<String>("only");
    let names = Curve::NAMES.into_iter().filter(|name| only.is_none_or(|only| only == name));
    Ok(names.filter_map(Curve::named).collect())
}

fn scale(matches: &ArgMatches) -> Scale {
    let seed = matches.get_one::<u64>("seed").copied().unwrap_or(1);
    match matches.get_one::<u32>("requests") {
        Some(requests) => Scale::exactly(usize::try_from(*requests).unwrap_or(usize::MAX), seed),
        None if matches.get_flag("quick") => Scale::quick(seed),
        None => Scale::full(seed),
    }
}

fn compare(curves: &[Curve], scale: Scale) -> Result<Vec<Compared>, String> {
    let scenarios = suite::scenarios(curves, scale);
    let bar = ProgressBar::new(u64::try_from(scenarios.len()).unwrap_or(u64::MAX));
    let style = "{elapsed} {wide_bar} {pos} of {len} {msg}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    let mut all = Vec::with_capacity(scenarios.len());
    for scenario in scenarios {
        bar.set_message(report::situation(&scenario));
        all.push(suite::compare(scenario).map_err(|error| error.to_string())?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(all)
}

fn write(folder: &Path, compared: &[Compared], seed: u64) -> Result<(), String> {
    let mut files = plot::all(compared).map_err(|error| error.to_string())?;
    files.push(("table.md".to_owned(), format!("{}\n", report::markdown(compared))));
    files.push(("results.json".to_owned(), format!("{:#}\n", report::to_json(compared, seed))));
    let wrong = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    std::fs::create_dir_all(folder).map_err(|error| wrong(folder, error))?;
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|error| wrong(&path, error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    fn run(arguments: &[&str]) -> super::Outcome {
        let line = ["simulate"].iter().chain(arguments);
        super::run(&super::command().try_get_matches_from(line).unwrap())
    }

    #[test]
    fn a_curve_of_ones_own_gives_a_table_figures_and_plots() {
        let folder = tempfile::tempdir().unwrap();
        let (file, out) = (folder.path().join("mine.toml"), folder.path().join("out"));
        let points = "[{ rows = 1, micros = 100 }, { rows = 8, micros = 200 }]";
        std::fs::write(&file, format!("points = {points}")).unwrap();
        let (file, out_text) = (file.to_str().unwrap(), out.to_str().unwrap());
        let line = ["--curve", file, "--requests", "100", "--seed", "3", "--out", out_text];
        let outcome = run(&line);
        assert_eq!(outcome.code, 0, "{}", outcome.text);
        assert!(outcome.text.contains("goodput of auto by best fixed"), "{}", outcome.text);
        let read = |name| std::fs::read_to_string(out.join(name)).unwrap();
        assert_eq!(read("table.md").matches("| mine").count(), 16);
        let results: serde_json::Value = serde_json::from_str(&read("results.json")).unwrap();
        assert_eq!(
            (&results["seed"], &results["situations"][0]["requests"]),
            (&3.into(), &100.into())
        );
        for name in ["goodput-mine.svg", "p99-mine.svg"] {
            assert!(read(name).contains("mine: "), "{name}");
        }
    }

    #[test]
    fn a_file_that_is_no_curve_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bad.toml");
        let outcome = run(&["--curve", file.to_str().unwrap()]);
        assert!(outcome.code == 2 && outcome.text.contains("bad.toml"), "{outcome:?}");
        std::fs::write(&file, "points = []").unwrap();
        let outcome = run(&["--curve", file.to_str().unwrap()]);
        assert!(outcome.code == 2 && outcome.text.contains("at least one point"), "{outcome:?}");
    }
}
