//! One situation: a curve, instances, and what comes.

use std::time::Duration;

use super::arrivals::{Arrivals, Deadlines, Rows};
use super::curve::Curve;
use super::dice::Dice;
use super::engine::{Service, Violation, simulate};
use super::measured::Measured;
use super::policy::{Policy, Request};

/// A situation in which policies are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Time of a run by its rows.
    pub curve: Curve,
    /// Runs that can be under way at a time.
    pub instances: usize,
    /// How requests come.
    pub arrivals: Arrivals,
    /// Share of the most rows a second that the instances can do.
    pub load: f64,
    /// How long callers wait.
    pub deadlines: Deadlines,
    /// What the deadlines are called in tables.
    pub deadlines_label: &'static str,
    /// How many rows a request has.
    pub rows: Rows,
    /// How many requests come.
    pub requests: usize,
    /// Deviation of the logarithm of a run's time.
    pub sigma: f64,
    /// Repeats all of it.
    pub seed: u64,
}

/// Shares of a trace's time where the window begins and ends.
const WINDOW: [f64; 2] = [0.15, 0.9];

impl Scenario {
    /// Requests a second, on average.
    pub fn rate(&self) -> f64 {
        self.load * self.curve.capacity(self.instances) / self.rows.mean()
    }

    /// The requests, in order.
    pub fn trace(&self) -> Vec<Request> {
        let mut dice = Dice::purpose(self.seed, 1);
        let (mut limits, mut rows) = (Dice::purpose(self.seed, 2), Dice::purpose(self.seed, 3));
        let times = self.arrivals.times(self.rate(), self.requests, &mut dice);
        let request = |(id, came_at): (usize, Duration)| Request {
            id,
            rows: self.rows.draw(&mut rows),
            came_at,
            deadline: came_at + self.deadlines.draw(&mut limits),
        };
        times.into_iter().enumerate().map(request).collect()
    }

    /// Lets a policy serve a trace, or the first part of one.
    ///
    /// # Errors
    /// [`Violation`], if the policy breaks the rules.
    pub fn run(
        &self,
        trace: &[Request],
        policy: &mut (impl Policy + ?Sized),
    ) -> Result<Measured, Violation> {
        let service = Service {
            curve: &self.curve,
            sigma: self.sigma,
            seed: self.seed,
            instances: self.instances,
            window: WINDOW,
        };
        simulate(service, trace, policy)
    }
}
