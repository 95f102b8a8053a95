//! The loop and the search against what is known without them.

use std::time::Duration;

use super::arrivals::{Arrivals, Deadlines, Rows};
use super::curve::{Curve, Point};
use super::engine::{Service, Violation, simulate};
use super::measured::Measured;
use super::policy::aimd::Aimd;
use super::policy::auto::Auto;
use super::policy::fixed::{Fixed, QueueTimeout, Settings};
use super::policy::off::Off;
use super::policy::{Admission, Instances, Next, Picked, Policy, Request};
use super::scenario::Scenario;
use super::{plot, report, search, suite};

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Whole milliseconds of a time that is known to three digits.
fn millis(time: Duration) -> u128 {
    (time + ms(1) / 2).as_millis()
}

fn curve(points: &[(u32, f64)]) -> Curve {
    let points: Vec<Point> =
        points.iter().map(|(rows, micros)| Point { rows: *rows, micros: *micros }).collect();
    Curve::through("test", &points).unwrap()
}

fn scenario(curve: Curve, load: f64, requests: usize) -> Scenario {
    Scenario {
        curve,
        instances: 1,
        arrivals: Arrivals::Poisson,
        load,
        deadlines: Deadlines::None,
        deadlines_label: "none",
        rows: Rows::Each(1),
        requests,
        sigma: 0.0,
        seed: 1,
    }
}

fn run(scenario: &Scenario, policy: &mut dyn Policy) -> Measured {
    scenario.run(&scenario.trace(), policy).unwrap()
}

/// Lets a policy serve a trace of which everything counts.
fn serve(
    scenario: &Scenario,
    trace: &[Request],
    policy: &mut dyn Policy,
) -> Result<Measured, Violation> {
    let Scenario { curve, instances, sigma, seed, .. } = scenario;
    let window = [0.0, 1.0];
    let service = Service { curve, sigma: *sigma, seed: *seed, instances: *instances, window };
    simulate(service, trace, policy)
}

/// All policies, each with a queue that is hard to keep in order.
fn policies(scenario: &Scenario) -> Vec<Box<dyn Policy>> {
    let limit = scenario.deadlines.tightest();
    let callers = QueueTimeout::Callers { margin: ms(1) };
    let fixed = |queue_limit, queue_timeout, delay, preferred| -> Box<dyn Policy> {
        let max_batch = 16;
        Box::new(Fixed::new(Settings { max_batch, preferred, delay, queue_limit, queue_timeout }))
    };
    vec![
        Box::new(Off::default()),
        Box::new(Auto::new(&scenario.curve, scenario.instances)),
        Box::new(Aimd::new(64, limit)),
        fixed(None, QueueTimeout::Off, Duration::ZERO, vec![]),
        fixed(Some(20), QueueTimeout::After(limit / 2), ms(1), vec![4, 8]),
        fixed(Some(50), callers, ms(3), vec![8, 16]),
        fixed(None, callers, Duration::ZERO, vec![3]),
    ]
}

/// Everything that can go wrong at once.
fn hard() -> Scenario {
    Scenario {
        instances: 3,
        arrivals: Arrivals::Bursty { factor: 3.0, share: 0.25, burst: ms(20) },
        deadlines: Deadlines::Mix { tight: ms(4), loose: ms(15) },
        rows: Rows::Mix(vec![1, 1, 3, 20]),
        sigma: 0.3,
        ..scenario(Curve::named("rank").unwrap(), 1.5, 5000)
    }
}

#[test]
fn a_seed_repeats_exactly_and_another_differs() {
    let figures = |seed| {
        let scenario = Scenario { seed, ..hard() };
        let figures = |policy: &mut Box<dyn Policy>| {
            let measured = run(&scenario, policy.as_mut());
            format!("{measured:?}")
        };
        policies(&scenario).iter_mut().map(figures).collect::<Vec<_>>()
    };
    assert_eq!(figures(7), figures(7));
    assert!(figures(7).iter().zip(figures(8)).all(|(one, other)| *one != other));
}

