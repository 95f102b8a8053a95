//! Carries the answers of a run to the async side.
//!
//! Answering a caller from a worker's thread wakes the async runtime from outside, with a lock and
//! often a system call each time. The courier is a task: it is woken once for a whole run and wakes
//! the callers from inside, which costs next to nothing. Without one, answers are sent directly.
//!
//! It lets the first answers leave before it brings the next. A thread that encodes all answers of a
//! run before it writes any keeps every caller waiting, and has nothing to do itself until they have
//! read the answers and written their next requests: server and callers take turns. With callers that
//! have one request in flight each, on one processor and a run that costs next to nothing, portions
//! answer 12 to 30 % more of them up to 64, and as many beyond. Where the run is what takes the time,
//! they would only make the next one smaller, as it begins with those who come back first.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::yield_now;

use super::{Answer, Reply};

/// Runs whose answers may be on their way; a worker waits when there are more.
const RUNS_ON_THE_WAY: usize = 64;
/// Portions in which the answers of a run leave. More cost writes and gain no more.
const PORTIONS: usize = 4;
/// What a caller takes of this side's time beside its share of a run, roughly.
const BESIDE_A_RUN: Duration = Duration::from_micros(10);

/// Hands answers over. Clones share the task.
#[derive(Debug, Clone, Default)]
pub struct Courier(Option<mpsc::Sender<Delivery>>);

/// The answers of a run.
#[derive(Debug)]
struct Delivery {
    answers: Vec<(Reply, Answer)>,
    /// How many leave at once.
    portion: usize,
}

impl Courier {
    /// Starts the task on the current runtime. It ends with its last handle.
    pub fn start() -> Self {
        let (sender, mut runs) = mpsc::channel(RUNS_ON_THE_WAY);
        tokio::spawn(async move {
            while let Some(Delivery { answers, portion }) = runs.recv().await {
                let mut answers = answers.into_iter();
                send_all(answers.by_ref().take(portion));
                while answers.len() > 0 {
                    // Another run's answers must not wait for this one's callers.
                    if runs.is_empty() {
                        yield_now().await;
                    }
                    send_all(answers.by_ref().take(portion));
                }
            }
        });
        Self(Some(sender))
    }

    /// Answers all riders of a run that took so long. Blocks while too many runs are on their way;
    /// only a worker's own thread may call it.
    pub fn deliver(&self, answers: Vec<(Reply, Answer)>, took: Duration) {
        match &self.0 {
            // For one answer the way over the task would be the longer one.
            Some(sender) if answers.len() > 1 => {
                let portion = portion(answers.len(), took);
                // The runtime may be gone already; then nobody waits, but sending harms nobody.
                let sent = sender.blocking_send(Delivery { answers, portion });
                if let Err(mpsc::error::SendError(delivery)) = sent {
                    send_all(delivery.answers);
                }
            }
            _ => send_all(answers),
        }
    }
}

/// How many answers of a run that took so long leave at once.
fn portion(answers: usize, took: Duration) -> usize {
    let beside = BESIDE_A_RUN.saturating_mul(u32::try_from(answers).unwrap_or(u32::MAX));
    if took < beside { answers.div_ceil(PORTIONS) } else { answers }
}

fn send_all(answers: impl IntoIterator<Item = (Reply, Answer)>) {
    for (reply, answer) in answers {
        reply.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::Receiver;

    use super::*;
    use crate::error::PredictError;

    /// A run whose riders are told that the server stops, and where they hear it.
    fn run(riders: usize) -> (Vec<(Reply, Answer)>, Vec<Receiver<Answer>>) {
        let channels = (0..riders).map(|_| Reply::channel());
        let answered =
            channels.map(|(reply, caller)| ((reply, Err(PredictError::ShuttingDown)), caller));
        answered.unzip()
    }

    /// Hands a short run over as a worker does, from a thread of its own.
    fn deliver(courier: &Courier, answers: Vec<(Reply, Answer)>) {
        let courier = courier.clone();
        std::thread::spawn(move || courier.deliver(answers, Duration::ZERO)).join().unwrap();
    }

    fn answered(callers: &mut [Receiver<Answer>]) -> usize {
        callers.iter_mut().filter_map(|caller| caller.try_recv().ok()).count()
    }

    #[tokio::test]
    async fn the_first_answers_leave_before_the_next_are_brought() {
        let courier = Courier::start();
        let (answers, mut callers) = run(10);
        deliver(&courier, answers);
        let mut portions = Vec::new();
        while portions.iter().sum::<usize>() < 10 {
            yield_now().await;
            portions.push(answered(&mut callers));
        }
        portions.retain(|portion| *portion > 0);
        assert_eq!(portions, [3, 3, 3, 1]);
    }

    #[test]
    fn answers_of_a_long_run_leave_at_once() {
        assert_eq!(portion(64, 63 * BESIDE_A_RUN), 16);
        assert_eq!(portion(64, 64 * BESIDE_A_RUN), 64);
        assert_eq!(portion(2, Duration::ZERO), 1);
    }

    #[tokio::test]
    async fn nobody_waits_for_the_callers_of_another_run() {
        let courier = Courier::start();
        let (first, mut callers) = run(8);
        let (second, others) = run(8);
        deliver(&courier, first);
        deliver(&courier, second);
        yield_now().await;
        assert_eq!(answered(&mut callers), 8);
        for other in others {
            assert!(matches!(other.await, Ok(Err(PredictError::ShuttingDown))));
        }
    }
}
