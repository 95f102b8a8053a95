//! Many callers at once: each gets the rows of its own request and the outputs that it asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use onnxd::pb::model_infer_request::InferRequestedOutputTensor;
use onnxd::pb::{ModelInferRequest, ModelInferResponse};
use tokio::task::JoinSet;

use crate::harness::{Noise, RealServer, floats, generated, output, repository, request};

const CALLERS: u16 = 32;
const REQUESTS: u16 = 2000;
const MAX_ROWS: u64 = 16;
const MODELS: [&str; 3] = ["identity_f32", "identity_i64", "two_inputs"];

/// Sixty-fourths of a float that holds a request's number: positions of its elements.
const STEPS: f32 = 64.0;

/// What request `number` sends and must get: the number and the position are in every element.
struct Question {
    number: u16,
    model: &'static str,
    rows: u16,
    columns: u16,
    wanted: Vec<&'static str>,
}

impl Question {
    fn new(number: u16, noise: &mut Noise) -> Self {
        let model = MODELS[usize::from(noise.below(3))];
        let rows = 1 + noise.below(8);
        let columns =
            if model == "two_inputs" { 4 } else { [1, 3, 7][usize::from(noise.below(3))] };
        let wanted = match (model, noise.below(4)) {
            ("two_inputs", 0) => vec![],
            ("two_inputs", 1) => vec!["sum"],
            ("two_inputs", 2) => vec!["diff"],
            ("two_inputs", _) => vec!["diff", "sum"],
            (_, 0) => vec!["y"],
            _ => vec![],
        };
        Self { number, model, rows, columns, wanted }
    }

    fn shape(&self) -> [i64; 2] {
        [self.rows.into(), self.columns.into()]
    }

    fn positions(&self) -> impl Iterator<Item = u16> {
        0..self.rows * self.columns
    }

    /// Number and position, exact in a float.
    fn floats(&self, numbers: f32) -> Vec<f32> {
        let number = f32::from(self.number) * numbers;
        self.positions().map(|position| number + f32::from(position) / STEPS).collect()
    }

    fn integers(&self) -> Vec<u8> {
        let number = i64::from(self.number) << 32;
        let each = |position: u16| (number | i64::from(position)).to_le_bytes();
        self.positions().flat_map(each).collect()
    }

    fn message(&self) -> ModelInferRequest {
        let shape = self.shape();
        let inputs = match self.model {
            "identity_i64" => vec![("x", "INT64", &shape[..], self.integers())],
            "identity_f32" => vec![("x", "FP32", &shape[..], floats(&self.floats(1.0)))],
            _ => vec![
                ("a", "FP32", &shape[..], floats(&self.floats(2.0))),
                ("b", "FP32", &shape[..], floats(&self.floats(1.0))),
            ],
        };
        let mut message = request(self.model, inputs);
        message.id = self.number.to_string();
        for name in &self.wanted {
            let output =
                InferRequestedOutputTensor { name: (*name).to_owned(), ..Default::default() };
            message.outputs.push(output);
        }
        message
    }

    fn check(&self, answer: &ModelInferResponse) {
        assert_eq!(answer.id, self.number.to_string());
        let all: &[&str] = if self.model == "two_inputs" { &["sum", "diff"] } else { &["y"] };
        let wanted = if self.wanted.is_empty() { all } else { &self.wanted };
        let got: Vec<&str> = answer.outputs.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(got, wanted);
        for (index, tensor) in answer.outputs.iter().enumerate() {
            assert_eq!(tensor.shape, self.shape());
            if self.model == "identity_i64" {
                assert_eq!(answer.raw_output_contents[index], self.integers());
                continue;
            }
            let number = f32::from(self.number);
            let expected = self.positions().map(|position| match tensor.name.as_str() {
                "sum" => 3.0 * number + 2.0 * f32::from(position) / STEPS,
                "diff" => number,
                _ => number + f32::from(position) / STEPS,
            });
            assert_eq!(output(answer, index), expected.collect::<Vec<f32>>());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_requests_of_thirty_two_callers() {
    let sources = MODELS.map(|model| generated().join(model));
    let config = format!(
        "batching = \"fixed\"\nmax_batch_size = {MAX_ROWS}\nmax_queue_delay_us = 1000\ninstances = 2"
    );
    let listed: Vec<_> = sources.iter().map(|path| (path.as_path(), config.as_str())).collect();
    let mut server = RealServer::start(repository(&listed).path(), &[]).await;
    let next = Arc::new(AtomicU16::new(0));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        // Four connections.
        let client = if caller < 4 { server.another_client().await } else { server.client.clone() };
        let (mut client, next) = (client, Arc::clone(&next));
        let mut noise = Noise::new(22 + u64::from(caller));
        callers.spawn(async move {
            let mut answered = 0_u16;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= REQUESTS {
                    return answered;
                }
                let question = Question::new(number, &mut noise);
                let answer = client.model_infer(question.message()).await.unwrap();
                question.check(answer.get_ref());
                answered += 1;
            }
        });
    }
    let answered: u16 = callers.join_all().await.iter().sum();
    assert_eq!(answered, REQUESTS);

    let (mut requests, mut runs) = (0, 0);
    for model in MODELS {
        let counts = server.statistics(model).await;
        requests += counts.inference_stats.unwrap().success.unwrap().count;
        runs += counts.execution_count;
        for batch in &counts.batch_stats {
            assert!(batch.batch_size <= MAX_ROWS, "{model} ran {} rows", batch.batch_size);
        }
    }
    assert_eq!(requests, u64::from(REQUESTS));
    // Otherwise nothing was tried. Most requests have company: 32 callers, 7 groups.
    assert!(runs * 5 < requests * 4, "{requests} requests took {runs} runs");
    server.finish().await;
}
