//! Who rides: fills one batch from one group.
//!
//! Requests of one length go in order, as many as the size that [`Moment::target`] names and as let
//! the tightest of them be in time. Among mixed lengths the most urgent request chooses the company:
//! those nearest to its length, as many as get the most work done in the time of the run.

use std::hash::Hash;
use std::time::Duration;

use super::{Cut, Entry, JobKey, Pending, Place};
use crate::batcher::policy::{Moment, count};
use crate::deadline::Deadline;

/// Riders of mixed lengths, as numbers.
#[derive(Debug, Clone, Copy)]
struct Company {
    rows: usize,
    /// Of the longest.
    length: usize,
    /// Deadline of the tightest.
    due: Deadline,
    /// Seconds that all would take in runs of their own length that are as large as pays.
    work: f64,
}

impl Company {
    fn with<T>(self, entry: &Entry<T>) -> Self {
        Self {
            rows: self.rows + entry.rows,
            length: self.length.max(entry.length),
            due: self.due.min(entry.deadline),
            work: self.work + entry.work.as_secs_f64(),
        }
    }

    /// Work done in each second of their run. Padding lowers it, and so does a run that is too small.
    fn yields(&self, moment: &Moment<'_>) -> f64 {
        let took = moment.costs.expect(self.rows, self.length).as_secs_f64();
        self.work / took.max(f64::MIN_POSITIVE)
    }
}

/// A rider that lowers what a run yields to less than this share of the best so far is left out; one
/// that lowers it less may be the first of several that raise it, as sizes of machine code are not
/// smooth.
const WORTH_TRYING: f64 = 0.9;
/// Candidates in a row that do not fit before the search ends.
const MISSES: usize = 16;

/// What happens to one request.
enum Fate {
    Rides,
    Expired,
    /// It would have needed this much time.
    Hopeless(Duration),
    Stays,
}

impl<K: Hash + Eq + Clone, T> Pending<K, T> {
    /// Fills `cut` from the group at `position`. Takes at least one request out.
    pub(super) fn fill(&mut self, position: usize, moment: &Moment<'_>, cut: &mut Cut<T>) {
        let alone = self.groups[position].key.is_none();
        let worth_keeping = self.worth_keeping(position, moment);
        let mut target = usize::MAX;
        let mut due = None;
        while let Some(place) = self.first_of(position) {
            let entry = &self.slots[place.slot].entry;
            let tightest = due.map_or(place.deadline, |due: Deadline| due.min(place.deadline));
            let rows = cut.rows + entry.rows;
            let others = !cut.riders.is_empty() || self.slots.len() > 1;
            let needed = moment.needed(entry.rows, entry.length, others);
            let fate = if place.deadline.is_past(moment.now) {
                Fate::Expired
            } else if worth_keeping.is_some_and(|earliest| place.deadline < earliest) {
                Fate::Hopeless(moment.full_run(self.groups[position].length))
            } else if place.deadline.remaining(moment.now) < needed {
                Fate::Hopeless(needed)
            } else if cut.riders.is_empty() {
                Fate::Rides
            } else if alone || rows > target || !moment.in_time(rows, cut.length, tightest) {
                Fate::Stays
            } else {
                Fate::Rides
            };
            match fate {
                Fate::Stays => break,
                Fate::Expired => cut.expired.extend(self.take_out(&place)),
                Fate::Hopeless(needed) => {
                    cut.hopeless.extend(self.take_out(&place).map(|entry| (entry, needed)));
                }
                Fate::Rides => {
                    due = Some(tightest);
                    let first = cut.riders.is_empty();
                    self.ride(&place, moment, cut);
                    let Some(group) = self.groups.get(position).filter(|_| first && !alone) else {
                        continue;
                    };
                    if group.mixed {
                        return self.fill_mixed(position, moment, cut);
                    }
                    target = moment.target(group.rows + cut.rows, cut.length, tightest);
                }
            }
        }
    }

