//! The best fixed setting for one situation, by trying.
//!
//! It is found on the very trace on which it is then compared, by goodput and, among settings that
//! hardly differ there, by p99: more than an operator could know beforehand, and so the bound that
//! a policy without settings is held against. Sizes, limits and timeouts are tried together on the
//! first part of the trace; the best of them with delays; the best of those on all of it.

use std::time::Duration;

use super::arrivals::Deadlines;
use super::engine::Violation;
use super::measured::Measured;
use super::policy::Request;
use super::policy::fixed::{Fixed, QueueTimeout, Settings};
use super::scenario::Scenario;

/// What a search found.
#[derive(Debug)]
pub struct Found {
    /// The setting.
    pub settings: Settings,
    /// What it did on the whole trace.
    pub measured: Measured,
    /// Simulations that it took.
    pub tried: usize,
}

/// Settings that get to the next round.
const KEPT: usize = 12;

/// Part of the trace that the first round sees: one of so many.
const PARTS: usize = 5;

/// Requests below which a part says too little.
const FEWEST: usize = 4000;

/// Goodputs closer than this share are the same, and p99 decides.
const SAME: f64 = 0.002;

/// Finds the best fixed setting for `scenario` on `trace`.
///
/// # Errors
/// [`Violation`], if the fixed policy breaks the rules.
pub fn best_fixed(scenario: &Scenario, trace: &[Request]) -> Result<Found, Violation> {
    let part = &trace[..(trace.len() / PARTS).max(FEWEST).min(trace.len())];
    let mut tried = 0;
    let mut candidates: Vec<Settings> =
        sizes(scenario).into_iter().flat_map(|size| without_delay(scenario, size)).collect();
    let mut rank = |candidates: &mut Vec<Settings>, trace| {
        tried += candidates.len();
        rank(scenario, trace, candidates)
    };
    rank(&mut candidates, part)?;
    let mut candidates: Vec<Settings> =
        candidates.iter().flat_map(|settings| with_delays(scenario, settings)).collect();
    rank(&mut candidates, part)?;
    candidates.push(Settings::out_of_the_box(scenario.curve.top()));
    rank(&mut candidates, trace)?;
    let settings = candidates.swap_remove(0);
    let measured = scenario.run(trace, &mut Fixed::new(settings.clone()))?;
    Ok(Found { settings, measured, tried })
}

/// Sorts candidates, the best first, and keeps the best.
fn rank(
    scenario: &Scenario,
    trace: &[Request],
    candidates: &mut Vec<Settings>,
) -> Result<(), Violation> {
    let mut scored = Vec::with_capacity(candidates.len());
    for settings in candidates.drain(..) {
        let measured = scenario.run(trace, &mut Fixed::new(settings.clone()))?;
        let p99 = measured.quantile(0.99).unwrap_or(Duration::MAX);
        scored.push((measured.goodput(), p99, settings));
    }
    let most = scored.iter().map(|(goodput, _, _)| *goodput).fold(f64::MIN_POSITIVE, f64::max);
    // Steps behind the best, so that the order is one.
    let behind = |goodput: f64| ((1.0 - goodput / most) / SAME).floor();
    scored.sort_by(|(a, a_p99, _), (b, b_p99, _)| {
        behind(*a).total_cmp(&behind(*b)).then(a_p99.cmp(b_p99))
    });
    scored.truncate(KEPT);
    candidates.extend(scored.into_iter().map(|(_, _, settings)| settings));
    Ok(())
}

/// Powers of two up to the curve's top, and its best size.
fn sizes(scenario: &Scenario) -> Vec<u32> {
    let (top, best) = (scenario.curve.top(), scenario.curve.best_rows());
    let powers = std::iter::successors(Some(1_u32), |size| size.checked_mul(2));
    let mut sizes: Vec<u32> = powers.take_while(|size| *size < top).chain([best, top]).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// One size with all limits and timeouts of the queue.
fn without_delay(scenario: &Scenario, size: u32) -> Vec<Settings> {
    let plain = Settings::out_of_the_box(size);
    if scenario.deadlines == Deadlines::None {
        return vec![plain];
    }
    let mut all = Vec::new();
    for queue_limit in queue_limits(scenario) {
        for queue_timeout in queue_timeouts(scenario, size) {
            all.push(Settings { queue_limit, queue_timeout, ..plain.clone() });
        }
    }
    all
}

/// Requests that are worked off within a part of the shortest and of the longest deadline.
fn queue_limits(scenario: &Scenario) -> Vec<Option<usize>> {
    let speed = scenario.curve.capacity(scenario.instances) / scenario.rows.mean();
    let mut limits = vec![None];
    for deadline in [scenario.deadlines.tightest(), scenario.deadlines.loosest()] {
        for share in [0.25, 0.5, 1.0] {
            let requests = Duration::try_from_secs_f64(speed * deadline.as_secs_f64() * share);
            let requests = requests.map_or(u64::MAX, |number| number.as_secs());
            limits.push(Some(usize::try_from(requests).unwrap_or(usize::MAX).max(1)));
        }
    }
    limits.sort_unstable();
    limits.dedup();
    limits
}

/// Parts of the shortest and of the longest deadline; what leaves time for one run; the callers'
/// own where they differ.
fn queue_timeouts(scenario: &Scenario, size: u32) -> Vec<QueueTimeout> {
    let run = scenario.curve.time(size);
    let (tightest, loosest) = (scenario.deadlines.tightest(), scenario.deadlines.loosest());
    let mut limits = Vec::new();
    for deadline in [tightest, loosest] {
        limits.extend([0.25, 0.5, 0.75, 1.0].map(|share| deadline.mul_f64(share)));
        limits.push(deadline.saturating_sub(run));
    }
    limits.sort_unstable();
    limits.dedup();
    let mut timeouts = vec![QueueTimeout::Off];
    timeouts.extend(limits.into_iter().map(QueueTimeout::After));
    if tightest != loosest {
        let margins = [Duration::ZERO, run];
        timeouts.extend(margins.map(|margin| QueueTimeout::Callers { margin }));
    }
    timeouts
}

/// One setting with delays up to the time of a run and to a good part of the deadline.
fn with_delays(scenario: &Scenario, settings: &Settings) -> Vec<Settings> {
    let run = scenario.curve.time(settings.max_batch);
    let mut delays = vec![Duration::ZERO, run / 4, run];
    if scenario.deadlines != Deadlines::None {
        delays.extend([8, 4, 2].map(|part| scenario.deadlines.tightest() / part));
    }
    delays.sort_unstable();
    delays.dedup();
    delays.into_iter().map(|delay| Settings { delay, ..settings.clone() }).collect()
}
