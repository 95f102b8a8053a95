//! Carries the answers of a run to the async side in one go.
//!
//! Answering a caller from a worker's thread wakes the async runtime from outside, with a lock and
//! often a system call each time. The courier is a task: it is woken once for a whole run and wakes
//! the callers from inside, which costs next to nothing. Without one, answers are sent directly.

use tokio::sync::mpsc;

use super::{Answer, Reply};

/// Runs whose answers may be on their way; a worker waits when there are more.
const RUNS_ON_THE_WAY: usize = 64;

/// Hands answers over. Clones share the task.
#[derive(Debug, Clone, Default)]
pub struct Courier(Option<mpsc::Sender<Vec<(Reply, Answer)>>>);

impl Courier {
    /// Starts the task on the current runtime. It ends with its last handle.
    pub fn start() -> Self {
        let (sender, mut runs) = mpsc::channel::<Vec<(Reply, Answer)>>(RUNS_ON_THE_WAY);
        tokio::spawn(async move {
            while let Some(answers) = runs.recv().await {
                send_all(answers);
            }
        });
        Self(Some(sender))
    }

    /// Answers all riders of a run. Blocks while too many runs are on their way; only a worker's
    /// own thread may call it.
    pub fn deliver(&self, answers: Vec<(Reply, Answer)>) {
        match &self.0 {
            // For one answer the way over the task would be the longer one.
            Some(sender) if answers.len() > 1 => {
                // The runtime may be gone already; then nobody waits, but sending harms nobody.
                if let Err(mpsc::error::SendError(answers)) = sender.blocking_send(answers) {
                    send_all(answers);
                }
            }
            _ => send_all(answers),
        }
    }
}

fn send_all(answers: Vec<(Reply, Answer)>) {
    for (reply, answer) in answers {
        reply.send(answer);
    }
}
