//! Which requests are equal, who has the turn, what is kept and what it takes.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::task::JoinSet;

use super::*;
use crate::config::Config;
use crate::model::{Dim, ModelSpec, TensorSpec};
use crate::request::{InferRequest, NamedTensor, validate};
use crate::tensor::{DataType, Shape};

const MINUTE: Duration = Duration::from_mins(1);

fn spec() -> ModelSpec {
    let tensor = |name: &str, dtype| TensorSpec {
        name: name.into(),
        dtype,
        dims: vec![Dim::Dynamic(None), Dim::Dynamic(None)],
        batch_axis: None,
        reshape: None,
        ragged: None,
    };
    let (x, words) = (tensor("x", DataType::Fp32), tensor("words", DataType::Bytes));
    let (y, z) = (tensor("y", DataType::Fp32), tensor("z", DataType::Fp32));
    ModelSpec { inputs: vec![x, words], outputs: vec![y, z] }
}

fn shape(dims: [i64; 2]) -> Shape {
    Shape::new(dims.to_vec()).unwrap()
}

fn floats(dims: [i64; 2], value: f32) -> Tensor {
    let shape = shape(dims);
    let bytes = value.to_le_bytes().repeat(shape.elements());
    Tensor::dense(DataType::Fp32, shape, bytes.into()).unwrap()
}

fn words(words: &[&'static str]) -> Tensor {
    let elements = words.iter().map(|word| Bytes::from_static(word.as_bytes())).collect();
    Tensor::strings(shape([1, i64::try_from(words.len()).unwrap()]), elements).unwrap()
}

fn message(x: Tensor, text: Tensor) -> InferRequest {
    let input = |name: &str, tensor| NamedTensor { name: name.into(), tensor };
    InferRequest { inputs: vec![input("x", x), input("words", text)], ..InferRequest::default() }
}

fn valid(message: InferRequest) -> ValidRequest {
    validate(message, &spec(), usize::MAX).unwrap()
}

/// A request of its own for each value.
fn request(value: f32) -> ValidRequest {
    valid(message(floats([1, 1], value), words(&["a"])))
}

fn answer(value: f32) -> InferResponse {
    let outputs = vec![(0, floats([1, 4], value))];
    InferResponse { outputs, started_at: Instant::now(), batch_rows: 1 }
}

fn value(answer: &InferResponse) -> Option<f32> {
    let bytes = answer.outputs[0].1.dense_bytes()?;
    Some(f32::from_le_bytes(bytes[..4].try_into().unwrap()))
}

fn cache_of(limit: usize, memory: usize, scope: CacheScope) -> (ResponseCache, ByteBudget) {
    let mut config = Config::resolve(|_| None).unwrap().model;
    (config.response_cache_bytes, config.coalesce, config.cache_scope) = (limit, true, scope);
    let budget = ByteBudget::new(memory);
    (ResponseCache::new(&config, &budget).unwrap(), budget)
}

fn cache() -> ResponseCache {
    cache_of(1 << 20, 1 << 20, CacheScope::All).0
}

fn kept(cache: &ResponseCache, request: &ValidRequest) -> Option<f32> {
    value(&cache.kept(cache.fingerprint(request)?, request)?)
}

async fn find<'a>(
    cache: &'a ResponseCache,
    request: &ValidRequest,
) -> Result<Found<'a>, PredictError> {
    let deadline = Deadline::after(Instant::now(), MINUTE);
    cache.find(cache.fingerprint(request).unwrap(), request, deadline).await
}

/// The turn for a request that nothing is known of yet.
fn turn<'a>(cache: &'a ResponseCache, request: &ValidRequest) -> Turn<'a> {
    match find(cache, request).now_or_never() {
        Some(Ok(Found::Missing(turn))) => turn,
        other => panic!("{other:?}"),
    }
}

fn put(cache: &ResponseCache, request: &ValidRequest, value: f32) {
    turn(cache, request).keep(&answer(value));
}

