//! A caller that sends frames which are encoded already and reads of an answer only how it ended.
//!
//! It speaks HTTP/2 itself: a generator that costs as much per request as the server under it
//! measures itself, because a server that is never more than one request behind writes every
//! answer alone. A connection that dies is made anew; the request that finds it dead is lost.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Method, Request, Uri, Version};
use tokio::net::TcpStream;
use tokio::sync::Mutex as Turn;
use tonic::{Code, Status};

/// Path of the unary call.
const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
/// Path of the streaming call.
const MODEL_STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
/// Windows large enough that flow control never shows in a figure.
const WINDOW_BYTES: u32 = 8 << 20;
/// Calls given up whose late frames are still known as such: beyond it, the library takes a late
/// frame for a fault of the server.
const REMEMBERED_RESETS: usize = 100_000;
/// Flag and length in front of each message.
const PREFIX_BYTES: usize = 5;
/// Key of `ModelStreamInferResponse.error_message`, which comes first if it is there.
const ERROR_MESSAGE_KEY: u8 = 1 << 3 | 2;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// A message with its prefix, as it goes into a frame. Messages of 4 GiB cannot be framed.
pub fn framed(message: &[u8]) -> Option<Bytes> {
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).ok()?);
    frame.put_slice(message);
    Some(frame.freeze())
}

/// A connection to a server, shared by callers.
#[derive(Debug)]
pub struct RawClient {
    address: String,
    unary: Uri,
    streaming: Uri,
    link: Arc<Link>,
}

/// The connection, which is made anew when it dies.
#[derive(Debug)]
struct Link {
    sender: Mutex<SendRequest<Bytes>>,
    /// Held by the task that makes the connection anew. No caller does so itself: one that gives up
    /// would take the half-made connection along.
    dialing: Turn<()>,
}

impl RawClient {
    /// Connects to `HOST:PORT`.
    ///
    /// # Errors
    /// A sentence with the reason.
    pub async fn connect(address: &str) -> Result<Self, String> {
        let uri = |path: &str| -> Result<Uri, String> {
            format!("http://{address}{path}").parse().map_err(|error| format!("{address}: {error}"))
        };
        let (unary, streaming) = (uri(MODEL_INFER)?, uri(MODEL_STREAM_INFER)?);
        let sender =
            dial(address).await.map_err(|error| format!("cannot reach {address}: {error}"));
        let link = Arc::new(Link { sender: Mutex::new(sender?), dialing: Turn::new(()) });
        Ok(Self { address: address.to_owned(), unary, streaming, link })
    }

    /// One unary call of a framed message. `timeout` goes to the server as `grpc-timeout`; it does
    /// not end the call here.
    ///
    /// # Errors
    /// The call's code.
    pub async fn call(&self, message: Bytes, timeout: Option<Duration>) -> Result<(), Code> {
        let (answer, mut body) = {
            let mut sender = self.ready().await?;
            let request = request(&self.unary, timeout);
            sender.send_request(request, false).map_err(code)?
        };
        body.send_data(message, true).map_err(code)?;
        let (head, mut content) = answer.await.map_err(code)?.into_parts();
        if head.headers.contains_key(GRPC_STATUS) {
            return ended(&head.headers);
        }
        while let Some(chunk) = content.data().await {
            let size = chunk.map_err(code)?.len();
            content.flow_control().release_capacity(size).map_err(code)?;
        }
        let trailers = content.trailers().await.map_err(code)?;
        ended(&trailers.unwrap_or_default())
    }

    /// Opens one streaming call. Does not wait for the server, which may want a message first.
    ///
    /// # Errors
    /// The call's code.
    pub async fn stream(&self) -> Result<(Messages, Answers), Code> {
        let mut sender = self.ready().await?;
        let opened = sender.send_request(request(&self.streaming, None), false);
        let (answer, body) = opened.map_err(code)?;
        Ok((Messages(body), Answers::Opening(answer)))
    }

    /// The connection, when it takes another call.
    async fn ready(&self) -> Result<SendRequest<Bytes>, Code> {
        let sender = self.link.sender();
        if let Ok(sender) = sender.ready().await {
            return Ok(sender);
        }
        let mended = tokio::spawn(Arc::clone(&self.link).mend(self.address.clone()));
        drop(mended.await);
        Err(Code::Unavailable)
    }
}

impl Link {
    fn sender(&self) -> SendRequest<Bytes> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the connection anew, or waits until somebody else has.
    async fn mend(self: Arc<Self>, address: String) {
        let Ok(_turn) = self.dialing.try_lock() else {
            drop(self.dialing.lock().await);
            return;
        };
        if !matches!(self.sender().ready().now_or_never(), Some(Err(_))) {
            return;
        }
        match dial(&address).await {
            Ok(sender) => *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = sender,
            Err(_) => tokio::time::sleep(REDIAL_PAUSE).await,
        }
    }
}

