//! Answers of one model version that are kept, and runs that answer several equal requests.
//!
//! [`ResponseCache::kept`] gives the answer that is kept. Without one, [`ResponseCache::find`]
//! tells a request what it has to do: nothing, because its answer came with the run of an equal
//! request; or run, and hand its answer over ([`Turn::keep`]). Storing, evicting and passing the
//! turn on are `quick_cache`'s.
//!
//! - Equal means the same tenant (where that matters), wanted outputs, datatypes, shapes and
//!   contents, compared by value: a fingerprint only finds the entry. Two requests that share one
//!   and differ run as if there were no cache. The library sees fingerprints alone, so its lock is
//!   never held while tensors are hashed, compared, copied or awaited.
//! - What is kept is copied. Inputs are slices of a message and outputs are slices of a whole run's;
//!   either would keep alive far more than is counted. One copy is small beside the run that it
//!   saves, and is made only if the entry fits.
//! - The first of equal requests has the turn to run, the others follow. If it fails, leaves or runs
//!   out of time, the turn passes to a follower; an error reaches nobody else and is not kept.
//! - A follower has no place in the queue, because it costs no run: refusing it would save nothing.
//!   It costs memory, so it takes its share of the budget of all requests, and never none of it.
//!
//! A follower waits for a run that is as urgent as the first request, not as itself.
//!
//! The room knows no queue and no message. `repository` owns one per model version, so versions
//! cannot mix; `grpc` asks it.
//!
//! Source: Triton Inference Server, response cache (which requests are equal).

use std::future::poll_fn;
use std::hash::{BuildHasher, Hash, Hasher};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use quick_cache::sync::{Cache, DefaultLifecycle, PlaceholderGuard};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use tokio::time::{Instant, sleep_until};

use crate::config::ModelConfig;
use crate::config::model::CacheScope;
use crate::deadline::Deadline;
use crate::error::{PredictError, Stage};
use crate::job::{ByteBudget, BytePermit};
use crate::request::{InferResponse, ValidRequest};
use crate::tensor::{Tensor, TensorData};

/// What an entry takes beside its tensors: its place in the tables, the counts of its owners.
const ENTRY_BYTES: usize = 256;
/// Size of a usual entry, from which the number of remembered evictions follows.
const USUAL_ENTRY_BYTES: usize = 4096;
/// What a follower takes beside its tensors: its place in the list of followers, its call.
const FOLLOWER_BYTES: usize = 1024;
/// When a follower that found no memory should come again.
const RETRY_AFTER: Duration = Duration::from_millis(1);

/// Answers of one model version.
#[derive(Debug)]
pub struct ResponseCache {
    entries: Entries,
    hashing: DefaultHashBuilder,
    scope: CacheScope,
    limit: usize,
    budget: ByteBudget,
}

type Entries = Cache<u64, Arc<Entry>, EntryBytes>;
type Guard<'a> = PlaceholderGuard<
    'a,
    u64,
    Arc<Entry>,
    EntryBytes,
    DefaultHashBuilder,
    DefaultLifecycle<u64, Arc<Entry>>,
>;

/// What a request is looked for by. Equal requests have equal ones; others hardly ever have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    hash: u64,
    tenant: u64,
}

/// What a request has to do.
#[derive(Debug)]
pub enum Found<'a> {
    /// Nothing: it has waited so long for the run of an equal request, which has its answer.
    Shared(InferResponse, Duration),
    /// Run.
    Missing(Turn<'a>),
}

/// The turn to run. Dropping it passes it to a follower.
#[derive(Debug)]
pub struct Turn<'a> {
    /// How long the request followed another one before.
    pub waited: Duration,
    held: Option<Held<'a>>,
}

#[derive(Debug)]
struct Held<'a> {
    cache: &'a ResponseCache,
    guard: Guard<'a>,
    key: Key,
}

/// What makes requests equal.
#[derive(Debug)]
struct Key {
    tenant: u64,
    outputs: Option<Vec<usize>>,
    inputs: Vec<Tensor>,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    answer: InferResponse,
    bytes: u64,
}

#[derive(Debug, Clone)]
struct EntryBytes;

impl Weighter<u64, Arc<Entry>> for EntryBytes {
    fn weight(&self, _fingerprint: &u64, entry: &Arc<Entry>) -> u64 {
        entry.bytes
    }
}

impl ResponseCache {
    /// A cache as the settings want it; `None` if they want none. Followers take their memory from
    /// `budget`.
    pub fn new(config: &ModelConfig, budget: &ByteBudget) -> Option<Self> {
        let limit = config.response_cache_bytes;
        if limit == 0 && !config.coalesce {
            return None;
        }
        // One shard: several would divide the limit, and the lock is held for a few words only.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(limit / USUAL_ENTRY_BYTES)
            .weight_capacity(limit as u64)
            .build()
            .ok()?;
        let hashing = DefaultHashBuilder::default();
        let lifecycle = DefaultLifecycle::default();
        Some(Self {
            entries: Cache::with_options(options, EntryBytes, hashing.clone(), lifecycle),
            hashing,
            scope: config.cache_scope,
            limit,
            budget: budget.clone(),
        })
    }