#[test]
fn every_request_ends_once_under_every_policy() {
    let scenario = hard();
    let trace = scenario.trace();
    let mut ends = [0; 4];
    for policy in &mut policies(&scenario) {
        let measured = serve(&scenario, &trace, policy.as_mut()).unwrap();
        let Measured { in_time, late, refused, dropped, .. } = measured;
        assert_eq!(measured.waiting, 0);
        assert_eq!(measured.arrived, in_time + late + refused + dropped);
        assert_eq!(measured.arrived, trace.len());
        assert!(measured.utilisation() <= 1.0);
        for (sum, number) in ends.iter_mut().zip([in_time, late, refused, dropped]) {
            *sum += number;
        }
    }
    assert!(ends.iter().all(|number| *number > 0), "each end occurs: {ends:?}");
}

#[test]
fn the_mean_wait_of_m_d_1_is_the_formulas() {
    for load in [0.5, 0.8] {
        let scenario = scenario(curve(&[(1, 1000.0)]), load, 200_000);
        let measured = run(&scenario, &mut Off::default());
        let wait = measured.mean_latency().as_secs_f64() - 1e-3;
        let expected = 1e-3 * load / (2.0 * (1.0 - load));
        assert!((wait / expected - 1.0).abs() < 0.04, "load {load}: {wait} and {expected}");
    }
}

#[test]
fn half_a_load_keeps_instances_busy_half_of_the_time() {
    for instances in [1, 4, 1000] {
        let mut scenario = scenario(curve(&[(1, 1000.0)]), 0.5, 100_000);
        scenario.instances = instances;
        let measured = run(&scenario, &mut Off::default());
        let used = measured.utilisation();
        assert!((used - 0.5).abs() < 0.01, "{instances} instances: {used}");
        assert!((measured.goodput() / scenario.rate() - 1.0).abs() < 0.02);
        assert!((measured.mean_rows() - 1.0).abs() < 1e-9);
    }
}

/// Requests at these milliseconds, with a deadline far away.
fn trace(times: &[u64]) -> Vec<Request> {
    let request = |(id, at): (usize, &u64)| Request {
        id,
        rows: 1,
        came_at: ms(*at),
        deadline: ms(*at) + Deadlines::PATIENCE,
    };
    times.iter().enumerate().map(request).collect()
}

#[test]
fn fixed_waits_for_company_as_long_as_it_must_and_no_longer() {
    let scenario = scenario(curve(&[(1, 1000.0), (4, 1000.0)]), 0.5, 0);
    let settings = Settings { delay: ms(5), ..Settings::out_of_the_box(4) };
    let latencies = |times: &[u64]| {
        let policy = &mut Fixed::new(settings.clone());
        let measured = serve(&scenario, &trace(times), policy).unwrap();
        assert_eq!(measured.in_time, times.len());
        let quantile = |share| millis(measured.quantile(share).unwrap());
        (quantile(0.0), quantile(1.0), measured.runs)
    };
    // Alone: the delay and the run. Two: the younger waits less. The fourth makes it full.
    assert_eq!(latencies(&[100, 110, 120]), (6, 6, 2));
    assert_eq!(latencies(&[100, 102, 200]), (4, 6, 1));
    assert_eq!(latencies(&[100, 101, 102, 103, 200]), (1, 6, 1));
}

#[test]
fn fixed_rejects_by_its_queue_and_runs_preferred_sizes_at_once() {
    let flat = || scenario(curve(&[(1, 1000.0), (64, 1000.0)]), 0.5, 0);
    let at_once = trace(&[10; 12]);
    let limited = Settings { queue_limit: Some(7), ..Settings::out_of_the_box(4) };
    let measured = serve(&flat(), &at_once, &mut Fixed::new(limited)).unwrap();
    assert_eq!((measured.refused, measured.in_time), (5, 7));
    let timeout = QueueTimeout::After(Duration::from_micros(1500));
    let hasty = Settings { queue_timeout: timeout, ..Settings::out_of_the_box(4) };
    let measured = serve(&flat(), &at_once, &mut Fixed::new(hasty)).unwrap();
    // Runs begin after 0, 1 and 2 ms; what is left for the third has waited too long.
    assert_eq!((measured.dropped, measured.in_time), (4, 8));
    let preferred = Settings { preferred: vec![5], ..Settings::out_of_the_box(8) };
    let patient = Settings { delay: ms(50), ..preferred };
    let measured = serve(&flat(), &at_once, &mut Fixed::new(patient)).unwrap();
    // Five at once, five more, and two that wait for the delay.
    let latencies = [0.0, 0.6, 1.0].map(|share| millis(measured.quantile(share).unwrap()));
    assert_eq!(latencies, [1, 2, 51]);
}

