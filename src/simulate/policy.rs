//! What decides: which requests are taken, which run together, and when.
//!
//! A policy owns the requests that wait. It is told what comes and what ran, and asked what to do
//! whenever an instance is free; it never learns more than a server would know. Implementations
//! are in files of their own: [`off`], [`fixed`], [`aimd`] and [`auto`]. The event loop of
//! [`super::engine`] asks, and checks that each request ends once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

pub mod aimd;
pub mod auto;
pub mod fixed;
pub mod off;

/// One request of a trace. Moments count from the trace's begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Its place in the trace.
    pub id: usize,
    /// Rows that it adds to a run.
    pub rows: u32,
    /// When it comes.
    pub came_at: Duration,
    /// From then on its answer is worth nothing.
    pub deadline: Duration,
}

impl Request {
    /// Whether nobody waits for it any more at `now`; the instant itself counts as past.
    pub fn is_expired(&self, now: Duration) -> bool {
        self.deadline <= now
    }
}

/// What became of a request at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It waits now.
    Accepted,
    /// It was turned away.
    Refused,
}

/// What a free instance should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Run the requests in [`Picked::riders`].
    Run,
    /// Ask again then, or when something happens.
    Wait(Duration),
    /// There is nothing to run.
    Idle,
}

/// Where a policy puts what it picked; empty when it is asked.
#[derive(Debug, Default)]
pub struct Picked {
    /// Requests that run together now.
    pub riders: Vec<Request>,
    /// Requests that were given up: answered with an error, never run.
    pub dropped: Vec<Request>,
}

/// A run under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Running {
    /// When it ends; first, because runs are ordered by it.
    pub(super) ends_at: Duration,
    /// When it would end if it took what such a run takes on average.
    pub(super) expected_at: Duration,
    pub(super) rows: u32,
    pub(super) took: Duration,
}

/// The instances, as a policy may see them.
#[derive(Debug, Clone, Copy)]
pub struct Instances<'a> {
    pub(super) free: usize,
    pub(super) running: &'a BinaryHeap<Reverse<Running>>,
}

impl Instances<'_> {
    /// How many are free.
    pub fn free(&self) -> usize {
        self.free
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.free + self.running.len()
    }

    /// When the first of the busy ones is expected to be free; `None` if none is busy. With noise
    /// this is an estimate, as a server has it, and may have passed.
    pub fn first_free_at(&self) -> Option<Duration> {
        self.running.peek().map(|Reverse(run)| run.expected_at)
    }

    /// When each of the busy ones is expected to be free, in no particular order.
    pub fn busy_until(&self) -> impl Iterator<Item = Duration> {
        self.running.iter().map(|Reverse(run)| run.expected_at)
    }
}

/// Decides for one queue.
pub trait Policy {
    /// A request comes. It waits if it is accepted.
    fn arrive(&mut self, now: Duration, request: &Request, instances: &Instances<'_>) -> Admission;

    /// What a free instance should do. Asked again after each run until it is not
    /// [`Next::Run`] or no instance is free; what is dropped counts whatever is returned.
    fn next(&mut self, now: Duration, instances: &Instances<'_>, picked: &mut Picked) -> Next;

    /// A run of `rows` rows ended; it took `took`.
    fn ran(&mut self, rows: u32, took: Duration);
}
