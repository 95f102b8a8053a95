//! Every place and every byte that is taken is given back, in whatever order callers come, leave,
//! and are handed out, answered, failed and lost. One thread, so that a sequence repeats exactly.

use proptest::prelude::*;

use super::*;

/// One step of a sequence. Numbers choose among what is there, modulo how much that is.
#[derive(Debug, Clone, Copy)]
enum Step {
    Submit {
        rows: usize,
        width: usize,
    },
    Leave {
        nth: usize,
    },
    /// An instance without a batch takes one, if something waits.
    Next {
        instance: usize,
    },
    /// An instance answers its batch and keeps its place until it asks for the next.
    Answer {
        instance: usize,
    },
    /// An instance dies with its batch.
    Lose {
        instance: usize,
    },
    FailPending,
}

/// Where a request of the model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waits,
    Runs(usize),
    Answered,
    Lost,
}

struct Request {
    rows: usize,
    width: usize,
    bytes: usize,
    state: State,
    /// Taken when the caller leaves.
    ticket: Option<Ticket>,
    serial: usize,
}

struct Pair {
    batcher: Batcher,
    requests: Vec<Request>,
    /// What each instance holds, with the stops of that run and how many it must have had.
    batches: [Option<Batch>; 2],
    stops: [Option<(Arc<Stops>, usize)>; 2],
}

impl Pair {
    fn apply(&mut self, step: Step) {
        match step {
            Step::Submit { rows, width } => self.submit(rows, width),
            Step::Leave { nth } => self.leave(nth),
            Step::Next { instance } => self.next(instance),
            Step::Answer { instance } => {
                if let Some(batch) = self.batches[instance].take() {
                    answer_all(batch);
                    self.end(State::Runs(instance), State::Answered);
                }
            }
            Step::Lose { instance } => {
                drop(self.batches[instance].take());
                self.end(State::Runs(instance), State::Lost);
            }
            Step::FailPending => {
                self.batcher.fail_pending(&PredictError::WorkerLost);
                self.end(State::Waits, State::Lost);
            }
        }
        self.check();
    }

    fn submit(&mut self, rows: usize, width: usize) {
        let now = Instant::now();
        let request = request(rows, width);
        let bytes = request.byte_size();
        let waiting = self.waiting().count();
        let fits = self.bytes() + bytes <= budget(&self.batcher).limit();
        let outcome = self.batcher.submit(request, Deadline::after(now, HOUR), now);
        assert_eq!(outcome.is_ok(), waiting < 8 && fits, "admitted exactly when there is room");
        if let Ok(ticket) = outcome {
            let (state, serial, ticket) = (State::Waits, self.requests.len(), Some(ticket));
            self.requests.push(Request { rows, width, bytes, state, ticket, serial });
        }
    }

    fn leave(&mut self, nth: usize) {
        let count = self.requests.iter().filter(|request| request.ticket.is_some()).count();
        if count == 0 {
            return;
        }
        let mut present = self.requests.iter_mut().filter(|request| request.ticket.is_some());
        let request = present.nth(nth % count).unwrap();
        drop(request.ticket.take());
        match request.state {
            // Its place is free at once and nobody will ever see it.
            State::Waits => request.state = State::Lost,
            State::Runs(instance) => {
                let rides = |other: &&Request| other.state == State::Runs(instance);
                let mut riders = self.requests.iter().filter(rides);
                let last = riders.all(|rider| rider.ticket.is_none());
                let (_, wanted) = self.stops[instance].as_mut().unwrap();
                *wanted += usize::from(last);
            }
            State::Answered | State::Lost => {}
        }
    }

    fn next(&mut self, instance: usize) {
        if self.batches[instance].is_some() || self.waiting().count() == 0 {
            return;
        }
        self.check_stops();
        let stops = Arc::new(Stops::default());
        let stop = Arc::clone(&stops) as Arc<dyn Stop>;
        let batch = self.batcher.next_batch(instance, &stop).expect("an open queue");
        self.stops[instance] = Some((stops, 0));
        let oldest = self.waiting().map(|request| request.serial).min().unwrap();
        let size = |job: &Job, axis| job.request.inputs()[0].shape().dim(axis).unwrap();
        let width = size(&batch.jobs[0], 1);
        for (place, job) in batch.jobs.iter().enumerate() {
            assert_eq!(size(job, 1), width, "groups are mixed");
            let waits =
                |request: &&mut Request| request.state == State::Waits && request.width == width;
            let request = self.requests.iter_mut().find(waits).unwrap();
            assert_eq!(request.rows, size(job, 0), "first in, first out");
            assert!(place > 0 || request.serial == oldest, "the oldest goes first");
            request.state = State::Runs(instance);
        }
        self.batches[instance] = Some(batch);
    }

    fn end(&mut self, from: State, to: State) {
        for request in self.requests.iter_mut().filter(|request| request.state == from) {
            request.state = to;
        }
    }

    fn waiting(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(|request| request.state == State::Waits)
    }

    fn bytes(&self) -> usize {
        let holds = |request: &&Request| matches!(request.state, State::Waits | State::Runs(_));
        self.requests.iter().filter(holds).map(|request| request.bytes).sum()
    }

    fn check(&self) {
        let depth = self.batcher.depth();
        assert_eq!(depth.jobs, self.waiting().count());
        assert_eq!(depth.rows, self.waiting().map(|request| request.rows).sum::<usize>());
        assert_eq!(budget(&self.batcher).taken(), self.bytes());
        self.check_stops();
    }

    fn check_stops(&self) {
        for (stops, wanted) in self.stops.iter().flatten() {
            // After the answers, a departure may still ask the run that is over; never another.
            assert!(stops.count() >= *wanted && stops.count() <= 1, "{} stops", stops.count());
        }
    }

    /// Drains the queue and holds every ticket against what became of its request.
    fn finish(mut self) {
        self.batcher.drain();
        for instance in 0..2 {
            while self.waiting().count() > 0 || self.batches[instance].is_some() {
                self.apply(Step::Answer { instance });
                self.next(instance);
            }
        }
        assert_eq!(budget(&self.batcher).taken(), 0);
        for request in self.requests {
            let Some(ticket) = request.ticket else { continue };
            match (request.state, wait(ticket)) {
                (State::Answered, Ok(answer)) => {
                    let rows = answer.outputs[0].1.shape().dims()[0];
                    assert_eq!(rows, i64::try_from(request.rows).unwrap());
                }
                (State::Lost, Err(error)) => assert_eq!(error, PredictError::WorkerLost),
                (state, answer) => panic!("{state:?} got {answer:?}"),
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let instance = 0_usize..2;
    prop_oneof![
        8 => (1_usize..6, 1_usize..3).prop_map(|(rows, width)| Step::Submit { rows, width }),
        3 => any::<usize>().prop_map(|nth| Step::Leave { nth }),
        3 => instance.clone().prop_map(|instance| Step::Next { instance }),
        2 => instance.clone().prop_map(|instance| Step::Answer { instance }),
        1 => instance.prop_map(|instance| Step::Lose { instance }),
        1 => Just(Step::FailPending),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_taken_is_given_back(
        max_rows in 1_usize..10,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let limits = QueueLimits { max_jobs: 8, bytes: ByteBudget::new(400), default_priority: 100 };
        let mut pair = Pair {
            batcher: Batcher::new(eager(max_rows), limits, 2, costs()),
            requests: Vec::new(),
            batches: [None, None],
            stops: [None, None],
        };
        for step in steps {
            pair.apply(step);
        }
        pair.finish();
    }
}
