//! From the start of the process to its first right answer.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use onnxd::bench::input::{self, Given};
use onnxd::pb::ModelInferRequest;
use onnxd::pb::grpc_inference_service_client::GrpcInferenceServiceClient;
use prost::Message;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::run::Server;

/// Pause between two attempts to connect: far below what is measured.
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
            let answer = ask(connect(&server.address).await?, &request).await?;
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

/// Starts a server on `models`, waits for its word that it serves and asks; seconds until the answer,
/// and the server. The word comes by itself: a server that is asked all the time starts later.
pub(crate) fn first_answer(
    models: &Path,
    log: &Path,
    expected: &Expected,
) -> Result<(f64, Server), String> {
    let address = free_address().map_err(|error| error.to_string())?;
    block_on(async {
        let begun_at = Instant::now();
        let server = Server::spawn(models, &address, log)?;
        let channel = loop {
            match connect(&address).await {
                Ok(channel) => break channel,
                Err(problem) if begun_at.elapsed() > PATIENCE => return Err(problem),
                Err(_) => sleep(PAUSE).await,
            }
        };
        timeout(PATIENCE, serves(channel.clone())).await.map_err(|_| "it never served")??;
        let answer = timeout(PATIENCE, ask(channel, &expected.request)).await;
        if !expected.is(&answer.map_err(|_| "it never answered")??) {
            return Err("the first answer is wrong".to_owned());
        }
        Ok((begun_at.elapsed().as_secs_f64(), server))
    })
}

/// Waits until the server says that it serves.
async fn serves(channel: Channel) -> Result<(), String> {
    let everything = HealthCheckRequest { service: String::new() };
    let watched = HealthClient::new(channel).watch(everything).await;
    let mut said = watched.map_err(|status| status.message().to_owned())?.into_inner();
    while let Some(health) = said.message().await.map_err(|status| status.message().to_owned())? {
        if health.status() == ServingStatus::Serving {
            return Ok(());
        }
    }
    Err("it ended before it served".to_owned())
}

/// An address that is free now. The server cannot tell its own before it is up.
fn free_address() -> std::io::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

async fn connect(address: &str) -> Result<Channel, String> {
    let endpoint = Channel::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|error| error.to_string())?;
    endpoint.connect().await.map_err(|error| error.to_string())
}

async fn ask(channel: Channel, request: &ModelInferRequest) -> Result<Vec<f32>, String> {
    let answered = GrpcInferenceServiceClient::new(channel).model_infer(request.clone()).await;
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
