//! Curves by hand, and learned from runs with noise, outliers and drift.

use super::*;

const AROUND: Duration = Duration::from_micros(30);

/// A model that knows the given times, by rows, of runs of `length`.
fn measured(length: usize, times: &[(usize, Duration)]) -> CostModel {
    known(64, Duration::ZERO, length, times)
}

fn known(most: usize, around: Duration, length: usize, times: &[(usize, Duration)]) -> CostModel {
    let mut model = CostModel::new(most, around);
    for (rows, took) in times {
        model.set(*rows, length, *took);
    }
    model
}

fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn near(actual: Duration, expected: f64, share: f64) {
    let ratio = micros(actual) / expected;
    assert!((ratio - 1.0).abs() <= share, "{actual:?} is not {expected} us");
}

/// splitmix64.
struct Dice(u64);

impl Dice {
    /// Between 0 and 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        f64::from(u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap()) / f64::from(u32::MAX)
    }
}

#[test]
fn nothing_known_expects_nothing_and_limits_nothing() {
    let model = CostModel::new(64, AROUND);
    assert_eq!(model.expect(3, 1), Duration::ZERO);
    assert_eq!(model.per_row(1), Duration::ZERO);
    assert_eq!((model.best_rows(1, 64), model.best_rows(1, 100)), (64, 64));
}

#[test]
fn lines_between_measured_sizes_and_on_beyond_them() {
    let model = measured(1, &[(1, us(100)), (4, us(160)), (8, us(320))]);
    near(model.expect(1, 1), 100.0, 1e-9);
    near(model.expect(2, 1), 120.0, 1e-9);
    near(model.expect(6, 1), 240.0, 1e-9);
    near(model.expect(16, 1), 640.0, 1e-9);
    near(measured(1, &[(1, us(100))]).expect(4, 1), 400.0, 1e-9);
}

#[test]
fn the_best_size_is_where_rows_are_cheapest() {
    let best = |times: &[(usize, Duration)], most| measured(1, times).best_rows(1, most);
    assert_eq!(best(&[(1, us(6300)), (64, us(544_000))], 64), 1, "batching loses");
    assert_eq!(best(&[(1, us(1000)), (64, us(63_900))], 64), 1, "the gain is in the noise");
    assert_eq!(best(&[(1, us(260)), (4, us(260)), (8, us(600))], 8), 4, "the curve turns");
    let flat = best(&[(1, us(2000)), (64, us(2600))], 64);
    assert!((62..=64).contains(&flat), "{flat}");
    assert_eq!(best(&[(1, us(2000)), (64, us(2600))], 20), 20);
    let flat = [(1, us(10)), (64, us(640))];
    assert_eq!(best(&flat, 64), 1);
    assert!(known(64, AROUND, 1, &flat).best_rows(1, 64) > 16, "runs cost something, too");
}

#[test]
fn a_curve_is_not_trusted_far_beyond_its_end() {
    let best = |times: &[(usize, Duration)]| measured(1, times).best_rows(1, 64);
    assert_eq!(best(&[(1, us(1000)), (2, us(1100)), (4, us(1300))]), 8);
    assert_eq!(best(&[(1, us(1000))]), 1, "one size says that rows cost what they cost");
    let bump = [(1, us(1000)), (2, us(2200)), (4, us(2000)), (8, us(4100))];
    assert_eq!(best(&bump), 4, "a bad size in between");
}

#[test]
fn a_row_costs_what_it_costs_in_the_best_run() {
    let model = measured(8, &[(1, us(100)), (4, us(120)), (8, us(300))]);
    near(model.per_row(8), 30.0, 1e-6);
    near(model.per_row(16), 60.0, 1e-6);
}

#[test]
fn learns_a_curve_through_noise_and_outliers() {
    let truth = |rows: usize| 200.0 + 10.0 * count(rows);
    let mut model = measured(1, &[(1, us(210)), (64, us(2000))]);
    let mut dice = Dice(1);
    for turn in 0..4000 {
        let rows = 1 + turn * 7 % 64;
        let noise = 0.9 + 0.2 * dice.unit();
        let outlier = if dice.unit() < 0.02 { 20.0 } else { 1.0 };
        let took = Duration::from_secs_f64(truth(rows) * noise * outlier / 1e6);
        model.observe(rows, 1, took);
    }
    for rows in [1, 5, 16, 40, 64] {
        near(model.expect(rows, 1), truth(rows), 0.15);
    }
    assert!(model.at_most(8, 1) > model.expect(8, 1));
}

