//! `onnxd bench`: puts load on a server and prints what came back.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use indicatif::{ProgressBar, ProgressStyle};

use super::Outcome;
use crate::bench::input::{self, Given};
use crate::bench::load::{self, Load, Pace};
use crate::bench::{Measured, plot};

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn number(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    option(name, "N", help).default_value(default).value_parser(value_parser!(usize))
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

pub(super) fn command() -> Command {
    Command::new("bench")
        .about("Put load on a server: closed loop, open loop or streams")
        .arg(Arg::new("model").required(true).value_name("MODEL").help("Model to ask"))
        .arg(option("addr", "HOST:PORT", "Server's data port").default_value("127.0.0.1:8001"))
        .arg(number(
            "concurrency",
            "16",
            "Closed loop: callers; with --stream, messages in flight in each",
        ))
        .arg(
            option("rate", "R", "Open loop: so many requests a second, at random intervals")
                .value_parser(value_parser!(f64)),
        )
        .arg(
            option("duration", "SECONDS", "For how long")
                .default_value("5")
                .value_parser(value_parser!(f64)),
        )
        .arg(number("connections", "1", "Connections that callers share"))
        .arg(
            option("rows", "N", "Rows in a request")
                .default_value("1")
                .value_parser(value_parser!(i64).range(1..)),
        )
        .arg(
            option("shape", "INPUT=N,N", "Shape of an input whose dimensions are open")
                .action(ArgAction::Append),
        )
        .arg(
            option("value", "INPUT=V", "Value of all elements of an input, such as 1 for a mask")
                .action(ArgAction::Append),
        )
        .arg(
            option("lengths", "N..M", "Open inner dimensions: every length of this range, mixed")
                .default_value("1..1"),
        )
        .arg(
            option("timeout-ms", "MS", "Deadline of each request").value_parser(value_parser!(u64)),
        )
        .arg(
            switch("no-cancel", "Wait for late answers instead of giving up at the deadline")
                .requires("timeout-ms"),
        )
        .arg(
            switch("stream", "ModelStreamInfer calls instead of unary ones").conflicts_with("rate"),
        )
        .arg(number("streams", "1", "With --stream, so many of these calls"))
        .arg(option(
            "describe",
            "HOST:PORT",
            "Ask this server for the model's metadata, if the one under load has none",
        ))
        .arg(
            option("out", "FOLDER", "Write bench.json and a plot of the latencies, latency.svg")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(switch("json", "Print figures for programs"))
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let measured = match runtime {
        Ok(runtime) => runtime.block_on(measure(matches)),
        Err(error) => Err(error.to_string()),
    };
    let measured = match measured {
        Ok(measured) => measured,
        Err(error) => return Outcome::new(1, error),
    };
    if let Some(folder) = matches.get_one::<PathBuf>("out")
        && let Err(error) = write(folder, &measured)
    {
        return Outcome::new(1, format!("{}: {error}", folder.display()));
    }
    let json = matches.get_flag("json");
    Outcome::ok(if json { measured.to_json().to_string() } else { measured.to_text() })
}

fn write(folder: &Path, measured: &Measured) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("bench.json"), format!("{:#}\n", measured.to_json()))?;
    std::fs::write(folder.join("latency.svg"), plot::latency("Latency", measured)?)?;
    Ok(())
}

async fn measure(matches: &ArgMatches) -> Result<Measured, String> {
    let text = |name| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let count = |name| matches.get_one::<usize>(name).copied().unwrap_or(1).max(1);
    let (address, model) = (text("addr"), text("model"));
    let all = |name| matches.get_many::<String>(name).into_iter().flatten();
    let shapes: Result<Vec<_>, String> = all("shape").map(|text| shape(text)).collect();
    let values: Result<Vec<_>, String> = all("value").map(|text| value(text)).collect();
    let given = Given { shapes: shapes?, values: values? };
    let rows = matches.get_one::<i64>("rows").copied().unwrap_or(1);
    let describer = matches.get_one::<String>("describe").unwrap_or(&address);
    let metadata = input::metadata(describer, &model).await?;
    let pace = match matches.get_one::<f64>("rate") {
        Some(rate) if *rate > 0.0 => Pace::Open(*rate),
        Some(rate) => return Err(format!("--rate: expected more than 0, got {rate}")),
        None if matches.get_flag("stream") => {
            Pace::Streams { count: count("streams"), window: count("concurrency") }
        }
        None => Pace::Closed(count("concurrency")),
    };
    let seconds = matches.get_one::<f64>("duration").copied().unwrap_or(5.0);
    let load = Load {
        pace,
        duration: Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?,
        connections: count("connections"),
        timeout: matches.get_one::<u64>("timeout-ms").copied().map(Duration::from_millis),
        cancels: !matches.get_flag("no-cancel"),
        messages: input::requests(&metadata, rows, lengths(&text("lengths"))?, &given)?,
    };
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {pos} answers {per_sec}") {
        bar.set_style(style);
    }
    let measured = load::run(&address, &load, |ends| bar.set_position(ends)).await;
    bar.finish_and_clear();
    measured
}

fn lengths(text: &str) -> Result<RangeInclusive<i64>, String> {
    let wrong = || format!("--lengths: expected N..M with 1 <= N <= M, got {text:?}");
    let (first, last) = text.split_once("..").ok_or_else(wrong)?;
    let range = first.parse().map_err(|_| wrong())?..=last.parse().map_err(|_| wrong())?;
    if range.is_empty() || *range.start() < 1 {
        return Err(wrong());
    }
    Ok(range)
}

fn shape(text: &str) -> Result<(String, Vec<i64>), String> {
    let wrong = || format!("--shape: expected INPUT=N,N, got {text:?}");
    let (name, dims) = text.split_once('=').ok_or_else(wrong)?;
    let dims: Result<Vec<i64>, _> = dims.split(',').map(str::parse).collect();
    Ok((name.to_owned(), dims.map_err(|_| wrong())?))
}

fn value(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("--value: expected INPUT=V, got {text:?}"))?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_follows_the_name_of_its_input() {
        assert_eq!(value("mask=1"), Ok(("mask".to_owned(), "1".to_owned())));
        assert_eq!(value("text="), Ok(("text".to_owned(), String::new())));
        let problem = value("mask").unwrap_err();
        assert!(problem.contains("--value") && problem.contains("mask"), "{problem}");
    }

    #[test]
    fn a_range_of_lengths_is_two_numbers_that_rise() {
        assert_eq!(lengths("1..1"), Ok(1..=1));
        assert_eq!(lengths("8..128"), Ok(8..=128));
        for wrong in ["", "8", "0..4", "5..4", "a..b", "1..2..3"] {
            let problem = lengths(wrong).unwrap_err();
            assert!(problem.contains("--lengths") && problem.contains(wrong), "{problem}");
        }
    }
}
