//! onnxd serves ONNX models over the Open Inference Protocol: gRPC in, ONNX Runtime behind, a
//! dynamic batcher between.
//!
//! # One prediction, straight through
//!
//! ```text
//! async side: raw contents stay slices of the message, nothing blocks
//!
//!   connection         accepts, within limits
//!   grpc::calls        counts it, and begins its span where its trace is recorded
//!   grpc::plain        a unary prediction with nothing to it but a message goes straight to
//!                      grpc::service; everything else takes the framework's way:
//!     grpc::web, tonic-web  pages from a browser; everybody else passes through
//!     grpc::gate         only where an access file says who may call: credentials become a caller
//!   grpc::receive      counts a message while it comes
//!   grpc::wire         bounds a message before it is decoded (`build.rs` puts it into the stubs)
//!   grpc::service      the generated trait: deadline from `grpc-timeout`, once
//!   grpc::inference    the path below; the message's own `timeout` may shorten the deadline
//!     repository.resolve      name, version        -> Arc<ServedModel>
//!     grpc::codec::decode     ModelInferRequest    -> InferRequest      (slices of the message)
//!     request::validate       InferRequest, ModelSpec -> ValidRequest   (proof that it fits)
//!     grpc::once              only where answers are kept or runs shared: finds one, or goes on
//!     batcher.submit          ValidRequest         -> Job in the queue, Ticket for the caller;
//!                             refused if the estimate says that it would be late
//!     ticket.answer           waits: the answer, the deadline, or the caller leaves
//!                  │
//!                  │ one push under a short lock; batcher::wake wakes one worker for all requests
//!                  │ that came together
//!                  ▼
//! worker thread: owns one executor, touched by nobody else
//!
//!   batcher.next_batch   pending + policy: which requests, how many, now or later, by what runs
//!                        cost, deadlines, priorities and fair shares
//!   worker::thread       the loop; catches panics, rebuilds the executor
//!   worker::batch        looks again who still waits, joins, runs, cuts, answers
//!     tensor::rows::Joined    requests' tensors as one      (the one copy on the way in), padded
//!                                                           where their lengths differ
//!     onnx::executor          ONNX Runtime's run; outputs keep its memory
//!     tensor::rows::split     outputs apart again           (slices along axis 0)
//!     job::courier            -> the replies of a run, of a short one in portions
//!                  │
//!                  ▼
//! async side again:  grpc::codec::encode  InferResponse -> ModelInferResponse
//! ```
//!
//! A message of a stream takes the same path ([`grpc::inference`]); `grpc::stream` only bounds how
//! many are in flight. So does a prediction over REST: [`http`] makes the message that the data
//! port would have received. What a request can end with instead of an answer is one type,
//! [`error::PredictError`], and becomes a status in one place, [`grpc::status`]; the status over
//! REST follows from that.
//!
//! A worker takes its batch itself, under a short lock, instead of being handed one by a task in
//! between: a request then crosses one queue each way and shares its wake-ups, a caller that leaves
//! can take its request out at once, and the decision stays a pure function all the same
//! ([`batcher::policy`], [`batcher::pending`]).
//!
//! # Scheduling
//!
//! Everything is decided from estimates that a [`cost::CostModel`] makes: what a run takes, by rows and
//! length, learned from first runs and every run since. `onnxd profile` ([`repository::profile`]) finds
//! it out offline, over a whole grid, and can keep it beside the model ([`repository::costs`]): a server
//! that finds the model, the machine and the settings as they were takes that instead of measuring at
//! start. The operator's port tells what is known now (`/costs`, [`admin`]).
//!
//! - *Admission* ([`batcher::admission`]): a request that cannot be answered in time by the estimate is
//!   refused when it comes. So the queue is bounded by time, what waits is worth running, and in
//!   overload the server does as much as it does at its best.
//! - *Order* ([`batcher::pending`]): priority first; within it callers share by turns of a batch; within
//!   a turn the earliest deadline.
//! - *Size* ([`batcher::policy`]): the size that does most rows in time, among those that let the
//!   tightest rider be in time; other free instances get their share. A free worker never waits.
//! - *Parts*: a request with more rows than a run takes runs in parts, on all instances at once.
//! - *Between both sides* ([`processor`]): in overload the threads that serve connections do not interrupt
//!   runs, and where there is one processor only, a worker always lets them catch up before its next run.
//!
//! Estimates may be wrong: nothing is refused by them for longer than a second without a run that
//! corrects them.
//!
//! Models come and go while requests run ([`repository::control`]). A request holds the version that
//! it has found until it is answered; a version that was replaced ends when the last one has let go,
//! so no swap fails a request and nothing counts who is inside.
//!
//! # Rooms
//!
//! Each room's file opens with what it does and what it leaves to others. A room names only rooms
//! of lower rank; a test reads the sources and holds this table.
//!
//! | rank | rooms | what they are |
//! | --- | --- | --- |
//! | 0 | [`tensor`], [`deadline`], [`cost`], [`runtime`], [`reload`] | tensors, shapes, joining, padding and cutting; a point in time; what a run costs; the library as a file; files looked at again |
//! | 1 | [`model`] | names, versions, signatures, the axis of the rows and that of their length |
//! | 2 | [`error`] | what a caller can be told |
//! | 3 | [`request`], [`statistics`] | a request held against a signature; counts and times |
//! | 4 | [`job`], [`config`] | one request in flight; resolved settings, from Triton's files too |
//! | 5 | [`batcher`], [`cache`] | the queue of one model version; its answers that are kept |
//! | 6 | [`telemetry`] | logs, metrics, traces |
//! | 7 | [`worker`], [`access`] | threads that run batches; the [`worker::Executor`] seam; who may do what |
//! | 8 | [`onnx`], [`repository`] | ONNX Runtime; the models that are served now |
//! | 9 | [`pb`], [`connection`] | generated messages; accepting and bounding connections |
//! | 10 | [`grpc`] | the data port |
//! | 11 | [`http`], [`admin`] | the REST port, which takes the path of `grpc`; the operator's port |
//! | 12 | [`app`], [`mod@bench`], [`simulate`] | put together, run, drain; load on a server; policies on virtual time |
//! | 13 | [`cli`] | subcommands |
//!
//! # What holds everywhere
//!
//! - A session belongs to one thread; there is no lock round a run.
//! - Every accepted request gets exactly one answer: a [`job::Job`] is moved, never shared, and
//!   dropping it is an answer too.
//! - Every queue, window and buffer has a bound, and the bound is a setting.
//! - Equal requests may share a run and an answer, where the settings say so; compared by value, and
//!   never an error.
//! - Where an access file says who may do what, a call that has passed no gate is refused, and the
//!   right to a model is asked for where the message names it ([`access`]).
//! - The runtime reads no model before its files were looked at ([`repository::integrity`]).
//! - Requests whose rows could influence each other never share a run: the axis of the rows is
//!   read from the model or its settings, tried at start, and compared with every output of a
//!   joined run. Nor do requests of different length, unless settings say how they are padded and
//!   first runs bear it out.
//! - Decisions get `now` as an argument. Requests are waited for in
//!   [`batcher::Batcher::next_batch`], answers in [`batcher::Ticket::answer`] or, from the run of an
//!   equal request, in [`cache::ResponseCache::find`], and nowhere else.
//! - Only [`onnx`] names ONNX Runtime, only the wire rooms name messages, only
//!   `onnx/strings.rs` and `processor.rs` have `unsafe` code, only [`config`], [`runtime`]
//!   and [`cli`] read the environment, only `main.rs` prints and exits.

pub mod access;
pub mod admin;
pub mod app;
pub mod batcher;
pub mod bench;
pub mod cache;
pub mod cli;
pub mod config;
pub mod connection;
pub mod cost;
pub mod deadline;
pub mod error;
pub mod grpc;
pub mod http;
pub mod job;
pub mod model;
pub mod onnx;
pub mod pb;
pub mod processor;
pub mod reload;
pub mod repository;
pub mod request;
pub mod runtime;
pub mod simulate;
pub mod statistics;
pub mod telemetry;
pub mod tensor;
pub mod worker;
