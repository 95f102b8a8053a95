//! Row 7: twice as many requests as the server can answer, and how soon all is well after them.

use std::cell::Cell;
use std::time::Duration;

use onnxd::bench::input::{self, Given};
use onnxd::bench::load::{self, Load, Pace};
use onnxd::bench::{Measured, WINDOW, Window};
use tokio::time::sleep;

use crate::row::Row;
use crate::row::Target::{AtLeast, AtMost};
use crate::run::Server;
use crate::setting::Setting;
use crate::turns;

/// Time that each request has.
const DEADLINE: Duration = Duration::from_millis(50);
/// By how much the load is above what the server can do.
const FACTOR: f64 = 2.0;
/// The moderate load of the recovery, as a share of what the server can do.
const MODERATE: f64 = 0.5;
/// When the overload beside it begins, how long it lasts, and when the moderate load ends.
const RECOVERY: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_secs(2), Duration::from_millis(4500)];
/// Share of requests in time that is "well again".
const WELL: f64 = 0.99;
/// Connections of the overload.
const CONNECTIONS: usize = 4;

/// Seconds at capacity before any that count.
const WARM_UP: &str = "2";
/// So many times the usual rounds: few answers are given in one of magika, and the bounds are narrow.
const ROUNDS: usize = 2;

/// A model, its callers at capacity, and the share of the capacity that must be left.
const MODELS: [(&str, &str, f64); 2] = [("magika", "16", 97.0), ("rank", "64", 68.0)];
/// What clients do at their deadline.
const CLIENTS: [(&str, bool); 2] = [("cancel", true), ("never cancel", false)];

pub(crate) fn rows(setting: &Setting) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for (model, callers, target) in MODELS {
        let models = setting.repository(&[model], "")?;
        let server = Server::start(&models, &setting.log())?;
        server.load(&[model, "--concurrency", callers, "--duration", WARM_UP])?;
        let duration = ["--duration", setting.effort.seconds];
        // As known last; the overload is a multiple of it.
        let capacity = Cell::new(f64::NAN);
        let at_capacity = || {
            let load = [&[model, "--concurrency", callers], &duration[..]].concat();
            capacity.set(server.load(&load)?.rate);
            Ok(capacity.get())
        };
        for (clients, cancels) in CLIENTS {
            let of = format!("{model}, clients {clients}");
            let over = || {
                let rate = (capacity.get() * FACTOR).to_string();
                let connections = CONNECTIONS.to_string();
                let timeout = DEADLINE.as_millis().to_string();
                let mut arguments = vec![model, "--rate", &rate, "--connections", &connections];
                arguments.extend(["--timeout-ms", &timeout]);
                arguments.extend(duration);
                arguments.extend((!cancels).then_some("--no-cancel"));
                Ok(100.0 * server.overload(&arguments)?.goodput)
            };
            let say = |round: &str| setting.say(&format!("twice the capacity, {of}, {round}"));
            let goodput = turns::shares(ROUNDS * setting.effort.rounds, over, at_capacity, say)?;
            let mut back = Vec::new();
            for round in 1..=setting.effort.few_rounds {
                let rounds = setting.effort.few_rounds;
                setting.say(&format!("after it, {of}, round {round} of {rounds}"));
                back.push(recovery(&server, model, capacity.get(), cancels)?);
            }
            let name = format!("goodput at twice the capacity, {of}");
            rows.push(Row::new("7", name, goodput, ("%", AtLeast(target))));
            let name = format!("back to 99 % in time, {of}");
            rows.push(Row::new("7", name, back, ("s", AtMost(0.1))));
        }
    }
    Ok(rows)
}

/// Seconds after an overload until those who ask for less than the capacity have their answers in
/// time for good. Both loads are made here, by one clock.
fn recovery(server: &Server, model: &str, capacity: f64, cancels: bool) -> Result<f64, String> {
    let [from, lasts, ends] = RECOVERY;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let measured = runtime.map_err(|error| error.to_string())?.block_on(async {
        let metadata = input::metadata(&server.address, model).await?;
        let message = input::request(&metadata, (1, 1), &Given::default())?;
        let at = |factor: f64, duration, connections| Load {
            pace: Pace::Open(capacity * factor),
            duration,
            connections,
            timeout: Some(DEADLINE),
            cancels,
            messages: vec![message.clone()],
        };
        let (moderate, over) = (at(MODERATE, ends, 1), at(FACTOR, lasts, CONNECTIONS));
        let moderate = load::run(&server.address, &moderate, |_| {});
        let over = async {
            sleep(from).await;
            load::run(&server.address, &over, |_| {}).await
        };
        let (moderate, _) = tokio::try_join!(moderate, over)?;
        Ok::<Measured, String>(moderate)
    })?;
    let first = usize::try_from((from + lasts).as_millis() / WINDOW.as_millis());
    let after = measured.timeline.get(first.unwrap_or(usize::MAX)..).unwrap_or_default();
    let is_well = |windows: &[Window]| {
        let sum = |count: fn(&Window) -> u64| windows.iter().map(count).sum::<u64>();
        let (in_time, all) = (sum(|window| window.in_time), sum(|window| window.requests));
        f64::from(u32::try_from(in_time).unwrap_or(u32::MAX))
            >= WELL * f64::from(u32::try_from(all).unwrap_or(u32::MAX))
    };
    let back = (0..after.len()).find(|index| is_well(&after[*index..])).unwrap_or(after.len());
    Ok(WINDOW.as_secs_f64() * f64::from(u32::try_from(back).unwrap_or(u32::MAX)))
}
