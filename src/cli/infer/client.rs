//! Calls to the server, and how their failures read.
//!
//! Tensors travel raw in both directions. Every failure becomes the outcome of the command: the
//! gRPC code by its usual name and the server's own words.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::{Target, refused, wrong};
use crate::cli::Outcome;
use crate::pb;
use crate::pb::grpc_inference_service_client::GrpcInferenceServiceClient;
use crate::pb::model_infer_request::InferInputTensor;
use crate::tensor::DataType;

/// Longest wait for a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// A peer that is gone without a word is noticed after this time.
const PING_EVERY: Duration = Duration::from_secs(20);

/// A tensor on its way to or from the server.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WireTensor {
    pub(super) name: String,
    pub(super) dtype: DataType,
    pub(super) shape: Vec<i64>,
    /// Little-endian, row-major.
    pub(super) raw: Bytes,
}

impl WireTensor {
    /// A tensor of 32-bit floats.
    pub(super) fn floats(name: &str, shape: &[i64], values: &[f32]) -> Self {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name: name.to_owned(), dtype: DataType::Fp32, shape: shape.to_vec(), raw }
    }

    /// The values of a tensor of 32-bit floats.
    pub(super) fn to_floats(&self) -> Vec<f32> {
        let (values, _) = self.raw.as_chunks::<4>();
        values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }
}

/// A connection, and which model it asks.
#[derive(Debug)]
pub(super) struct Client {
    inner: GrpcInferenceServiceClient<Channel>,
    model: String,
    version: String,
    timeout: Option<Duration>,
    token: Option<MetadataValue<Ascii>>,
}

impl Client {
    /// Connects to the server of `target`.
    pub(super) async fn new(target: &Target, timeout: Option<Duration>) -> Result<Self, Outcome> {
        let address = &target.address;
        let credentials = &target.credentials;
        if address.starts_with("https:") && credentials.tls.is_none() {
            return Err(wrong(format!("--addr {address}: TLS needs --tls-ca")));
        }
        let bare = address.trim_start_matches("http://").trim_start_matches("https://");
        let scheme = if credentials.tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{bare}"))
            .map_err(|_| wrong(format!("--addr is {address:?}, expected HOST:PORT")))?
            .connect_timeout(CONNECT_PATIENCE)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_EVERY)
            .keep_alive_while_idle(true);
        if let Some(tls) = credentials.tls.clone() {
            let secured = endpoint.tls_config(tls);
            endpoint = secured.map_err(|error| wrong(format!("TLS: {}", root_cause(&error))))?;
        }
        let channel = endpoint.connect().await.map_err(|error| {
            let cause = root_cause(&error);
            refused(format!("no server answers at {bare}: {cause}. Is `onnxd serve` running?"))
        })?;
        let inner = GrpcInferenceServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        let (model, version) = (target.model.clone(), target.version.clone());
        Ok(Self { inner, model, version, timeout, token: credentials.token.clone() })
    }

    fn call<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        if let Some(token) = self.token.clone() {
            request.metadata_mut().insert("authorization", token);
        }
        request
    }

    /// The model's inputs and outputs.
    pub(super) async fn metadata(&mut self) -> Result<pb::ModelMetadataResponse, Outcome> {
        let (name, version) = (self.model.clone(), self.version.clone());
        let request = self.call(pb::ModelMetadataRequest { name, version });
        let answer = self.inner.model_metadata(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| failure(&status))
    }

    /// One prediction.
    pub(super) async fn infer(
        &mut self,
        inputs: Vec<WireTensor>,
    ) -> Result<Vec<WireTensor>, Outcome> {
        let request = self.call(self.message(inputs));
        let answer = self.inner.model_infer(request).await.map_err(|status| failure(&status))?;
        outputs(answer.into_inner())
    }

    /// Opens a streaming call with its first message. (A server may keep its headers back until
    /// it has read one.)
    pub(super) async fn stream(mut self, first: Vec<WireTensor>) -> Result<Stream, Outcome> {
        let (sender, receiver) = mpsc::channel(1);
        // The channel is new and has room.
        drop(sender.send(self.message(first)).await);
        let request = self.call(ReceiverStream::new(receiver));
        let answers = self.inner.model_stream_infer(request).await;
        let answers = answers.map_err(|status| failure(&status))?.into_inner();
        Ok(Stream { client: self, sender, answers })
    }

    fn message(&self, inputs: Vec<WireTensor>) -> pb::ModelInferRequest {
        let mut message = pb::ModelInferRequest {
            model_name: self.model.clone(),
            model_version: self.version.clone(),
            ..pb::ModelInferRequest::default()
        };
        for WireTensor { name, dtype, shape, raw } in inputs {
            let datatype = dtype.wire_name().to_owned();
            message.inputs.push(InferInputTensor { name, datatype, shape, ..Default::default() });
            message.raw_input_contents.push(raw);
        }
        message
    }
}