    /// The earliest deadline that is kept where more waits than one run takes.
    ///
    /// A tight deadline allows only a small run. The time that this wastes, counted in rows that
    /// could have been done in it, is held against the requests that are lost if the batch is cut
    /// without those that are so tight.
    fn worth_keeping(&self, position: usize, moment: &Moment<'_>) -> Option<Deadline> {
        let group = &self.groups[position];
        let length = group.length;
        let full = moment.full_rows(length);
        let crowded = moment.policy.measured && group.rows > full && group.key.is_some();
        if !crowded || group.mixed || moment.costs.is_empty() {
            return None;
        }
        let (level, earliest) = group.first_level()?;
        if moment.in_time(full, length, earliest) {
            return None;
        }
        let mut places: Vec<&Place> = group.places().filter(|it| it.priority == level).collect();
        places.sort_by_key(|place| (place.deadline, place.serial));
        let (mut skipped, mut best): (usize, Option<(f64, Deadline)>) = (0, None);
        for place in places {
            if place.deadline.is_past(moment.now) {
                continue;
            }
            // In overload somebody is lost anyway, and whoever it is, the others ride instead.
            let lost = if moment.overloaded { 0 } else { skipped };
            let unfilled = (full + skipped).saturating_sub(group.rows);
            let lost = count(lost + unfilled);
            if best.is_some_and(|(cost, _)| lost >= cost) {
                break;
            }
            let cost = lost + moment.wasted_rows(full, length, place.deadline);
            if best.is_none_or(|(other, _)| cost < other) {
                best = Some((cost, place.deadline));
            }
            skipped += self.slots[place.slot].entry.rows;
        }
        best.map(|(_, earliest)| earliest)
    }

    /// The first request of the group, which may be gone with its last request.
    fn first_of(&mut self, position: usize) -> Option<Place> {
        let group = self.groups.get_mut(position)?;
        group.first(&self.shares).map(|(_, place)| place)
    }

    /// Adds company to the one rider of `cut`, of a group with mixed lengths: those nearest to its
    /// length, as many as make the most of the run's time.
    fn fill_mixed(&mut self, position: usize, moment: &Moment<'_>, cut: &mut Cut<T>) {
        let Some((_, first)) = cut.riders.first() else { return };
        let (wanted, measured) = (cut.length, moment.policy.measured);
        let mut company = Company {
            rows: cut.rows,
            length: cut.length,
            due: first.deadline,
            work: first.work.as_secs_f64(),
        };
        let mut candidates: Vec<Place> = self.groups[position].places().copied().collect();
        let away = |place: &Place| self.slots[place.slot].entry.length.abs_diff(wanted);
        candidates.sort_by_key(|place| (away(place), place.deadline, place.serial));
        let (mut chosen, mut misses) = (Vec::new(), 0);
        let (mut best, mut best_count) = (company.yields(moment), 0);
        for place in candidates {
            let joined = company.with(&self.slots[place.slot].entry);
            let yields = joined.yields(moment);
            let fits = joined.rows <= moment.reach(joined.length)
                && !place.deadline.is_past(moment.now)
                && (!measured || yields >= best * WORTH_TRYING)
                && moment.in_time(joined.rows, joined.length, joined.due);
            if !fits {
                misses += 1;
                if misses == MISSES {
                    break;
                }
                continue;
            }
            (company, misses) = (joined, 0);
            chosen.push(place);
            if !measured || yields > best {
                (best, best_count) = (yields, chosen.len());
            }
        }
        for place in &chosen[..best_count] {
            self.ride(place, moment, cut);
        }
    }

    fn ride(&mut self, place: &Place, moment: &Moment<'_>, cut: &mut Cut<T>) {
        let Entry { rows, length, .. } = self.slots[place.slot].entry;
        self.shares.serve(place.tenant, rows, moment.full_rows(length));
        if let Some(entry) = self.take_out(place) {
            cut.rows += entry.rows;
            cut.length = cut.length.max(entry.length);
            cut.riders.push((JobKey { slot: place.slot, serial: place.serial }, entry));
        }
    }

    fn take_out(&mut self, place: &Place) -> Option<Entry<T>> {
        let job = JobKey { slot: place.slot, serial: place.serial };
        self.take(job)
    }
}