#[test]
fn there_is_no_cache_unless_it_is_asked_for() {
    let mut config = Config::resolve(|_| None).unwrap().model;
    let budget = ByteBudget::new(1);
    assert!(ResponseCache::new(&config, &budget).is_none());
    config.coalesce = true;
    assert!(ResponseCache::new(&config, &budget).is_some());
}

#[test]
fn equal_requests_are_those_with_equal_inputs_and_outputs() {
    let cache = cache();
    let plain = || message(floats([2, 3], 1.0), words(&["ab", "c"]));
    put(&cache, &valid(plain()), 5.0);
    assert_eq!(kept(&cache, &valid(plain())), Some(5.0));
    let (timeout, priority, tenant) = (Some(MINUTE), 7, 9);
    let asked_otherwise = InferRequest { timeout, priority, tenant, ..plain() };
    assert_eq!(kept(&cache, &valid(asked_otherwise)), Some(5.0));

    let mut others = vec![
        message(floats([2, 3], 2.0), words(&["ab", "c"])),
        message(floats([3, 2], 1.0), words(&["ab", "c"])),
        message(floats([2, 3], 1.0), words(&["a", "bc"])),
        message(floats([2, 3], 1.0), words(&["ab", "c", ""])),
    ];
    for outputs in [&["y"][..], &["z"], &["y", "z"], &["z", "y"]] {
        let outputs = outputs.iter().map(|name| (*name).to_owned()).collect();
        others.push(InferRequest { outputs, ..plain() });
    }
    for (number, other) in others.into_iter().map(valid).enumerate() {
        assert_eq!(kept(&cache, &other), None, "{number}");
        let mut number = f32::from(u8::try_from(number).unwrap());
        number += 10.0;
        put(&cache, &other, number);
        assert_eq!(kept(&cache, &other), Some(number));
    }
    assert_eq!(kept(&cache, &valid(plain())), Some(5.0));
}

#[tokio::test]
async fn one_fingerprint_is_not_one_request() {
    let cache = cache();
    let (one, two) = (request(1.0), request(2.0));
    let same = cache.fingerprint(&one).unwrap();
    let deadline = Deadline::after(Instant::now(), MINUTE);
    let first = turn(&cache, &one);
    // The stranger waits in vain, then goes alone and changes nothing.
    let mut stranger = Box::pin(cache.find(same, &two, deadline));
    assert!(stranger.as_mut().now_or_never().is_none());
    first.keep(&answer(1.0));
    let Some(Ok(Found::Missing(own))) = stranger.now_or_never() else { panic!() };
    own.keep(&answer(2.0));
    assert!(cache.kept(same, &two).is_none());
    let Some(Ok(Found::Missing(own))) = cache.find(same, &two, deadline).now_or_never() else {
        panic!()
    };
    drop(own);
    assert_eq!(kept(&cache, &one), Some(1.0));
}

#[tokio::test]
async fn tenants_share_only_where_that_is_wanted() {
    let from = |tenant| valid(InferRequest { tenant, ..message(floats([1, 1], 1.0), words(&[])) });
    let shared = cache();
    put(&shared, &from(1), 5.0);
    for tenant in [0, 1, 2] {
        assert_eq!(kept(&shared, &from(tenant)), Some(5.0));
    }
    let (apart, _) = cache_of(1 << 20, 1 << 20, CacheScope::Tenant);
    put(&apart, &from(1), 5.0);
    assert_eq!(kept(&apart, &from(1)), Some(5.0));
    let second = turn(&apart, &from(2));
    assert!(find(&apart, &from(2)).now_or_never().is_none());
    second.keep(&answer(6.0));
    assert_eq!((kept(&apart, &from(1)), kept(&apart, &from(2))), (Some(5.0), Some(6.0)));
    assert_eq!(apart.fingerprint(&from(0)), None);
    // Not even where the fingerprints are one.
    let one = apart.fingerprint(&from(1)).unwrap();
    assert!(apart.kept(Fingerprint { tenant: 2, ..one }, &from(2)).is_none());
}

