//! Requests that may share a run, in the order in which they go: the most urgent level first; inside
//! it the callers in the lowest round; among those the earliest deadline.
//!
//! Each caller's requests lie in one list by deadline, and a list per level says which caller's first
//! is next, so that a request comes and goes in a few steps however many wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::shares::Shares;
use crate::deadline::Deadline;

/// Where a request lies in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) priority: u64,
    pub(super) tenant: u64,
    pub(super) deadline: Deadline,
    pub(super) serial: u64,
    pub(super) slot: usize,
    /// Time of an instance that it takes, in nanoseconds.
    pub(super) work: u64,
}

/// How soon a group's first request is due for a turn; the lowest goes first: level, round,
/// deadline, age.
pub(super) type Urgency = (u64, u64, Deadline, u64);

/// One group.
#[derive(Debug)]
pub(super) struct Group<K> {
    /// `None`: each request of this group runs alone.
    pub(super) key: Option<K>,
    /// The most urgent first; none is empty.
    levels: Vec<Level>,
    pub(super) jobs: usize,
    pub(super) rows: usize,
    /// Length of the first request; others may differ if `mixed`.
    pub(super) length: usize,
    pub(super) mixed: bool,
}

/// Requests of one urgency.
#[derive(Debug, Default)]
struct Level {
    priority: u64,
    callers: BTreeMap<u64, Queue>,
    /// Who goes first: round, deadline and number of each caller's first request, and the caller.
    /// Rounds only rise; one that has risen since is put right when it is looked at.
    order: BTreeSet<(u64, Deadline, u64, u64)>,
    work: u64,
}

/// Requests of one caller, by deadline.
#[derive(Debug, Default)]
struct Queue {
    places: VecDeque<Place>,
    /// How it is listed in the level's order.
    listed: Option<(u64, Deadline, u64, u64)>,
    work: u64,
}

impl<K> Group<K> {
    pub(super) fn new(key: Option<K>, length: usize) -> Self {
        Self { key, levels: Vec::with_capacity(1), jobs: 0, rows: 0, length, mixed: false }
    }

    pub(super) fn push(&mut self, place: Place, round: u64) {
        let found = self.levels.binary_search_by_key(&place.priority, |level| level.priority);
        let position = found.unwrap_or_else(|position| {
            self.levels.insert(position, Level { priority: place.priority, ..Level::default() });
            position
        });
        let level = &mut self.levels[position];
        level.work += place.work;
        let queue = level.callers.entry(place.tenant).or_default();
        queue.work += place.work;
        let at = queue.find(&place).unwrap_or_else(|at| at);
        queue.places.insert(at, place);
        if at == 0 {
            queue.list(round, &mut level.order);
        }
        self.jobs += 1;
    }

    pub(super) fn remove(&mut self, place: &Place, round: u64) {
        let found = self.levels.binary_search_by_key(&place.priority, |level| level.priority);
        let Ok(position) = found else { return };
        let level = &mut self.levels[position];
        let Some(queue) = level.callers.get_mut(&place.tenant) else { return };
        let Ok(at) = queue.find(place) else { return };
        queue.places.remove(at);
        queue.work -= place.work;
        level.work -= place.work;
        self.jobs -= 1;
        if at == 0 {
            queue.list(round, &mut level.order);
        }
        if queue.places.is_empty() {
            level.callers.remove(&place.tenant);
        }
        if level.callers.is_empty() {
            self.levels.remove(position);
        }
    }

    /// The request that goes first, and how soon.
    pub(super) fn first(&mut self, shares: &Shares) -> Option<(Urgency, Place)> {
        let level = self.levels.first_mut()?;
        loop {
            let (listed, _, _, tenant) = *level.order.first()?;
            let queue = level.callers.get_mut(&tenant)?;
            let round = shares.round(tenant);
            if listed == round {
                let place = *queue.places.front()?;
                return Some(((level.priority, round, place.deadline, place.serial), place));
            }
            queue.list(round, &mut level.order);
        }
    }

    /// The priority of the most urgent level, and the earliest deadline in it.
    pub(super) fn first_level(&self) -> Option<(u64, Deadline)> {
        let level = self.levels.first()?;
        let firsts = level.callers.values().filter_map(|queue| queue.places.front());
        Some((level.priority, firsts.map(|place| place.deadline).min()?))
    }

    /// All requests, level by level.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        let callers = self.levels.iter().flat_map(|level| level.callers.values());
        callers.flat_map(|queue| &queue.places)
    }

    /// Time of an instance, in nanoseconds, that all requests take.
    pub(super) fn work(&self) -> u64 {
        self.levels.iter().map(|level| level.work).sum()
    }

    /// Time of an instance, in nanoseconds, that goes before a request of `tenant` that takes `own`:
    /// all that is more urgent, its own caller's earlier deadlines, and of each other caller as much
    /// as it has itself.
    pub(super) fn ahead(&self, priority: u64, tenant: u64, deadline: Deadline, own: u64) -> u64 {
        let mut ahead = 0;
        for level in self.levels.iter().take_while(|level| level.priority <= priority) {
            if level.priority < priority {
                ahead += level.work;
                continue;
            }
            let before = level.callers.get(&tenant).map_or(0, |queue| queue.before(deadline));
            let others = level.callers.iter().filter(|(other, _)| **other != tenant);
            let theirs = others.map(|(_, queue)| queue.work.min(before + own)).sum::<u64>();
            ahead += before + theirs;
        }
        ahead
    }

    /// The request that should give up its place for one of `tenant` and `priority`: the last one of
    /// the least urgent level, of whoever has most there; `None` if the newcomer has no better right.
    pub(super) fn least_entitled(&self, priority: u64, tenant: u64, jobs: usize) -> Option<Place> {
        let level = self.levels.last().filter(|level| level.priority >= priority)?;
        let (greedy, queue) = level.callers.iter().max_by_key(|(_, queue)| queue.places.len())?;
        let unfair = *greedy != tenant && queue.places.len() > jobs + 1;
        (level.priority > priority || unfair).then(|| queue.places.back().copied()).flatten()
    }
}

impl Queue {
    fn find(&self, place: &Place) -> Result<usize, usize> {
        let wanted = (place.deadline, place.serial);
        // Most requests have the latest deadline of those that wait.
        match self.places.back() {
            Some(last) if (last.deadline, last.serial) < wanted => Err(self.places.len()),
            _ => self.places.binary_search_by_key(&wanted, |other| (other.deadline, other.serial)),
        }
    }

    /// Lists its first request under `round`, and no other.
    fn list(&mut self, round: u64, order: &mut BTreeSet<(u64, Deadline, u64, u64)>) {
        if let Some(listed) = self.listed.take() {
            order.remove(&listed);
        }
        if let Some(first) = self.places.front() {
            let listed = (round, first.deadline, first.serial, first.tenant);
            order.insert(listed);
            self.listed = Some(listed);
        }
    }

    /// Work with a deadline that is not later than `deadline`.
    fn before(&self, deadline: Deadline) -> u64 {
        let later = self.places.iter().rev().take_while(|place| place.deadline > deadline);
        self.work - later.map(|place| place.work).sum::<u64>()
    }
}
