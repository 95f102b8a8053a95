//! One answer from several: a request with more rows than a run takes is split into jobs, and their
//! answers are put together in the order of its rows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::{Answer, Reply};
use crate::error::{ExecuteError, PredictError};
use crate::model::ModelSpec;
use crate::request::InferResponse;
use crate::tensor::Tensor;
use crate::tensor::rows::{RowsError, join};

/// The right and duty to answer a part of a request.
#[derive(Debug)]
pub struct Part {
    index: usize,
    whole: Arc<Mutex<Whole>>,
}

/// A request whose answer comes in parts.
#[derive(Debug)]
struct Whole {
    /// `None` once it was answered.
    sender: Option<oneshot::Sender<Answer>>,
    parts: Vec<Option<InferResponse>>,
    missing: usize,
}

impl Part {
    /// Replies for `count` parts, in order, and the end on which the caller waits.
    pub fn channel(count: usize) -> (Vec<Reply>, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        let parts = (0..count).map(|_| None).collect();
        let whole = Whole { sender: Some(sender), parts, missing: count };
        let whole = Arc::new(Mutex::new(whole));
        let part = |index| Reply::Part(Self { index, whole: Arc::clone(&whole) });
        ((0..count).map(part).collect(), receiver)
    }

    /// Keeps the answer of this part. The last one gives the whole: whom to answer, and what.
    pub fn put(self, response: InferResponse, spec: &ModelSpec) -> Option<(Reply, Answer)> {
        let mut whole = self.lock();
        whole.parts[self.index] = Some(response);
        whole.missing -= 1;
        if whole.missing > 0 {
            return None;
        }
        let sender = whole.sender.take()?;
        let parts: Vec<InferResponse> = whole.parts.iter_mut().filter_map(Option::take).collect();
        drop(whole);
        let answer = put_together(&parts, spec).map_err(|error| {
            let error = ExecuteError::Runtime(format!("parts do not fit together: {error}"));
            tracing::error!(%error, "a request was split");
            PredictError::ExecutionFailed(Arc::new(error))
        });
        Some((Reply::Whole(sender), answer))
    }

    pub(super) fn send(self, answer: Answer) {
        if let Some(sender) = self.lock().sender.take() {
            drop(sender.send(answer));
        }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.lock().sender.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn lock(&self) -> MutexGuard<'_, Whole> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put_together(parts: &[InferResponse], spec: &ModelSpec) -> Result<InferResponse, RowsError> {
    let first = parts.first().ok_or(RowsError::Nothing)?;
    let mut outputs = Vec::with_capacity(first.outputs.len());
    for (place, (index, _)) in first.outputs.iter().enumerate() {
        let axis = spec.outputs.get(*index).and_then(|output| output.batch_axis).unwrap_or(0);
        let tensors: Vec<&Tensor> =
            parts.iter().filter_map(|part| part.outputs.get(place)).map(|(_, part)| part).collect();
        outputs.push((*index, join(&tensors, axis)?));
    }
    let batch_rows = parts.iter().map(|part| part.batch_rows).max().unwrap_or(0);
    let started_at = parts.iter().map(|part| part.started_at).min().unwrap_or(first.started_at);
    Ok(InferResponse { outputs, started_at, batch_rows })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::time::Instant;

    use super::*;
    use crate::model::{Dim, TensorSpec};
    use crate::tensor::{DataType, Shape};

    /// One output with rows on axis 1.
    fn spec() -> ModelSpec {
        let dims = vec![Dim::Fixed(2), Dim::Dynamic(None)];
        let (name, batch_axis) = ("y".into(), Some(1));
        let output = TensorSpec {
            name,
            dtype: DataType::UInt8,
            dims,
            batch_axis,
            reshape: None,
            ragged: None,
        };
        ModelSpec { inputs: Vec::new(), outputs: vec![output] }
    }

    fn response(columns: i64, bytes: &'static [u8]) -> InferResponse {
        let shape = Shape::new(vec![2, columns]).unwrap();
        let tensor = Tensor::dense(DataType::UInt8, shape, Bytes::from_static(bytes)).unwrap();
        InferResponse { outputs: vec![(0, tensor)], started_at: Instant::now(), batch_rows: 3 }
    }

    fn put(reply: Reply, response: InferResponse) -> Option<(Reply, Answer)> {
        let Reply::Part(part) = reply else { panic!("a part") };
        part.put(response, &spec())
    }

    #[test]
    fn the_last_part_gives_the_whole_in_the_order_of_the_rows() {
        let (mut replies, mut receiver) = Part::channel(3);
        let [first, second, third] = [replies.remove(0), replies.remove(0), replies.remove(0)];
        assert!(put(third, response(1, &[6, 60])).is_none());
        assert!(put(first, response(2, &[1, 2, 10, 20])).is_none());
        let (reply, answer) = put(second, response(1, &[3, 30])).unwrap();
        reply.send(answer);
        let whole = receiver.try_recv().unwrap().unwrap();
        let tensor = &whole.outputs[0].1;
        assert_eq!(tensor.shape().dims(), [2, 4]);
        assert_eq!(tensor.dense_bytes().unwrap()[..], [1, 2, 3, 6, 10, 20, 30, 60]);
    }

    #[test]
    fn the_first_error_is_the_answer_and_the_other_parts_are_not_wanted() {
        let (mut replies, mut receiver) = Part::channel(2);
        let (first, second) = (replies.remove(0), replies.remove(0));
        assert!(!second.is_abandoned());
        first.send(Err(PredictError::ShuttingDown));
        assert_eq!(receiver.try_recv().unwrap().unwrap_err(), PredictError::ShuttingDown);
        assert!(second.is_abandoned());
        assert!(put(second, response(1, &[1, 2])).is_none());
    }

    #[test]
    fn parts_that_are_dropped_are_a_lost_worker() {
        let (replies, mut receiver) = Part::channel(2);
        drop(replies);
        assert!(receiver.try_recv().is_err());
    }

    #[test]
    fn parts_that_do_not_fit_together_are_our_fault() {
        let (mut replies, _receiver) = Part::channel(2);
        let (first, second) = (replies.remove(0), replies.remove(0));
        assert!(put(first, response(1, &[1, 2])).is_none());
        let mut other = response(1, &[1, 2]);
        let shape = Shape::new(vec![1, 2]).unwrap();
        let bytes = Bytes::from_static(&[1, 2]);
        other.outputs[0].1 = Tensor::dense(DataType::UInt8, shape, bytes).unwrap();
        let (_, answer) = put(second, other).unwrap();
        assert!(matches!(answer, Err(PredictError::ExecutionFailed(_))));
    }
}
