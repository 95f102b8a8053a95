//! How much more is done in the same time where lengths are mixed and costs are learned from runs that
//! vary: the real queue, policy and cost model, made-up times, sixteen callers who wait for each answer.

use std::time::Duration;

use tokio::time::Instant;

use super::dice::Dice;
use crate::batcher::pending::{Entry, Pending};
use crate::batcher::policy::{BatchPolicy, Moment};
use crate::cost::{AROUND_A_RUN, CostModel};
use crate::deadline::Deadline;

/// Milliseconds of a run by rows and length.
type Truth = fn(f64, f64) -> f64;

const SEEDS: u64 = 24;

/// Milliseconds of a row of a small encoder, as measured: by length, and by rows 1, 2, 3, 4, 6, 8, 16.
const ENCODER: [(f64, [f64; 7]); 6] = [
    (8.0, [6.40, 3.66, 2.72, 2.57, 2.18, 2.08, 1.88]),
    (16.0, [6.73, 5.08, 4.14, 4.25, 3.85, 3.68, 3.41]),
    (32.0, [10.61, 8.51, 7.67, 7.29, 6.98, 7.05, 7.06]),
    (64.0, [16.85, 15.41, 14.59, 14.38, 14.24, 14.28, 14.94]),
    (96.0, [20.0, 18.6, 18.2, 18.0, 18.0, 18.2, 18.4]),
    (128.0, [24.0, 22.8, 22.5, 22.4, 22.5, 22.6, 23.8]),
];
const ROWS: [f64; 7] = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0];

fn line(points: impl Iterator<Item = (f64, f64)>, at: f64) -> f64 {
    let points: Vec<(f64, f64)> = points.collect();
    let end = points.partition_point(|(x, _)| *x < at).clamp(1, points.len() - 1);
    let ((x0, y0), (x1, y1)) = (points[end - 1], points[end]);
    y0 + (y1 - y0) * ((at - x0) / (x1 - x0)).clamp(0.0, 1.0)
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap())
}

fn encoder(rows: f64, length: f64) -> f64 {
    let by_length = ENCODER.iter().map(|(known, times)| {
        (*known, line(ROWS.iter().copied().zip(times.iter().copied()), rows))
    });
    rows * line(by_length, length)
}

fn recurrent(rows: f64, length: f64) -> f64 {
    length * (0.05 + 0.01 * rows)
}

/// Time of the same rows one by one over what their runs took, in `counted` runs after `before` others.
fn gained(truth: Truth, varies: f64, seed: u64, (before, counted): (usize, usize)) -> f64 {
    let (mut lengths, mut accidents) = (Dice(seed), Dice(seed + 1000));
    let now = Instant::now();
    let deadline = Deadline::after(now, Duration::from_secs(30));
    let policy = BatchPolicy { measured: true, splits: true, ..BatchPolicy::eager(64) };
    let mut costs = CostModel::new(64, AROUND_A_RUN);
    costs.set(1, 64, Duration::from_secs_f64(truth(1.0, 64.0) / 1e3));
    let mut pending: Pending<u8, ()> = Pending::default();
    let (mut together, mut alone, mut coming) = (0.0, 0.0, 16);
    for run in 0..before + counted {
        for _ in 0..coming {
            let length = 8 + usize::try_from(lengths.below(121)).unwrap();
            let work = costs.per_row(length);
            let (rows, enqueued_at, priority, tenant) = (1, now, 1, 0);
            let entry =
                Entry { rows, length, enqueued_at, deadline, priority, tenant, work, payload: () };
            pending.push(Some(0), entry);
        }
        let (policy, known) = (&policy, &costs);
        let (draining, overloaded, probe) = (false, false, false);
        let moment = Moment { now, policy, costs: known, free: 1, draining, overloaded, probe };
        let cut = pending.cut(&moment).unwrap();
        let took = truth(count(cut.rows), count(cut.length));
        if run >= before {
            together += took;
            let riders = cut.riders.iter().map(|(_, entry)| truth(1.0, count(entry.length)));
            alone += riders.sum::<f64>();
        }
        let took = took * (varies * accidents.normal()).exp();
        costs.observe(cut.rows, cut.length, Duration::from_secs_f64(took / 1e3));
        coming = cut.rows;
    }
    alone / together
}

/// Of many callers, whose runs vary little, much, and very much.
fn typical(truth: Truth, span: (usize, usize)) -> f64 {
    let each = |seed: u64| -> f64 {
        [0.02, 0.1, 0.2].map(|varies| gained(truth, varies, seed, span)).iter().sum()
    };
    (0..SEEDS).map(each).sum::<f64>() / f64::from(3 * u32::try_from(SEEDS).unwrap())
}

#[test]
fn costs_of_mixed_lengths_are_known_after_few_runs() {
    // With costs that are known exactly it is 1.11 and 3.1; where each kind of run is known by itself
    // alone, it is 1.04, 1.07 and 2.69.
    let (early, later) = (typical(encoder, (0, 30)), typical(encoder, (30, 100)));
    assert!(early > 1.06 && later > 1.085, "encoder: {early:.3}, then {later:.3}");
    let later = typical(recurrent, (30, 100));
    assert!(later > 2.75, "recurrent: {later:.3}");
}