#[test]
fn the_search_finds_what_is_known_to_be_best() {
    // Eight rows cost no more than one; nine cost more than anybody waits for.
    let cliff = curve(&[(1, 1000.0), (8, 1000.0), (9, 90_000.0), (16, 91_000.0)]);
    let deadlines = Deadlines::One(ms(10));
    let scenario = Scenario { deadlines, ..scenario(cliff, 0.95, 6000) };
    let found = search::best_fixed(&scenario, &scenario.trace()).unwrap();
    assert_eq!(found.settings.max_batch, 8);
    assert!(found.measured.goodput() > 0.93 * scenario.rate());
    assert!(found.tried > 100);
    // Where batching costs, it finds that out as well.
    let loses = Curve::named("magika").unwrap();
    let scenario = Scenario { curve: loses, load: 0.7, requests: 3000, ..scenario };
    let deadlines = Deadlines::One(scenario.curve.best_time() * 8);
    let scenario = Scenario { deadlines, ..scenario };
    let found = search::best_fixed(&scenario, &scenario.trace()).unwrap();
    assert_eq!(found.settings.max_batch, 1);
}

/// Breaks one rule.
struct Broken(fn(Duration, &mut Picked) -> Next);

impl Policy for Broken {
    fn arrive(&mut self, _: Duration, _: &Request, _: &Instances<'_>) -> Admission {
        Admission::Accepted
    }

    fn next(&mut self, now: Duration, _: &Instances<'_>, picked: &mut Picked) -> Next {
        self.0(now, picked)
    }

    fn ran(&mut self, _: u32, _: Duration) {}
}

#[test]
fn a_policy_that_breaks_the_rules_is_found_out() {
    let scenario = scenario(curve(&[(1, 1000.0)]), 0.5, 0);
    let trace = trace(&[0, 10]);
    let outcome = |broken| serve(&scenario, &trace, &mut Broken(broken)).map(|m| m.waiting);
    assert_eq!(outcome(|_, _| Next::Run), Err(Violation::EmptyRun(ms(0))));
    assert_eq!(outcome(|now, _| Next::Wait(now)), Err(Violation::Spins(ms(0))));
    // One that never runs anything forgets both.
    assert_eq!(outcome(|_, _| Next::Idle), Ok(2));
    let twice = |_: Duration, picked: &mut Picked| {
        let request = Request { id: 0, rows: 1, came_at: ms(0), deadline: ms(9) };
        picked.riders.push(request);
        Next::Run
    };
    assert_eq!(outcome(twice), Err(Violation::NotWaiting(0)));
}

#[test]
fn instances_tell_when_they_are_free_again() {
    struct Looks(Vec<(usize, usize, Option<Duration>)>, Off);
    impl Policy for Looks {
        fn arrive(&mut self, now: Duration, request: &Request, at: &Instances<'_>) -> Admission {
            assert_eq!(at.busy_until().min(), at.first_free_at());
            self.0.push((at.count(), at.free(), at.first_free_at()));
            self.1.arrive(now, request, at)
        }
        fn next(&mut self, now: Duration, at: &Instances<'_>, picked: &mut Picked) -> Next {
            self.1.next(now, at, picked)
        }
        fn ran(&mut self, rows: u32, took: Duration) {
            assert_eq!((rows, took), (1, ms(5)));
        }
    }
    let scenario = Scenario { instances: 2, ..scenario(curve(&[(1, 5000.0)]), 0.5, 0) };
    let mut looks = Looks(Vec::new(), Off::default());
    serve(&scenario, &trace(&[1, 2, 3, 9]), &mut looks).unwrap();
    let seen = [(2, 2, None), (2, 1, Some(ms(6))), (2, 0, Some(ms(6))), (2, 1, Some(ms(11)))];
    assert_eq!(looks.0, seen);
}

mod shown;