/// A streaming call with one message in flight.
#[derive(Debug)]
pub(super) struct Stream {
    client: Client,
    sender: mpsc::Sender<pb::ModelInferRequest>,
    answers: Streaming<pb::ModelStreamInferResponse>,
}

impl Stream {
    /// Sends the next message.
    pub(super) async fn send(&mut self, inputs: Vec<WireTensor>) {
        // It fails when the call is over; then the answer says why.
        drop(self.sender.send(self.client.message(inputs)).await);
    }

    /// Waits for the next answer.
    pub(super) async fn answer(&mut self) -> Result<Vec<WireTensor>, Outcome> {
        let answer = self.answers.message().await.map_err(|status| failure(&status))?;
        let answer = answer.ok_or_else(|| refused("the server ended the stream early"))?;
        if !answer.error_message.is_empty() {
            return Err(refused(format!("the server refused: {}", visible(&answer.error_message))));
        }
        outputs(answer.infer_response.unwrap_or_default())
    }
}

fn outputs(answer: pb::ModelInferResponse) -> Result<Vec<WireTensor>, Outcome> {
    let (count, entries) = (answer.outputs.len(), answer.raw_output_contents.len());
    if count != entries {
        return Err(refused(format!("the answer has {count} outputs and {entries} raw contents")));
    }
    let pairs = answer.outputs.into_iter().zip(answer.raw_output_contents);
    let tensors = pairs.map(|(output, raw)| {
        let Some(dtype) = DataType::from_wire_name(&output.datatype) else {
            let got = output.datatype;
            return Err(refused(format!("output {:?} has the datatype {got:?}", output.name)));
        };
        Ok(WireTensor { name: output.name, dtype, shape: output.shape, raw })
    });
    tensors.collect()
}

fn failure(status: &Status) -> Outcome {
    // Our own side of the connection ends a late call like this.
    if (status.code(), status.message()) == (Code::Cancelled, "Timeout expired") {
        return refused("DEADLINE_EXCEEDED: no answer within --timeout-ms");
    }
    let (code, message) = (code_name(status.code()), visible(status.message()));
    match std::error::Error::source(status) {
        // Not an answer of the server, but the connection's end.
        Some(error) => refused(format!("{code}: {message}: {}", root_cause(error))),
        None => refused(format!("{code}: {message}")),
    }
}

/// `InvalidArgument` is `INVALID_ARGUMENT` to everybody else.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// A text from elsewhere on a terminal: control characters are shown, not obeyed.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() && letter != '\n' {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_read_like_grpc() {
        let outcome = failure(&Status::invalid_argument("input `x`: \u{1b}[31mwrong"));
        assert_eq!(outcome.code, 1);
        assert_eq!(outcome.text, "INVALID_ARGUMENT: input `x`: \\u{1b}[31mwrong");
        assert_eq!(code_name(Code::Ok), "OK");
        assert_eq!(code_name(Code::DeadlineExceeded), "DEADLINE_EXCEEDED");
    }

    #[test]
    fn an_answer_without_raw_contents_is_told() {
        let output = pb::model_infer_response::InferOutputTensor::default();
        let answer = pb::ModelInferResponse { outputs: vec![output], ..Default::default() };
        let outcome = outputs(answer).unwrap_err();
        assert_eq!(outcome.text, "the answer has 1 outputs and 0 raw contents");
    }

    #[test]
    fn floats_travel_unchanged() {
        let tensor = WireTensor::floats("x", &[1, 2], &[1.5, -0.25]);
        assert_eq!((tensor.raw.len(), tensor.to_floats()), (8, vec![1.5, -0.25]));
    }
}
