//! The requests of one model that wait for a worker, in groups that may share a run. The most urgent
//! group goes first, and in it the most urgent requests; the rest of a batch is filled with the less
//! urgent ([`group`] has the order).
//!
//! Pure: no lock, no clock, no channel. Generic over key and payload, so that tests and the simulator
//! queue integers. A request can be taken out at any time by the key that `push` gave for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

use super::policy::{CutReason, Decision, Moment, QueueView};
use crate::deadline::Deadline;

mod cut;
mod group;
mod shares;

use group::{Group, Place, Urgency};
use shares::Shares;

/// A waiting request.
#[derive(Debug)]
pub struct Entry<T> {
    /// Rows that it adds to a run.
    pub rows: usize,
    /// Its length, as costs are known by ([`crate::cost`]).
    pub length: usize,
    /// When it came.
    pub enqueued_at: Instant,
    /// When it is worth nothing any more.
    pub deadline: Deadline,
    /// Urgency; the lowest number goes first.
    pub priority: u64,
    /// Whose it is; callers of one level share the instances fairly.
    pub tenant: u64,
    /// Time of an instance that it takes, at best.
    pub work: Duration,
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
    /// Requests that could not have been answered in time any more, with the time that they would
    /// have needed; not run either.
    pub hopeless: Vec<(Entry<T>, Duration)>,
    /// Rows of all riders.
    pub rows: usize,
    /// Length of the longest rider.
    pub length: usize,
    /// Why now.
    pub reason: CutReason,
}

/// All waiting requests of a model.
#[derive(Debug)]
pub struct Pending<K, T> {
    slots: Slab<Waiting<T>>,
    groups: Slab<Group<K>>,
    by_key: HashMap<Option<K>, usize>,
    shares: Shares,
    next_serial: u64,
    rows: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    serial: u64,
    group: usize,
    entry: Entry<T>,
}

impl<K, T> Default for Pending<K, T> {
    fn default() -> Self {
        Self {
            slots: Slab::new(),
            groups: Slab::new(),
            by_key: HashMap::new(),
            shares: Shares::default(),
            next_serial: 0,
            rows: 0,
        }
    }
}

impl<K: Hash + Eq + Clone, T> Pending<K, T> {
    /// Requests that wait.
    pub fn jobs(&self) -> usize {
        self.slots.len()
    }

    /// Rows that wait.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a request to the group of `key`, or to those that run alone.
    pub fn push(&mut self, key: Option<K>, entry: Entry<T>) -> JobKey {
        let serial = self.next_serial;
        self.next_serial += 1;
        let group = self.by_key.get(&key).copied().unwrap_or_else(|| {
            let group = self.groups.insert(Group::new(key.clone(), entry.length));
            self.by_key.insert(key, group);
            group
        });
        self.shares.enter(entry.tenant);
        self.rows += entry.rows;
        let (rows, length, tenant) = (entry.rows, entry.length, entry.tenant);
        let slot = self.slots.insert(Waiting { serial, group, entry });
        let place = self.place(slot);
        let round = self.shares.round(tenant);
        let group = &mut self.groups[group];
        group.push(place, round);
        group.rows += rows;
        group.mixed |= group.length != length;
        JobKey { slot, serial }
    }

    /// Takes a waiting request out; `None` if it waits no more.
    pub fn remove(&mut self, job: JobKey) -> Option<T> {
        self.take(job).map(|entry| entry.payload)
    }

    /// Makes room for a request of `tenant` and `priority` in a queue that is full: takes out the
    /// last of those who have least right to their place, if anybody has less than the newcomer.
    pub fn displace(&mut self, priority: u64, tenant: u64) -> Option<T> {
        let jobs = self.shares.jobs(tenant);
        let candidates = self.groups.iter();
        let candidates =
            candidates.filter_map(|(_, group)| group.least_entitled(priority, tenant, jobs));
        let place = candidates.max_by_key(|place| (place.priority, place.deadline))?;
        self.take(JobKey { slot: place.slot, serial: place.serial }).map(|entry| entry.payload)
    }

    /// Time of instances that all of it takes.
    pub fn work(&self) -> Duration {
        self.groups.iter().map(|(_, group)| Duration::from_nanos(group.work())).sum()
    }

    /// Time of instances that goes before a request as described, which takes `own` itself.
    pub fn ahead(&self, priority: u64, tenant: u64, deadline: Deadline, own: Duration) -> Duration {
        let own = nanos(own);
        let groups = self.groups.iter();
        let ahead = groups.map(|(_, group)| group.ahead(priority, tenant, deadline, own));
        Duration::from_nanos(ahead.sum())
    }