#[test]
fn one_accident_changes_little_and_a_slow_machine_is_learned_within_thirty_runs() {
    let mut model = measured(1, &[(1, us(100)), (8, us(200))]);
    model.observe(8, 1, us(20_000));
    assert!(model.expect(8, 1) < us(250), "{:?}", model.expect(8, 1));
    assert!(model.expect(1, 1) < us(115), "{:?}", model.expect(1, 1));
    for _ in 0..30 {
        model.observe(8, 1, us(600));
    }
    near(model.expect(8, 1), 600.0, 0.12);
    assert!(model.expect(1, 1) > us(170), "the machine is slow for all sizes");
    for _ in 0..200 {
        model.observe(8, 1, us(200));
        model.observe(1, 1, us(100));
    }
    near(model.expect(8, 1), 200.0, 0.1);
    near(model.expect(1, 1), 100.0, 0.1);
}

#[test]
fn few_runs_take_longer_than_at_most_says() {
    let mut model = measured(1, &[(1, us(100))]);
    let mut dice = Dice(5);
    let mut late = 0;
    for turn in 0..4000 {
        let took = Duration::from_secs_f64((80.0 + 40.0 * dice.unit()) / 1e6);
        if turn >= 1000 && took > model.at_most(1, 1) {
            late += 1;
        }
        model.observe(1, 1, took);
    }
    assert!((1..=250).contains(&late), "{late} of 3000");
    assert!(model.at_most(1, 1) < us(160), "{:?}", model.at_most(1, 1));
}

#[test]
fn a_wrong_guess_says_nothing_of_the_machine() {
    // Small sizes are known; from them, 16 rows seem to take 250 us.
    let mut model = measured(1, &[(1, us(100)), (2, us(110))]);
    near(model.expect(16, 1), 250.0, 1e-6);
    for _ in 0..3 {
        model.observe(16, 1, us(750));
    }
    near(model.expect(16, 1), 750.0, 0.01);
    near(model.expect(1, 1), 100.0, 1e-6);
    // What was seen so often is known: if it becomes slow, everything is slow.
    for _ in 0..30 {
        model.observe(16, 1, us(1500));
    }
    assert!(model.expect(1, 1) > us(130), "{:?}", model.expect(1, 1));
}

#[test]
fn among_noisy_sizes_the_luckiest_is_not_taken_for_the_best() {
    // The more rows the better, little by little, as on an accelerator.
    let truth = |rows: usize| 300.0 + 3.0 * count(rows);
    let mut lost = Vec::new();
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let mut model =
            measured(1, &[1, 2, 4, 8, 16, 32, 64].map(|rows| (rows, us(300 + 3 * rows as u64))));
        for _ in 0..2000 {
            let drawn = dice.unit();
            let rows = (1..64).filter(|rows| drawn * 64.0 > count(*rows)).count() + 1;
            let noise = (1..=12).map(|_| dice.unit() - 0.5).sum::<f64>();
            let took = truth(rows) * (0.2 * noise).exp();
            model.observe(rows, 1, Duration::from_secs_f64(took / 1e6));
        }
        let best = model.best_rows(1, 64);
        lost.push(truth(best) / count(best) / (truth(64) / 64.0) - 1.0);
    }
    let mean = lost.iter().sum::<f64>() / count(lost.len());
    assert!(mean < 0.01, "{mean}: {lost:?}");
}

#[test]
fn steps_are_seen_once_they_were_run_often() {
    // Sixteen rows cost what one does; 60 rows take a fourth step for little.
    let truth = |rows: usize| 50.0 + 100.0 * count(rows.div_ceil(16));
    let mut model = known(60, Duration::ZERO, 1, &[]);
    for rows in (1..=60).cycle().take(60 * 200) {
        model.observe(rows, 1, Duration::from_secs_f64(truth(rows) / 1e6));
    }
    assert_eq!(model.best_rows(1, 60), 48);
}