#[tokio::test]
async fn followers_share_the_run_and_hold_memory_only_while_they_wait() {
    let (cache, budget) = cache_of(1 << 20, 1 << 20, CacheScope::All);
    let request = request(1.0);
    let first = turn(&cache, &request);
    assert_eq!(budget.taken(), 0);
    let mut followers: Vec<_> = (0..100).map(|_| Box::pin(find(&cache, &request))).collect();
    for follower in &mut followers {
        assert!(follower.as_mut().now_or_never().is_none());
    }
    assert_eq!(budget.taken(), 100 * (request.byte_size() + FOLLOWER_BYTES));
    // One leaves.
    drop(followers.pop());
    assert_eq!(budget.taken(), 99 * (request.byte_size() + FOLLOWER_BYTES));
    first.keep(&answer(5.0));
    for follower in followers {
        let Ok(Found::Shared(answer, _)) = follower.await else { panic!() };
        assert_eq!(value(&answer), Some(5.0));
    }
    assert_eq!(budget.taken(), 0);
    assert_eq!(kept(&cache, &request), Some(5.0));
}

#[tokio::test]
async fn the_turn_passes_to_a_follower_that_is_still_there() {
    let cache = cache();
    let request = request(1.0);
    let first = turn(&cache, &request);
    let mut followers: Vec<_> = (0..3).map(|_| Box::pin(find(&cache, &request))).collect();
    for follower in &mut followers {
        assert!(follower.as_mut().now_or_never().is_none());
    }
    drop(first);
    // Whoever was chosen leaves before it has noticed: two times, so that at least one was.
    drop(followers.pop());
    drop(followers.remove(0));
    let Ok(Found::Missing(turn)) = followers.pop().unwrap().await else { panic!() };
    assert_eq!(kept(&cache, &request), None);
    turn.keep(&answer(5.0));
    assert_eq!(kept(&cache, &request), Some(5.0));
}

#[tokio::test]
async fn one_turn_after_the_other_until_one_has_an_answer() {
    let cache = Arc::new(cache());
    let mut callers = JoinSet::new();
    for number in 0..10 {
        let cache = Arc::clone(&cache);
        callers.spawn(async move {
            match find(&cache, &request(1.0)).await.unwrap() {
                Found::Missing(turn) => {
                    // A run, with others waiting.
                    tokio::task::yield_now().await;
                    let succeeds = number % 4 == 3;
                    succeeds.then(|| turn.keep(&answer(5.0)));
                    (true, succeeds)
                }
                Found::Shared(answer, _) => {
                    assert_eq!(value(&answer), Some(5.0));
                    (false, true)
                }
            }
        });
    }
    let ended = callers.join_all().await;
    let runs = ended.iter().filter(|(ran, _)| *ran).count();
    let failed = ended.iter().filter(|(_, answered)| !answered).count();
    assert_eq!(runs, failed + 1);
    assert!(runs < 10);
}

#[tokio::test(start_paused = true)]
async fn a_follower_waits_until_its_own_deadline() {
    let (cache, budget) = cache_of(1 << 20, 1 << 20, CacheScope::All);
    let request = request(1.0);
    let first = turn(&cache, &request);
    let now = Instant::now();
    let limit = Duration::from_millis(40);
    let of = cache.fingerprint(&request).unwrap();
    let late = cache.find(of, &request, Deadline::after(now, limit));
    let late = tokio::time::timeout(MINUTE, late).await.unwrap();
    assert_eq!(late.unwrap_err(), PredictError::DeadlineExceeded { stage: Stage::Queue });
    assert_eq!((now.elapsed(), budget.taken()), (limit, 0));
    // Neither the turn nor the others notice.
    let mut follower = Box::pin(find(&cache, &request));
    assert!(follower.as_mut().now_or_never().is_none());
    tokio::time::advance(Duration::from_millis(60)).await;
    first.keep(&answer(5.0));
    let Ok(Found::Shared(_, waited)) = follower.await else { panic!() };
    assert_eq!(waited, Duration::from_millis(60));
}

