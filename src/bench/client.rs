//! A caller that sends bytes which are encoded already and takes answers as bytes.

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Path of the unary call.
const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
/// Path of the streaming call.
const MODEL_STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
/// Windows large enough that flow control never shows in a figure.
const WINDOW_BYTES: u32 = 8 << 20;

/// Passes bytes through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// A connection to a server.
#[derive(Debug, Clone)]
pub struct RawClient(Grpc<Channel>);

impl RawClient {
    /// Connects to `HOST:PORT`.
    ///
    /// # Errors
    /// What the transport says.
    pub async fn connect(address: &str) -> Result<Self, tonic::transport::Error> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .tcp_nodelay(true)
            .connect()
            .await?;
        let largest = usize::MAX;
        Ok(Self(Grpc::new(channel).max_decoding_message_size(largest)))
    }

    /// One unary call.
    ///
    /// # Errors
    /// The call's status.
    pub async fn call(&mut self, request: Request<Bytes>) -> Result<Bytes, Status> {
        self.0.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(MODEL_INFER);
        self.0.unary(request, path, Raw).await.map(tonic::Response::into_inner)
    }

    /// One streaming call; `messages` are the requests.
    ///
    /// # Errors
    /// The call's status.
    pub async fn stream(
        &mut self,
        messages: impl futures_util::Stream<Item = Bytes> + Send + 'static,
    ) -> Result<tonic::Streaming<Bytes>, Status> {
        self.0.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(MODEL_STREAM_INFER);
        let request = Request::new(messages);
        self.0.streaming(request, path, Raw).await.map(tonic::Response::into_inner)
    }
}
