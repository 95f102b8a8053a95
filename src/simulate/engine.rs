//! The event loop: one queue, instances, virtual time.
//!
//! Time jumps to the next event: an arrival, the end of a run, or a moment that the policy asked
//! for. At each event runs end first, then requests come, then free instances are offered to the
//! policy, so that all that comes at one instant is seen together. A policy is not trusted: each
//! request must end once, and a wait must lead to the future.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use thiserror::Error;

use super::curve::Curve;
use super::dice::Dice;
use super::measured::Measured;
use super::policy::{Admission, Instances, Next, Picked, Policy, Request, Running};

/// What serves the queue.
#[derive(Debug, Clone, Copy)]
pub struct Service<'a> {
    /// Time of a run by its rows.
    pub curve: &'a Curve,
    /// Deviation of the logarithm of a run's time; 0 takes the curve as it is.
    pub sigma: f64,
    /// Seed of that noise.
    pub seed: u64,
    /// Runs that can be under way at a time.
    pub instances: usize,
    /// Shares of the trace's time where the window begins and ends.
    pub window: [f64; 2],
}

/// A policy broke the rules; its figures would mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Violation {
    /// A run without a request.
    #[error("a run without a request at {0:?}")]
    EmptyRun(Duration),
    /// A wait that would never end.
    #[error("a wait that is over when it begins, at {0:?}")]
    Spins(Duration),
    /// A request was run or dropped that does not wait.
    #[error("request {0} was run or dropped, but does not wait")]
    NotWaiting(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Coming,
    Waiting,
    Ended,
}

/// One simulation under way.
struct Simulation<'a> {
    service: Service<'a>,
    trace: &'a [Request],
    states: Vec<State>,
    running: BinaryHeap<Reverse<Running>>,
    noise: Dice,
    /// Begin and end of what is counted.
    from: Duration,
    to: Duration,
    measured: Measured,
}

/// Lets `policy` serve `trace`, which is in order of arrival and numbered from 0, until nothing
/// happens any more.
///
/// # Errors
/// [`Violation`], if the policy breaks the rules.
pub fn simulate<P: Policy + ?Sized>(
    service: Service<'_>,
    trace: &[Request],
    policy: &mut P,
) -> Result<Measured, Violation> {
    let mut simulation = Simulation::new(service, trace);
    let mut picked = Picked::default();
    let mut come = 0;
    let mut wake = None;
    loop {
        let arrival = trace.get(come).map(|request| request.came_at);
        let end = simulation.running.peek().map(|Reverse(run)| run.ends_at);
        let Some(now) = [arrival, end, wake].into_iter().flatten().min() else { break };
        while simulation.running.peek().is_some_and(|Reverse(run)| run.ends_at <= now) {
            if let Some(Reverse(run)) = simulation.running.pop() {
                policy.ran(run.rows, run.took);
            }
        }
        while let Some(request) = trace.get(come).filter(|request| request.came_at <= now) {
            let admission = policy.arrive(now, request, &simulation.instances());
            simulation.admit(request, admission);
            come += 1;
        }
        wake = None;
        while simulation.instances().free > 0 {
            let next = policy.next(now, &simulation.instances(), &mut picked);
            for request in picked.dropped.drain(..) {
                simulation.drop(request.id)?;
            }
            match next {
                Next::Run => simulation.run(now, &mut picked)?,
                Next::Idle => break,
                Next::Wait(until) if until <= now => return Err(Violation::Spins(now)),
                Next::Wait(until) => {
                    wake = Some(until);
                    break;
                }
            }
        }
    }
    Ok(simulation.finish())
}

impl<'a> Simulation<'a> {
    fn new(service: Service<'a>, trace: &'a [Request]) -> Self {
        let end = trace.last().map_or(Duration::ZERO, |request| request.came_at);
        let [from, to] = service.window.map(|share| end.mul_f64(share));
        let counted = trace.iter().filter(|request| (from..=to).contains(&request.came_at));
        let settles = counted.map(|request| request.deadline).max().is_some_and(|last| last <= end);
        Self {
            service,
            trace,
            states: vec![State::Coming; trace.len()],
            running: BinaryHeap::with_capacity(service.instances),
            noise: Dice::purpose(service.seed, 0x4015E),
            from,
            to,
            measured: Measured::new(to.saturating_sub(from), settles, service.instances),
        }
    }

    fn instances(&self) -> Instances<'_> {
        let free = self.service.instances.saturating_sub(self.running.len());
        Instances { free, running: &self.running }
    }

    fn counts(&self, request: &Request) -> bool {
        (self.from..=self.to).contains(&request.came_at)
    }

    fn admit(&mut self, request: &Request, admission: Admission) {
        let counts = self.counts(request);
        self.measured.arrived += usize::from(counts);
        self.states[request.id] = match admission {
            Admission::Accepted => State::Waiting,
            Admission::Refused => {
                self.measured.refused += usize::from(counts);
                State::Ended
            }
        };
    }

    /// The request that waits as `id` and now ends.
    fn end(&mut self, id: usize) -> Result<&'a Request, Violation> {
        match self.states.get_mut(id) {
            Some(state) if *state == State::Waiting => *state = State::Ended,
            _ => return Err(Violation::NotWaiting(id)),
        }
        Ok(&self.trace[id])
    }

    fn drop(&mut self, id: usize) -> Result<(), Violation> {
        let request = self.end(id)?;
        self.measured.dropped += usize::from(self.counts(request));
        Ok(())
    }

    fn run(&mut self, now: Duration, picked: &mut Picked) -> Result<(), Violation> {
        if picked.riders.is_empty() {
            return Err(Violation::EmptyRun(now));
        }
        let rows = picked.riders.iter().map(|request| request.rows).sum();
        let expected = self.service.curve.time(rows);
        let took = match self.service.sigma {
            sigma if sigma > 0.0 => expected.mul_f64(self.noise.lognormal(sigma)),
            _ => expected,
        };
        let ends_at = now + took;
        for rider in picked.riders.drain(..) {
            let request = self.end(rider.id)?;
            let in_time = !request.is_expired(ends_at);
            self.measured.ready +=
                usize::from(in_time && ends_at >= self.from && ends_at < self.to);
            if !self.counts(request) {
                continue;
            }
            if in_time {
                self.measured.answered(ends_at.saturating_sub(request.came_at));
            } else {
                self.measured.late += 1;
            }
        }
        if now >= self.from && now < self.to {
            self.measured.runs += 1;
            self.measured.rows += u64::from(rows);
        }
        self.measured.busy += ends_at.min(self.to).saturating_sub(now.max(self.from));
        let expected_at = now + expected;
        self.running.push(Reverse(Running { ends_at, expected_at, rows, took }));
        Ok(())
    }

    fn finish(mut self) -> Measured {
        let waits = |request: &&Request| self.states[request.id] == State::Waiting;
        let left = self.trace.iter().filter(waits);
        self.measured.waiting = left.filter(|request| self.counts(request)).count();
        self.measured
    }
}
