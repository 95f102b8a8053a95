//! The requests of one model that wait for a worker: groups that may share a run, the most urgent
//! first inside a group, first in, first out among equals; the group with the most urgent request
//! first, the oldest among equals. The rest of a batch is filled with the less urgent.
//!
//! Pure: no lock, no clock, no channel. Generic over key and payload, so that tests queue integers.
//! A request can be taken out at any time by the key that `push` gave for it.

use std::collections::VecDeque;

use slab::Slab;
use tokio::time::Instant;

use super::policy::{BatchPolicy, CutReason, Decision, QueueView};
use crate::deadline::Deadline;

/// A waiting request.
#[derive(Debug)]
pub struct Entry<T> {
    /// Rows that it adds to a run.
    pub rows: usize,
    /// When it came.
    pub enqueued_at: Instant,
    /// When it is worth nothing any more.
    pub deadline: Deadline,
    /// Urgency; the lowest number goes first.
    pub priority: u64,
    /// Whatever travels with it.
    pub payload: T,
}

/// Finds a waiting request again. Never reused for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobKey {
    slot: usize,
    serial: u64,
}

/// Requests that run together.
#[derive(Debug)]
pub struct Cut<T> {
    /// The riders, the most urgent first, with the keys that they had.
    pub riders: Vec<(JobKey, Entry<T>)>,
    /// Requests that were found expired on the way; they must be answered, not run.
    pub expired: Vec<Entry<T>>,
    /// Rows of all riders.
    pub rows: usize,
    /// Why now.
    pub reason: CutReason,
}

/// All waiting requests of a model.
#[derive(Debug)]
pub struct Pending<K, T> {
    slots: Slab<Waiting<T>>,
    groups: Vec<Group<K>>,
    next_serial: u64,
    rows: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    serial: u64,
    entry: Entry<T>,
}

/// One group.
#[derive(Debug)]
struct Group<K> {
    /// `None`: each request of this group runs alone.
    key: Option<K>,
    /// The most urgent first; none is empty.
    levels: Vec<Level>,
    jobs: usize,
    rows: usize,
}

/// Requests of one urgency. `fifo` may hold keys of requests that have left; they are passed over.
#[derive(Debug)]
struct Level {
    priority: u64,
    fifo: VecDeque<JobKey>,
}

impl<K> Group<K> {
    fn push(&mut self, priority: u64, job: JobKey) {
        let found = self.levels.binary_search_by_key(&priority, |level| level.priority);
        let position = found.unwrap_or_else(|position| {
            self.levels.insert(position, Level { priority, fifo: VecDeque::new() });
            position
        });
        self.levels[position].fifo.push_back(job);
    }

    /// The key that is next, whether its request still waits or not.
    fn front(&self) -> Option<JobKey> {
        self.levels.first()?.fifo.front().copied()
    }

    fn pop_front(&mut self) {
        let Some(level) = self.levels.first_mut() else { return };
        level.fifo.pop_front();
        if level.fifo.is_empty() {
            self.levels.remove(0);
        }
    }

    fn keys(&self) -> impl Iterator<Item = &JobKey> {
        self.levels.iter().flat_map(|level| &level.fifo)
    }
}

/// Keys of departed requests that a group may hold before it is swept, beyond one per request.
const STALE_KEYS: usize = 64;

impl<K, T> Default for Pending<K, T> {
    fn default() -> Self {
        Self { slots: Slab::new(), groups: Vec::new(), next_serial: 0, rows: 0 }
    }
}

impl<K: PartialEq + Clone, T> Pending<K, T> {
    /// Requests that wait.
    pub fn jobs(&self) -> usize {
        self.slots.len()
    }

    /// Rows that wait.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a request to the group of `key`, or to those that run alone.
    pub fn push(&mut self, key: Option<&K>, entry: Entry<T>) -> JobKey {
        let serial = self.next_serial;
        self.next_serial += 1;
        let (rows, priority) = (entry.rows, entry.priority);
        let slot = self.slots.insert(Waiting { serial, entry });
        let job = JobKey { slot, serial };
        let position = self.groups.iter().position(|group| group.key.as_ref() == key);
        let position = position.unwrap_or_else(|| {
            let levels = Vec::with_capacity(1);
            self.groups.push(Group { key: key.cloned(), levels, jobs: 0, rows: 0 });
            self.groups.len() - 1
        });
        let group = &mut self.groups[position];
        group.push(priority, job);
        group.jobs += 1;
        group.rows += rows;
        self.rows += rows;
        job
    }

    /// Takes a waiting request out; `None` if it waits no more. `key` is the one it came with.
    pub fn remove(&mut self, key: Option<&K>, job: JobKey) -> Option<T> {
        let entry = self.take_slot(job)?;
        let position = self.groups.iter().position(|group| group.key.as_ref() == key)?;
        let group = &mut self.groups[position];
        group.jobs -= 1;
        group.rows -= entry.rows;
        self.tidy(position);
        Some(entry.payload)
    }

    /// What a free worker should do at `now`, over all groups.
    pub fn decide(&self, now: Instant, policy: &BatchPolicy, draining: bool) -> Decision {
        self.choose(now, policy, draining).map_or(Decision::Idle, |(_, decision)| decision)
    }

