//! The situations in which policies are compared, and the comparison.
//!
//! Each curve is swept over loads with one instance and one deadline, which gives the plots; then
//! come situations that differ in arrivals, instances, deadlines, rows and noise. Deadlines and
//! periods are multiples of the time of the curve's best run, so that a situation is as hard for
//! a fast model as for a slow one.

use std::time::Duration;

use super::arrivals::{Arrivals, Deadlines, Rows};
use super::curve::Curve;
use super::engine::Violation;
use super::measured::Measured;
use super::policy::aimd::Aimd;
use super::policy::auto::Auto;
use super::policy::fixed::{Fixed, Settings};
use super::policy::off::Off;
use super::scenario::Scenario;
use super::search;

/// Who is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    /// The server's own policy.
    Auto,
    /// No batching.
    Off,
    /// Fixed settings as they come out of the box.
    Default,
    /// The best fixed settings for the situation.
    Best,
    /// Sizes by additive increase, multiplicative decrease.
    Aimd,
}

impl Contender {
    /// All, in the order of tables.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Off, Self::Default, Self::Best, Self::Aimd];

    /// Name in tables and legends.
    pub fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Default => "default fixed",
            Self::Best => "best fixed",
            Self::Aimd => "AIMD",
        }
    }

    /// Name in files for programs.
    pub fn key(self) -> &'static str {
        match self {
            Self::Default => "default_fixed",
            Self::Best => "best_fixed",
            Self::Aimd => "aimd",
            Self::Auto | Self::Off => self.label(),
        }
    }
}

/// What all contenders did in one situation.
#[derive(Debug)]
pub struct Compared {
    /// The situation.
    pub scenario: Scenario,
    /// What each did, in the order of [`Contender::ALL`].
    pub measured: [Measured; 5],
    /// The best fixed settings.
    pub best: Settings,
}

impl Compared {
    /// What one did.
    pub fn of(&self, contender: Contender) -> &Measured {
        let index = Contender::ALL.iter().position(|other| *other == contender);
        &self.measured[index.unwrap_or(0)]
    }

    /// Goodput of `auto` by that of another; `None` if neither answers anything in time.
    pub fn auto_by(&self, contender: Contender) -> Option<f64> {
        let (auto, other) = (self.of(Contender::Auto).goodput(), self.of(contender).goodput());
        (auto > 0.0 || other > 0.0).then_some(auto / other)
    }
}

/// How long and with which numbers.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Fewest requests of a situation.
    pub requests: usize,
    /// Fewest deadlines, and half as many periods of arrivals, that a trace spans; 0 leaves it at
    /// `requests`.
    pub deadlines: u32,
    /// Most requests that this may take.
    pub most: usize,
    /// Repeats all of it.
    pub seed: u64,
}

impl Scale {
    /// Figures to decide by.
    pub fn full(seed: u64) -> Self {
        Self { requests: 100_000, deadlines: 60, most: 2_000_000, seed }
    }

    /// Figures within a minute or so, to see whether something changed.
    pub fn quick(seed: u64) -> Self {
        Self { requests: 10_000, deadlines: 20, most: 500_000, seed }
    }

    /// Exactly so many requests in each situation.
    pub fn exactly(requests: usize, seed: u64) -> Self {
        Self { requests, deadlines: 0, most: requests, seed }
    }
}

/// Loads of the sweep.
pub const LOADS: [f64; 6] = [0.3, 0.7, 0.95, 1.2, 2.0, 5.0];

/// Deadline of the sweep.
const SWEEP: &str = "8x";

/// All situations for these curves.
pub fn scenarios(curves: &[Curve], scale: Scale) -> Vec<Scenario> {
    let mut all = Vec::new();
    for curve in curves {
        for load in LOADS {
            all.push(scenario(curve, 1, Arrivals::Poisson, load, SWEEP, scale));
        }
        all.extend(variations(curve, scale));
        if curve.name() == "gpu" {
            all.extend(fleet(curve, scale));
        }
    }
    all
}

/// Whether the situation is part of the sweep over loads.
pub fn is_swept(scenario: &Scenario) -> bool {
    scenario.instances == 1
        && scenario.arrivals == Arrivals::Poisson
        && scenario.deadlines_label == SWEEP
        && scenario.rows == Rows::Each(1)
        && scenario.sigma == 0.0
}

fn variations(curve: &Curve, scale: Scale) -> Vec<Scenario> {
    let run = curve.best_time();
    let bursty = Arrivals::Bursty { factor: 3.0, share: 0.25, burst: run * 10 };
    let volleys = Arrivals::Volleys { every: run * 12 };
    let square = Arrivals::Square { period: run * 24 };
    let diurnal = Arrivals::Diurnal { swing: 0.8, period: run * 60 };
    let of = |instances, arrivals: &Arrivals, load, deadlines| {
        scenario(curve, instances, arrivals.clone(), load, deadlines, scale)
    };
    let poisson = Arrivals::Poisson;
    let mut all = vec![
        of(2, &bursty, 0.7, "8x"),
        of(1, &bursty, 1.2, "3x, 12x"),
        of(8, &diurnal, 0.95, "8x"),
        of(1, &volleys, 0.7, "8x"),
        of(2, &square, 0.95, "3x"),
        of(1, &poisson, 1.2, "3x"),
        of(1, &poisson, 2.0, "3x, 12x"),
        of(1, &poisson, 0.7, "none"),
    ];
    let mut noisy = of(8, &poisson, 0.95, "3x, 12x");
    noisy.sigma = 0.2;
    let mut mixed = of(2, &poisson, 1.2, "2x to 10x");
    mixed.rows = Rows::Mix(vec![1, 1, 1, 5]);
    mixed.requests /= 2;
    all.extend([noisy, mixed]);
    all
}

