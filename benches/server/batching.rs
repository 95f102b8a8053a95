//! Rows 4, 5 and 13: what the default makes of batches.

use crate::row::Row;
use crate::row::Target::{self, AtLeast};
use crate::row::median;
use crate::run::{SERVER_CORE, Server, ceiling};
use crate::setting::{Setting, TEXT, TEXT_MASK, WORKLOADS, Workload};
use crate::turns;

/// Without batches.
const OFF: &str = "batching = \"off\"";

/// A server that serves one model with some settings, and has done so for a while. Those that are
/// compared are there at the same time and idle in turns; so a range tells how loads differ, not how
/// starts do.
struct Warm<'a> {
    setting: &'a Setting,
    workload: Workload,
    server: Server,
}

impl<'a> Warm<'a> {
    fn up(setting: &'a Setting, workload: Workload, settings: &str) -> Result<Self, String> {
        let models = setting.repository(&[workload.model], settings)?;
        let server = Server::start_on(SERVER_CORE, &models, &setting.log())?;
        server.load(&[workload.load, &["--duration", workload.warm_up]].concat())?;
        Ok(Self { setting, workload, server })
    }

    /// Answers a second.
    fn rate(&self) -> Result<f64, String> {
        let duration = ["--duration", self.setting.effort.seconds];
        Ok(self.server.load(&[self.workload.load, &duration].concat())?.rate)
    }
}

/// Row 4: the default against the best that can be set by hand, for each workload. Which one that is is
/// found first and measured anew then: the best of many figures is also the luckiest.
pub(crate) fn default_over_best(setting: &Setting) -> Result<Vec<Row>, String> {
    let mut by_hand = vec![("off".to_owned(), OFF.to_owned())];
    for size in setting.effort.sizes {
        let settings = format!("batching = \"fixed\"\nmax_batch_size = {size}");
        by_hand.push((format!("fixed {size}"), settings));
    }
    let mut rows = Vec::new();
    for workload in WORKLOADS {
        setting.say(&format!("{}, servers warm up", workload.model));
        let default = Warm::up(setting, workload, "")?;
        let fixed: Result<Vec<Warm<'_>>, String> =
            by_hand.iter().map(|(_, settings)| Warm::up(setting, workload, settings)).collect();
        let fixed = fixed?;
        let mut rates = vec![Vec::new(); fixed.len()];
        for round in 1..=setting.effort.few_rounds {
            let of = setting.effort.few_rounds;
            setting.say(&format!("{} by hand, round {round} of {of}", workload.model));
            for (server, rates) in fixed.iter().zip(&mut rates) {
                rates.push(server.rate()?);
            }
        }
        let typical = |index: &usize| median(rates[*index].clone());
        let best = (0..by_hand.len()).max_by(|a, b| typical(a).total_cmp(&typical(b)));
        let best = best.unwrap_or_default();
        let figures = turns::shares(
            setting.effort.rounds,
            || default.rate(),
            || fixed[best].rate(),
            |round| setting.say(&format!("{}, default and best by hand, {round}", workload.model)),
        )?;
        let name = format!("default over best by hand, {}", workload.model);
        let note = format!("best: {}, {:.0}/s", by_hand[best].0, typical(&best));
        rows.push(Row::new("4", name, figures, ("x", AtLeast(0.98))).noted(note));
    }
    Ok(rows)
}

/// Row 5: texts of mixed lengths, against runs of one text each without a server.
pub(crate) fn mixed_texts(setting: &Setting) -> Result<Vec<Row>, String> {
    let alone = || {
        let texts = ["8", "128", TEXT_MASK];
        let mean = ceiling(&setting.model(TEXT.model), &setting.library, &texts)?;
        Ok(1e6 / mean["mean"].as_f64().unwrap_or(f64::NAN))
    };
    let say = |round: &str| setting.say(&format!("texts, {round}"));
    let server = Warm::up(setting, TEXT, "")?;
    let figures = turns::shares(setting.effort.rounds, || server.rate(), alone, say)?;
    let name = "rate over runs one by one, texts of 8 to 128, 16 callers";
    Ok(vec![Row::new("5", name, figures, ("x", AtLeast(1.12)))])
}

/// Row 13: streams whose state goes to and fro, against the same without batches, where the core
/// runs one stream at a time.
pub(crate) fn streams(setting: &Setting) -> Result<Vec<Row>, String> {
    const STREAMS: Workload = Workload {
        model: "silero-vad",
        // Samples of one frame, which the graph leaves open.
        load: &[
            "silero-vad",
            "--shape",
            "input=1,576",
            "--stream",
            "--streams",
            "32",
            "--concurrency",
            "1",
        ],
        warm_up: "3",
    };
    const TARGET: (&str, Target) = ("x", AtLeast(2.5));
    let default = Warm::up(setting, STREAMS, "")?;
    let off = Warm::up(setting, STREAMS, OFF)?;
    let figures = turns::shares(
        setting.effort.rounds,
        || default.rate(),
        || off.rate(),
        |round| setting.say(&format!("streams, {round}")),
    )?;
    let name = "32 live streams over one at a time, silero-vad, one core";
    Ok(vec![Row::new("13", name, figures, TARGET)])
}