#[test]
fn what_is_known_reaches_twice_as_far() {
    let mut model = measured(8, &[(1, us(100)), (4, us(120))]);
    assert_eq!((model.reach(8), model.reach(500)), (8, 8), "lengths never seen go by the nearest");
    model.observe(8, 500, us(9000));
    assert_eq!((model.reach(8), model.reach(500)), (8, 16));
    assert_eq!(CostModel::new(64, Duration::ZERO).reach(8), 64, "nothing is known");
}

#[test]
fn a_length_that_was_not_seen_is_judged_by_its_elements() {
    let model = measured(32, &[(1, us(100)), (2, us(150)), (4, us(250)), (8, us(450))]);
    near(model.expect(2, 64), 250.0, 1e-6);
    near(model.expect(4, 16), 150.0, 1e-6);
    near(model.expect(1, 16), 50.0, 1e-6);
    let mut both = model;
    both.set(1, 64, us(300));
    // As high as its own point, as steep as the other curve.
    near(both.expect(2, 64), 300.0 * 250.0 / 150.0, 1e-6);
}

#[test]
fn lengths_inside_a_class_are_on_the_line_to_the_next() {
    // 64 to 79 and 80 to 95 are classes.
    let mut model = measured(64, &[(1, us(640)), (8, us(3200))]);
    near(model.expect(1, 76), 760.0, 1e-6);
    near(model.per_row(72), model.per_row(64).as_secs_f64() * 1.125e6, 1e-6);
    model.set(1, 80, us(720));
    model.set(8, 80, us(3200));
    near(model.expect(1, 72), 680.0, 1e-6);
    near(model.expect(8, 72), 3200.0, 1e-6);
    // Whatever length of the class runs, it is learned for that length.
    for _ in 0..400 {
        model.observe(1, 72, us(780));
        model.observe(1, 80, us(820));
    }
    near(model.expect(1, 72), 780.0, 0.02);
    near(model.expect(1, 80), 820.0, 0.02);
    near(model.expect(1, 64), 740.0, 0.03);
}

#[test]
fn classes_of_lengths_are_a_fifth_wide() {
    let mut low = 1;
    for length in 2..5000 {
        if class(length) > class(low) {
            low = length;
        }
        assert!(class(length) == class(low) && length <= low + low / 4, "{length} as {low}");
    }
}

#[test]
fn considered_sizes_rise_and_end_at_the_largest() {
    let all: Vec<usize> = sizes(200).collect();
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!((all[0], *all.last().unwrap()), (1, 200));
    assert!(all.len() < 100);
    assert_eq!(sizes(1).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_length_is_usual_when_it_is_presumed_or_seen() {
    let mut model = measured(8, &[(1, us(100)), (2, us(200))]);
    model.set(1, 64, us(500));
    assert_eq!(model.usual_length(), 64, "nothing was seen");
    model.presume(8);
    assert_eq!(model.usual_length(), 8);
    model.presume(16);
    assert_eq!(model.usual_length(), 8, "nothing is known of it");
    model.observe(1, 64, us(500));
    model.observe(1, 64, us(500));
    assert_eq!(model.usual_length(), 64);
}

#[test]
fn accidents_at_one_size_do_not_lift_the_others_without_end() {
    let mut costs = CostModel::new(8, AROUND_A_RUN);
    for rows in [1, 2, 4, 8] {
        costs.set(rows, 1, Duration::from_micros(10 * rows as u64));
    }
    // One run in ten takes far too long, for a hundred thousand runs.
    for run in 0..100_000 {
        let micros = if run % 10 == 0 { 500 } else { 10 };
        costs.observe(1, 1, Duration::from_micros(micros));
    }
    assert!(costs.expect(1, 1) < Duration::from_micros(40), "{:?}", costs.expect(1, 1));
    assert!(costs.expect(8, 1) < Duration::from_micros(400), "{:?}", costs.expect(8, 1));
}