    /// What `request` is looked for by; `None` if it may share nothing, because its tenant is not
    /// known.
    pub fn fingerprint(&self, request: &ValidRequest) -> Option<Fingerprint> {
        let tenant = match self.scope {
            CacheScope::All => 0,
            CacheScope::Tenant if request.tenant() == 0 => return None,
            CacheScope::Tenant => request.tenant(),
        };
        // The seed is random and this cache's own. Requests made to collide cost only time.
        let mut state = self.hashing.build_hasher();
        tenant.hash(&mut state);
        request.outputs().hash(&mut state);
        for tensor in request.inputs() {
            tensor.dtype().hash(&mut state);
            tensor.shape().dims().hash(&mut state);
            match tensor.data() {
                TensorData::Dense(bytes) => bytes.hash(&mut state),
                TensorData::Strings(elements) => elements.hash(&mut state),
            }
        }
        Some(Fingerprint { tenant, hash: state.finish() })
    }

    /// The answer to `request`, if it is kept.
    pub fn kept(&self, of: Fingerprint, request: &ValidRequest) -> Option<InferResponse> {
        let entry = self.entries.get(&of.hash)?;
        entry.key.is_of(request, of.tenant).then(|| entry.answer.clone())
    }

    /// For a request whose answer is not kept: waits, at most until `deadline`, if an equal one
    /// runs. Dropping the future is leaving.
    ///
    /// Whoever is handed the turn here holds up the followers until it drops the turn or the
    /// future: both must belong to a task that is always polled.
    ///
    /// # Errors
    /// [`PredictError::DeadlineExceeded`] if the deadline passes while waiting,
    /// [`PredictError::Full`] if there is no memory to wait in. Never the error of another request.
    pub async fn find(
        &self,
        of: Fingerprint,
        request: &ValidRequest,
        deadline: Deadline,
    ) -> Result<Found<'_>, PredictError> {
        let mut joining = pin!(self.entries.get_value_or_guard_async(&of.hash));
        let first = poll_fn(|context| Poll::Ready(joining.as_mut().poll(context))).await;
        let (joined, waited) = match first {
            Poll::Ready(joined) => (joined, Duration::ZERO),
            Poll::Pending => {
                let share = self.share(request)?;
                let began_at = Instant::now();
                let joined = tokio::select! {
                    biased;
                    joined = joining => joined,
                    () = sleep_until(deadline.instant()) => {
                        return Err(PredictError::DeadlineExceeded { stage: Stage::Queue });
                    }
                };
                // Given back before the request runs, for which the queue takes it again.
                drop(share);
                (joined, began_at.elapsed())
            }
        };
        let turn = |held| Found::Missing(Turn { waited, held });
        Ok(match joined {
            Ok(entry) if !entry.key.is_of(request, of.tenant) => turn(None),
            Ok(entry) => Found::Shared(entry.answer.clone(), waited),
            Err(guard) => turn(Some(Held { cache: self, guard, key: Key::of(request, of.tenant) })),
        })
    }

    /// Memory that the kept answers take, in bytes. Never above the limit of the settings.
    pub fn bytes(&self) -> u64 {
        self.entries.weight()
    }

    fn share(&self, request: &ValidRequest) -> Result<BytePermit, PredictError> {
        let bytes = request.byte_size() + FOLLOWER_BYTES;
        let budget = &self.budget;
        budget.take(bytes).ok_or_else(|| PredictError::Full {
            what: "memory for requests",
            used: budget.taken(),
            limit: budget.limit(),
            unit: "bytes",
            retry_after: (bytes <= budget.limit()).then_some(RETRY_AFTER),
        })
    }
}

impl Turn<'_> {
    /// Hands the answer of the run to all followers and keeps it, if it fits.
    pub fn keep(self, answer: &InferResponse) {
        let Some(Held { cache, guard, key }) = self.held else { return };
        let bytes = key.byte_size()
            + answer.outputs.iter().map(|(_, each)| size_of_tensor(each)).sum::<usize>();
        let bytes = bytes + ENTRY_BYTES;
        let (key, answer) = if bytes <= cache.limit {
            (key.compacted(), compacted(answer))
        } else {
            (key, answer.clone())
        };
        // What does not fit is handed over and not kept. An error would say that the entry was
        // removed in between, which nobody does.
        drop(guard.insert(Arc::new(Entry { key, answer, bytes: bytes as u64 })));
    }
}

impl Key {
    fn of(request: &ValidRequest, tenant: u64) -> Self {
        let outputs = request.outputs().map(<[usize]>::to_vec);
        Self { tenant, outputs, inputs: request.inputs().to_vec() }
    }

    fn is_of(&self, request: &ValidRequest, tenant: u64) -> bool {
        self.tenant == tenant
            && self.outputs.as_deref() == request.outputs()
            && self.inputs == request.inputs()
    }

    fn compacted(self) -> Self {
        Self { inputs: self.inputs.iter().map(Tensor::compacted).collect(), ..self }
    }

    fn byte_size(&self) -> usize {
        let outputs = self.outputs.as_ref().map_or(0, |outputs| size_of_val(outputs.as_slice()));
        outputs + self.inputs.iter().map(size_of_tensor).sum::<usize>()
    }
}

fn compacted(answer: &InferResponse) -> InferResponse {
    let outputs = answer.outputs.iter().map(|(index, tensor)| (*index, tensor.compacted()));
    InferResponse { outputs: outputs.collect(), ..*answer }
}

/// Contents, shape and the tensor itself, with its position.
fn size_of_tensor(tensor: &Tensor) -> usize {
    tensor.byte_size() + size_of_val(tensor.shape().dims()) + size_of::<(usize, Tensor)>()
}

#[cfg(test)]
mod tests;