    /// Cuts the batch that [`Pending::decide`] speaks of; `None` if it is not time yet.
    pub fn cut(&mut self, now: Instant, policy: &BatchPolicy, draining: bool) -> Option<Cut<T>> {
        let (position, Decision::Cut(reason)) = self.choose(now, policy, draining)? else {
            return None;
        };
        let mut cut = Cut { riders: Vec::new(), expired: Vec::new(), rows: 0, reason };
        let alone = self.groups[position].key.is_none();
        while let Some(job) = self.groups[position].front() {
            let Some(waiting) = self.slots.get(job.slot).filter(|w| w.serial == job.serial) else {
                self.groups[position].pop_front();
                continue;
            };
            let rows = waiting.entry.rows;
            let expired = waiting.entry.deadline.is_past(now);
            let full = alone || cut.rows + rows > policy.max_rows;
            if !expired && !cut.riders.is_empty() && full {
                break;
            }
            self.groups[position].pop_front();
            let Some(entry) = self.take_slot(job) else { continue };
            self.groups[position].jobs -= 1;
            self.groups[position].rows -= rows;
            if expired {
                cut.expired.push(entry);
            } else {
                cut.rows += rows;
                cut.riders.push((job, entry));
            }
        }
        self.tidy(position);
        Some(cut)
    }

    /// Takes everything out, in no particular order.
    pub fn clear(&mut self) -> Vec<T> {
        self.groups.clear();
        self.rows = 0;
        self.slots.drain().map(|waiting| waiting.entry.payload).collect()
    }

    /// After requests have left a group: sweeps keys of the departed if there are many, and removes
    /// the group if it is empty.
    fn tidy(&mut self, position: usize) {
        let slots = &self.slots;
        let waits = |job: &JobKey| slots.get(job.slot).is_some_and(|w| w.serial == job.serial);
        let group = &mut self.groups[position];
        if group.jobs == 0 {
            self.groups.swap_remove(position);
            return;
        }
        let held: usize = group.levels.iter().map(|level| level.fifo.len()).sum();
        for level in &mut group.levels {
            if held > 2 * group.jobs + STALE_KEYS {
                level.fifo.retain(waits);
            }
            // The front must be a request that waits: its age is the level's.
            while level.fifo.front().is_some_and(|job| !waits(job)) {
                level.fifo.pop_front();
            }
        }
        group.levels.retain(|level| !level.fifo.is_empty());
    }

    fn take_slot(&mut self, job: JobKey) -> Option<Entry<T>> {
        self.slots.get(job.slot).filter(|waiting| waiting.serial == job.serial)?;
        let entry = self.slots.remove(job.slot).entry;
        self.rows -= entry.rows;
        Some(entry)
    }

    /// The group to serve and the decision for it: the most urgent of those that can be cut, the
    /// oldest among equals, else the one that can be cut first.
    fn choose(
        &self,
        now: Instant,
        policy: &BatchPolicy,
        draining: bool,
    ) -> Option<(usize, Decision)> {
        let mut best: Option<(usize, Decision, (u64, Instant))> = None;
        for (position, group) in self.groups.iter().enumerate() {
            let Some(view) = self.view(group, policy, draining) else { continue };
            let decision = policy.decide(now, &view);
            let urgency = match decision {
                Decision::Idle => continue,
                Decision::WaitUntil(instant) => (0, instant),
                Decision::Cut(_) => {
                    let priority = group.levels.first().map_or(0, |level| level.priority);
                    (priority, view.oldest_enqueued_at.unwrap_or(now))
                }
            };
            let better = match &best {
                None => true,
                Some((_, Decision::Cut(_), _)) if !matches!(decision, Decision::Cut(_)) => false,
                Some((_, Decision::WaitUntil(_), _)) if matches!(decision, Decision::Cut(_)) => {
                    true
                }
                Some((_, _, other)) => urgency < *other,
            };
            if better {
                best = Some((position, decision, urgency));
            }
        }
        best.map(|(position, decision, _)| (position, decision))
    }

    fn view(&self, group: &Group<K>, policy: &BatchPolicy, draining: bool) -> Option<QueueView> {
        let fronts =
            group.levels.iter().filter_map(|level| self.slots.get(level.fifo.front()?.slot));
        let oldest = fronts.map(|front| front.entry.enqueued_at).min()?;
        // Only a batch that may wait needs its earliest deadline, and looking for it takes a walk.
        let full = group.key.is_none() || group.rows >= policy.max_rows;
        let waits = !policy.max_queue_delay.is_zero() && !draining && !full;
        let earliest = || {
            let waiting = group
                .keys()
                .filter_map(|job| self.slots.get(job.slot).filter(|w| w.serial == job.serial));
            waiting.map(|waiting| waiting.entry.deadline).min()
        };
        Some(QueueView {
            // A request that runs alone has no company to wait for: it is a full batch.
            rows: if group.key.is_none() { policy.max_rows.max(group.rows) } else { group.rows },
            oldest_enqueued_at: Some(oldest),
            earliest_deadline: if waits { earliest() } else { None },
            draining,
        })
    }
}

#[cfg(test)]
mod tests;
