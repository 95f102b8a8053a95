//! From the start of the process to its first right answer.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use onnxd::bench::input::{self, Given};
use onnxd::pb::ModelInferRequest;
use onnxd::pb::grpc_inference_service_client::GrpcInferenceServiceClient;
use prost::Message;
use tokio::time::{Instant, sleep};

use crate::run::Server;

/// Pause between two attempts: far below what is measured.
const PAUSE: Duration = Duration::from_millis(1);
/// After which the server will not answer any more.
const PATIENCE: Duration = Duration::from_secs(30);
/// Relative difference of two runs that rounding explains.
const TOLERANCE: f32 = 1e-4;

/// A request and its answer, from a server that runs already.
pub(crate) struct Expected {
    request: ModelInferRequest,
    answer: Vec<f32>,
}

impl Expected {
    /// Asks `server` for the answer of `model`.
    pub(crate) fn of(server: &Server, model: &str) -> Result<Self, String> {
        block_on(async {
            let metadata = input::metadata(&server.address, model).await?;
            let encoded = input::request(&metadata, (1, 1), &Given::default())?;
            let request = ModelInferRequest::decode(encoded).map_err(|error| error.to_string())?;
            let answer = ask(&server.address, &request).await?;
            Ok(Self { request, answer })
        })
    }

    fn is(&self, answer: &[f32]) -> bool {
        answer.len() == self.answer.len()
            && answer.iter().zip(&self.answer).all(|(got, expected)| {
                (got - expected).abs() <= TOLERANCE * expected.abs().max(1.0)
            })
    }
}

/// Starts a server on `models` and asks until it answers; seconds until then, and the server.
pub(crate) fn first_answer(
    models: &Path,
    log: &Path,
    expected: &Expected,
) -> Result<(f64, Server), String> {
    let address = free_address().map_err(|error| error.to_string())?;
    block_on(async {
        let begun_at = Instant::now();
        let server = Server::spawn(models, &address, log)?;
        loop {
            let problem = match ask(&address, &expected.request).await {
                Ok(answer) if expected.is(&answer) => {
                    return Ok((begun_at.elapsed().as_secs_f64(), server));
                }
                Ok(_) => return Err("the first answer is wrong".to_owned()),
                Err(problem) => problem,
            };
            if begun_at.elapsed() > PATIENCE {
                return Err(format!("no answer after start: {problem}"));
            }
            sleep(PAUSE).await;
        }
    })
}

/// An address that is free now. The server cannot tell its own before it is up.
fn free_address() -> std::io::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

async fn ask(address: &str, request: &ModelInferRequest) -> Result<Vec<f32>, String> {
    let connected = GrpcInferenceServiceClient::connect(format!("http://{address}")).await;
    let mut client = connected.map_err(|error| error.to_string())?;
    let answered = client.model_infer(request.clone()).await;
    let answer = answered.map_err(|status| status.message().to_owned())?.into_inner();
    let raw = answer.raw_output_contents.first().ok_or("an answer without an output")?;
    Ok(raw
        .chunks_exact(4)
        .filter_map(|four| Some(f32::from_le_bytes(four.try_into().ok()?)))
        .collect())
}

fn block_on<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(work)
}