#[tokio::test]
async fn followers_are_bounded_by_the_memory_for_requests() {
    let request = request(1.0);
    let room_for_two = 2 * (request.byte_size() + FOLLOWER_BYTES);
    let (cache, budget) = cache_of(1 << 20, room_for_two, CacheScope::All);
    let first = turn(&cache, &request);
    let mut followers: Vec<_> = (0..2).map(|_| Box::pin(find(&cache, &request))).collect();
    for follower in &mut followers {
        assert!(follower.as_mut().now_or_never().is_none());
    }
    let refused = find(&cache, &request).now_or_never().unwrap().unwrap_err();
    let PredictError::Full { used, limit, retry_after, .. } = refused else { panic!() };
    assert_eq!((used, limit, retry_after), (room_for_two, room_for_two, Some(RETRY_AFTER)));
    first.keep(&answer(5.0));
    for follower in followers {
        assert!(matches!(follower.now_or_never(), Some(Ok(Found::Shared(..)))));
    }
    assert_eq!(budget.taken(), 0);
}

#[test]
fn what_is_kept_stays_below_the_limit() {
    const LIMIT: usize = 64 << 10;
    let (cache, _) = cache_of(LIMIT, 1 << 20, CacheScope::All);
    for number in 0..1000_u16 {
        let contents = floats([1, 1 + i64::from(number % 512)], f32::from(number));
        put(&cache, &valid(message(contents, words(&["a", "b"]))), f32::from(number));
        assert!(cache.bytes() <= LIMIT as u64, "{} after {number}", cache.bytes());
    }
    assert!(cache.bytes() > LIMIT as u64 / 2, "{}", cache.bytes());
    // What it says is what it holds.
    let held: usize = cache
        .entries
        .iter()
        .map(|(_, entry)| {
            let outputs = entry.answer.outputs.iter().map(|(_, tensor)| tensor);
            entry.key.inputs.iter().chain(outputs).map(Tensor::byte_size).sum::<usize>()
        })
        .sum();
    assert!(held < LIMIT, "{held}");
}

#[tokio::test]
async fn an_entry_larger_than_the_cache_is_answered_and_not_kept() {
    for limit in [0, 700] {
        let (cache, _) = cache_of(limit, 1 << 20, CacheScope::All);
        let large = valid(message(floats([1, 100], 1.0), words(&[])));
        let first = turn(&cache, &large);
        let mut follower = Box::pin(find(&cache, &large));
        assert!(follower.as_mut().now_or_never().is_none());
        first.keep(&answer(5.0));
        let Some(Ok(Found::Shared(answer, _))) = follower.now_or_never() else { panic!() };
        assert_eq!(value(&answer), Some(5.0));
        assert_eq!((kept(&cache, &large), cache.bytes()), (None, 0));
        assert_eq!(cache.entries.len(), 0);
        if limit > 0 {
            put(&cache, &request(1.0), 6.0);
            assert_eq!(kept(&cache, &request(1.0)), Some(6.0));
        }
    }
}

#[test]
fn what_is_kept_does_not_hold_the_message_or_the_run_it_came_from() {
    let cache = cache();
    let message_frame = Bytes::from(vec![7; 1 << 16]);
    let run = Bytes::from(vec![8; 1 << 16]);
    let slice = |of: &Bytes| Tensor::dense(DataType::Fp32, shape([1, 1]), of.slice(4..8)).unwrap();
    let text = Tensor::strings(shape([1, 2]), vec![message_frame.slice(..2), Bytes::new()]);
    let request = valid(message(slice(&message_frame), text.unwrap()));
    let outputs = vec![(0, slice(&run))];
    let made = InferResponse { outputs, started_at: Instant::now(), batch_rows: 1 };
    turn(&cache, &request).keep(&made);
    let answer = cache.kept(cache.fingerprint(&request).unwrap(), &request).unwrap();
    assert_eq!(answer.outputs, made.outputs);
    assert!(cache.bytes() < 1024, "{}", cache.bytes());
    drop((request, made));
    assert!(message_frame.is_unique() && run.is_unique());
}