/// A thousand instances. Requests bring many rows, as from a front that has batched already.
fn fleet(curve: &Curve, scale: Scale) -> Vec<Scenario> {
    let bursty = Arrivals::Bursty { factor: 3.0, share: 0.25, burst: curve.best_time() * 4 };
    let kinds =
        [(Arrivals::Poisson, 0.7, "3x"), (Arrivals::Poisson, 1.2, "3x"), (bursty, 0.95, "3x, 12x")];
    let of = |(arrivals, load, deadlines)| {
        let rows = 64;
        let mut fleet = scenario(curve, 1000, arrivals, load, deadlines, scale);
        fleet.rows = Rows::Each(rows);
        fleet.requests = requests(&fleet, scale);
        fleet
    };
    kinds.map(of).into()
}

fn scenario(
    curve: &Curve,
    instances: usize,
    arrivals: Arrivals,
    load: f64,
    deadlines_label: &'static str,
    scale: Scale,
) -> Scenario {
    let run = curve.best_time();
    let deadlines = match deadlines_label {
        "3x" => Deadlines::One(run * 3),
        "8x" => Deadlines::One(run * 8),
        "3x, 12x" => Deadlines::Mix { tight: run * 3, loose: run * 12 },
        "2x to 10x" => Deadlines::Uniform { from: run * 2, to: run * 10 },
        _ => Deadlines::None,
    };
    let mut scenario = Scenario {
        curve: curve.clone(),
        instances,
        arrivals,
        load,
        deadlines,
        deadlines_label,
        rows: Rows::Each(1),
        requests: 0,
        sigma: 0.0,
        seed: scale.seed,
    };
    scenario.requests = requests(&scenario, scale);
    scenario
}

/// As many as the scale asks for.
fn requests(scenario: &Scenario, scale: Scale) -> usize {
    let deadline = scenario.deadlines.loosest().min(scenario.curve.best_time() * 12);
    let span = (deadline * 2).max(scenario.arrivals.period()) * scale.deadlines / 2;
    let spanned = scenario.rate() * span.as_secs_f64();
    let spanned = Duration::try_from_secs_f64(spanned).map_or(u64::MAX, |number| number.as_secs());
    let spanned = usize::try_from(spanned).unwrap_or(usize::MAX);
    spanned.min(scale.most).max(scale.requests)
}

/// Lets all contenders serve one situation.
///
/// # Errors
/// [`Violation`], if a policy breaks the rules.
pub fn compare(scenario: Scenario) -> Result<Compared, Violation> {
    let trace = scenario.trace();
    let (curve, instances) = (&scenario.curve, scenario.instances);
    let default = Settings::out_of_the_box(curve.top());
    let auto = scenario.run(&trace, &mut Auto::new(curve, instances))?;
    let off = scenario.run(&trace, &mut Off::default())?;
    let default = scenario.run(&trace, &mut Fixed::new(default))?;
    let best = search::best_fixed(&scenario, &trace)?;
    // A request waits for one run and rides the next, so half of the time is for each. Over the
    // whole suite this does better than all of it, a third or a quarter.
    let target = scenario.deadlines.tightest() / 2;
    let aimd = scenario.run(&trace, &mut Aimd::new(curve.top(), target))?;
    let measured = [auto, off, default, best.measured, aimd];
    Ok(Compared { scenario, measured, best: best.settings })
}

/// The figures that sum a comparison up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Place of the situation where `auto` does worst by the best fixed settings.
    pub worst: usize,
    /// What it does there.
    pub smallest: f64,
    /// Median over all situations.
    pub median: f64,
    /// Median by the default settings where the load is above 70 %; `None` without any.
    pub median_by_default: Option<f64>,
}

/// Sums up; `None` for nothing.
pub fn summary(all: &[Compared]) -> Option<Summary> {
    let by_best = all.iter().map(|one| one.auto_by(Contender::Best));
    let by_best: Vec<(usize, f64)> =
        by_best.enumerate().filter_map(|(place, ratio)| Some((place, ratio?))).collect();
    let (worst, smallest) = by_best.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let by_best = by_best.into_iter().map(|(_, ratio)| ratio).collect();
    let loaded = all.iter().filter(|one| one.scenario.load > 0.7);
    let by_default = loaded.filter_map(|one| one.auto_by(Contender::Default)).collect();
    let median_by_default = median(by_default);
    Some(Summary { worst, smallest, median: median(by_best)?, median_by_default })
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    let lower = if values.len().is_multiple_of(2) { values[middle - 1] } else { upper };
    Some(f64::midpoint(lower, upper))
}
