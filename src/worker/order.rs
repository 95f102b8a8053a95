//! Lets answers out in the order in which their batches were cut, where a model asks for it
//! (`preserve_ordering`): with several instances a later batch may be done first.
//!
//! Answers of a batch wait until every earlier batch is over. What waits is bounded by the instances.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::job::{Answer, Reply};

/// Holds answers back until it is their turn.
#[derive(Debug, Default)]
pub(crate) struct InOrder {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The batch whose answers may go out now.
    turn: u64,
    held: BTreeMap<u64, Held>,
}

#[derive(Debug, Default)]
struct Held {
    answers: Vec<(Reply, Answer)>,
    over: bool,
}

impl InOrder {
    /// Takes answers of a batch; returns those that may go out now.
    pub(super) fn pass(&self, batch: u64, answers: Vec<(Reply, Answer)>) -> Vec<(Reply, Answer)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if batch == state.turn {
            return answers;
        }
        state.held.entry(batch).or_default().answers.extend(answers);
        Vec::new()
    }

    /// A batch is over: all its answers were passed. Returns those that may go out now.
    pub(super) fn over(&self, batch: u64) -> Vec<(Reply, Answer)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.held.entry(batch).or_default().over = true;
        let mut free = Vec::new();
        loop {
            let turn = state.turn;
            let Some(held) = state.held.get_mut(&turn) else { return free };
            free.append(&mut held.answers);
            if !held.over {
                return free;
            }
            state.held.remove(&turn);
            state.turn += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::PredictError;

    /// Answers as short errors, told apart by the shutdown's opposite.
    fn answers(count: usize) -> Vec<(Reply, Answer)> {
        (0..count).map(|_| (Reply::channel().0, Err(PredictError::ShuttingDown))).collect()
    }

    #[test]
    fn later_batches_wait_for_earlier_ones() {
        let order = InOrder::default();
        assert_eq!(order.pass(1, answers(2)).len(), 0, "batch 0 is not over");
        assert_eq!(order.over(1).len(), 0);
        assert_eq!(order.pass(2, answers(3)).len(), 0);
        assert_eq!(order.pass(0, answers(4)).len(), 4, "it is its turn");
        assert_eq!(order.over(0).len(), 2 + 3, "1 is over, 2 may speak");
        assert_eq!(order.pass(2, answers(1)).len(), 1);
        assert_eq!(order.over(2).len(), 0);
        assert_eq!(order.pass(3, answers(1)).len(), 1);
    }
}