    /// What a free worker should do, over all groups.
    pub fn decide(&mut self, moment: &Moment<'_>) -> Decision {
        self.choose(moment).map_or(Decision::Idle, |(_, decision)| decision)
    }

    /// Cuts the batch that [`Pending::decide`] speaks of; `None` if it is not time yet.
    pub fn cut(&mut self, moment: &Moment<'_>) -> Option<Cut<T>> {
        let (group, Decision::Cut(reason)) = self.choose(moment)? else {
            return None;
        };
        let (riders, expired, hopeless) = (Vec::new(), Vec::new(), Vec::new());
        let mut cut = Cut { riders, expired, hopeless, rows: 0, length: 0, reason };
        self.fill(group, moment, &mut cut);
        Some(cut)
    }

    /// Takes everything out, in no particular order.
    pub fn clear(&mut self) -> Vec<T> {
        self.groups.clear();
        self.by_key.clear();
        self.shares.clear();
        self.rows = 0;
        self.slots.drain().map(|waiting| waiting.entry.payload).collect()
    }

    fn place(&self, slot: usize) -> Place {
        let Waiting { serial, entry, .. } = &self.slots[slot];
        Place {
            priority: entry.priority,
            tenant: entry.tenant,
            deadline: entry.deadline,
            serial: *serial,
            slot,
            work: nanos(entry.work),
        }
    }

    fn take(&mut self, job: JobKey) -> Option<Entry<T>> {
        self.slots.get(job.slot).filter(|waiting| waiting.serial == job.serial)?;
        let place = self.place(job.slot);
        let Waiting { group: position, entry, .. } = self.slots.remove(job.slot);
        self.rows -= entry.rows;
        let round = self.shares.round(entry.tenant);
        self.shares.leave(entry.tenant);
        let group = &mut self.groups[position];
        group.remove(&place, round);
        group.rows -= entry.rows;
        if group.jobs == 0 {
            let group = self.groups.remove(position);
            self.by_key.remove(&group.key);
        }
        Some(entry)
    }

    /// The group to serve and the decision for it: the most urgent of those that can be cut, else the
    /// one that can be cut first.
    fn choose(&mut self, moment: &Moment<'_>) -> Option<(usize, Decision)> {
        let mut ready: Option<(Urgency, usize, Decision)> = None;
        let mut later: Option<(Instant, usize)> = None;
        let Self { slots, groups, shares, .. } = self;
        for (position, group) in groups.iter_mut() {
            let Some((urgency, first)) = group.first(shares) else {
                continue;
            };
            let view = view(group, slots, &first, moment);
            match moment.policy.decide(moment.now, &view) {
                Decision::Idle => {}
                Decision::WaitUntil(instant) => {
                    if later.is_none_or(|(other, _)| instant < other) {
                        later = Some((instant, position));
                    }
                }
                decision @ Decision::Cut(_) => {
                    if ready.is_none_or(|(other, ..)| urgency < other) {
                        ready = Some((urgency, position, decision));
                    }
                }
            }
        }
        let waits = later.map(|(instant, position)| (position, Decision::WaitUntil(instant)));
        ready.map(|(_, position, decision)| (position, decision)).or(waits)
    }
}

fn view<K, T>(
    group: &Group<K>,
    slots: &Slab<Waiting<T>>,
    first: &Place,
    moment: &Moment<'_>,
) -> QueueView {
    let policy = moment.policy;
    let alone = group.key.is_none();
    // A request that runs alone has no company to wait for: it is a full batch.
    let rows = if alone { policy.max_rows.max(group.rows) } else { group.rows };
    // Only a batch that may wait needs its oldest request and its earliest deadline, and looking for
    // them takes a walk.
    let waits = !policy.max_queue_delay.is_zero() && !moment.draining && rows < policy.max_rows;
    let first_came_at = slots[first.slot].entry.enqueued_at;
    let (oldest, earliest) = if waits {
        let oldest = group.places().map(|place| slots[place.slot].entry.enqueued_at).min();
        (oldest.unwrap_or(first_came_at), group.places().map(|place| place.deadline).min())
    } else {
        (first_came_at, None)
    };
    QueueView {
        rows,
        oldest_enqueued_at: Some(oldest),
        earliest_deadline: earliest,
        draining: moment.draining,
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
