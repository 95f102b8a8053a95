//! Places of those who have just come, and who gives way when all are taken.
//!
//! Whoever opens many connections and says nothing must not keep others out. So a newcomer who finds
//! every place taken gets that of the one who has said too little for the longest time, if that is long
//! enough for an honest peer to have gone on. One who has gone on keeps the place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

/// Who has been silent for less does not give way: networks take this long, and in a rush of honest
/// peers nobody would come to an end if each had to make room for the next.
const LEAST_PATIENCE: Duration = Duration::from_millis(500);

/// Places, and who of those who hold them has not gone on yet. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Arrivals {
    places: Arc<Semaphore>,
    waiting: Arc<Mutex<Waiting>>,
}

/// By when they came.
#[derive(Debug, Default)]
struct Waiting {
    came: u64,
    silent: BTreeMap<u64, Silent>,
}

#[derive(Debug)]
struct Silent {
    since: Instant,
    place: OwnedSemaphorePermit,
    /// Dropping it tells that the place is gone.
    _told: oneshot::Sender<()>,
}

/// One who has come and not gone on yet. Dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Arrival {
    number: u64,
    waiting: Arc<Mutex<Waiting>>,
    told: oneshot::Receiver<()>,
}

impl Arrivals {
    /// So many places, all free.
    pub(super) fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), waiting: Arc::default() }
    }

    /// Takes a place; `None` if all are taken by those who keep them.
    pub(super) fn enter(&self) -> Option<Arrival> {
        let (mut waiting, since) = (lock(&self.waiting), Instant::now());
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => waiting.give_way(since)?,
        };
        waiting.came += 1;
        let number = waiting.came;
        let (sender, told) = oneshot::channel();
        waiting.silent.insert(number, Silent { since, place, _told: sender });
        Some(Arrival { number, waiting: Arc::clone(&self.waiting), told })
    }
}

impl Waiting {
    fn give_way(&mut self, now: Instant) -> Option<OwnedSemaphorePermit> {
        let oldest = self.silent.first_entry()?;
        let waited = now.saturating_duration_since(oldest.get().since);
        (waited >= LEAST_PATIENCE).then(|| oldest.remove().place)
    }
}

impl Arrival {
    /// Done when somebody else got the place.
    pub(super) async fn gave_way(&mut self) {
        drop((&mut self.told).await);
    }

    /// Goes on: the place is kept from now on; `None` if somebody else has got it.
    pub(super) fn go_on(self) -> Option<OwnedSemaphorePermit> {
        Some(lock(&self.waiting).silent.remove(&self.number)?.place)
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        lock(&self.waiting).silent.remove(&self.number);
    }
}

/// Nothing that is done under the lock can leave it half done.
fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_silent_gives_way_once_it_was_waited_for() {
        let arrivals = Arrivals::new(2);
        let mut first = arrivals.enter().unwrap();
        advance(LEAST_PATIENCE / 2).await;
        let mut second = arrivals.enter().unwrap();
        assert!(arrivals.enter().is_none(), "both have just come");
        advance(LEAST_PATIENCE / 2).await;
        let third = arrivals.enter().unwrap();
        assert!(first.gave_way().now_or_never().is_some() && first.go_on().is_none());
        assert!(second.gave_way().now_or_never().is_none());
        assert!(arrivals.enter().is_none(), "the second came half of the time ago");
        let places = (second.go_on().unwrap(), third.go_on().unwrap());
        advance(LEAST_PATIENCE).await;
        assert!(arrivals.enter().is_none(), "whoever has gone on keeps the place");
        drop(places);
        assert_eq!(arrivals.places.available_permits(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_gives_the_place_back() {
        let arrivals = Arrivals::new(1);
        drop(arrivals.enter().unwrap());
        let silent = arrivals.enter().unwrap();
        advance(LEAST_PATIENCE).await;
        let newcomer = arrivals.enter().unwrap();
        // The place that was lost is not given back twice.
        drop(silent);
        assert_eq!(arrivals.places.available_permits(), 0);
        drop(newcomer);
        assert_eq!(arrivals.places.available_permits(), 1);
    }
}