/// Pause after a server could not be reached.
const REDIAL_PAUSE: Duration = Duration::from_millis(50);

async fn dial(address: &str) -> Result<SendRequest<Bytes>, Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .enable_push(false);
    let (sender, connection) = builder.handshake(stream).await?;
    // Its errors reach the calls that ride on it.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender.ready().await?)
}

fn request(uri: &Uri, timeout: Option<Duration>) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(timeout) = timeout {
        // At most eight digits.
        let micros = timeout.as_micros().min(99_999_999);
        if let Ok(value) = HeaderValue::try_from(format!("{micros}u")) {
            headers.insert(GRPC_TIMEOUT, value);
        }
    }
    request
}

/// How a call ended, by its trailers or, if it has no others, its headers.
fn ended(headers: &HeaderMap) -> Result<(), Code> {
    match headers.get(GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes())) {
        Some(Code::Ok) => Ok(()),
        Some(code) => Err(code),
        None => Err(Code::Unknown),
    }
}

/// The code that stands for an HTTP/2 error.
fn code(error: h2::Error) -> Code {
    if error.is_io() || error.is_go_away() {
        return Code::Unavailable;
    }
    Status::from_error(Box::new(error)).code()
}

/// The sending half of a stream.
#[derive(Debug)]
pub struct Messages(SendStream<Bytes>);

impl Messages {
    /// Sends a framed message; one after the end of the call is lost.
    pub fn send(&mut self, message: Bytes) {
        self.0.send_data(message, false).ok();
    }

    /// Says that no more come.
    pub fn finish(mut self) {
        self.0.send_data(Bytes::new(), true).ok();
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub enum Answers {
    /// The server has not answered the call yet.
    Opening(ResponseFuture),
    /// Messages come; those bytes of them that have come and were not taken.
    Open(RecvStream, BytesMut),
}

impl Answers {
    /// The next answer; `None` after the last. A message that failed inside the stream has no code
    /// of its own and counts as UNKNOWN.
    ///
    /// # Errors
    /// The inner ones are of one message, the outer ones end the call.
    pub async fn next(&mut self) -> Result<Option<Result<(), Code>>, Code> {
        let (content, received) = match self {
            Self::Open(content, received) => (content, received),
            Self::Opening(answer) => {
                let (head, content) = answer.await.map_err(code)?.into_parts();
                if head.headers.contains_key(GRPC_STATUS) {
                    return ended(&head.headers).map(|()| None);
                }
                *self = Self::Open(content, BytesMut::new());
                return Box::pin(self.next()).await;
            }
        };
        loop {
            if let Some(answer) = take_message(received) {
                let failed = answer.first() == Some(&ERROR_MESSAGE_KEY);
                return Ok(Some(if failed { Err(Code::Unknown) } else { Ok(()) }));
            }
            let Some(chunk) = content.data().await else {
                let trailers = content.trailers().await.map_err(code)?;
                return ended(&trailers.unwrap_or_default()).map(|()| None);
            };
            let chunk = chunk.map_err(code)?;
            content.flow_control().release_capacity(chunk.len()).map_err(code)?;
            received.extend_from_slice(&chunk);
        }
    }
}

/// Takes the first message, without its prefix, if all of it is there.
fn take_message(received: &mut BytesMut) -> Option<BytesMut> {
    let mut prefix = received.get(1..PREFIX_BYTES)?;
    let length = usize::try_from(prefix.get_u32()).ok()?;
    if received.len() < PREFIX_BYTES + length {
        return None;
    }
    received.advance(PREFIX_BYTES);
    Some(received.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in_however_they_are_cut() {
        let sent = [framed(b"one").unwrap(), framed(b"").unwrap(), framed(b"three").unwrap()];
        let mut received = BytesMut::new();
        let mut messages = Vec::new();
        for byte in sent.concat() {
            received.put_u8(byte);
            messages.extend(take_message(&mut received));
        }
        assert_eq!(messages, [&b"one"[..], b"", b"three"]);
        assert!(received.is_empty());
    }

    #[test]
    fn a_call_without_a_status_did_not_succeed() {
        let mut headers = HeaderMap::new();
        assert_eq!(ended(&headers), Err(Code::Unknown));
        headers.insert(GRPC_STATUS, HeaderValue::from_static("8"));
        assert_eq!(ended(&headers), Err(Code::ResourceExhausted));
        headers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        assert_eq!(ended(&headers), Ok(()));
    }

    #[test]
    fn the_timeout_has_at_most_eight_digits() {
        let uri = Uri::from_static("http://a/b");
        let header = |timeout| request(&uri, Some(timeout)).headers()[GRPC_TIMEOUT].clone();
        assert_eq!(header(Duration::from_millis(50)), "50000u");
        assert_eq!(header(Duration::from_hours(1)), "99999999u");
    }
}
