//! Compressed messages, made plain before the framework sees them.
//!
//! The framework decompresses into one buffer that doubles as it grows: a message that turns out to be
//! above the limit has taken twice the limit by then, uncounted. Here what comes out lies in parts, counts
//! against the memory for requests as it comes, ends at the limit, and goes on as a message that is not
//! compressed.
//!
//! Source: gRPC over HTTP/2, "Requests" (`Compressed-Flag`); RFC 1952; RFC 8878.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::read::GzDecoder;
use http_body::{Body as HttpBody, Frame};
use tonic::Status;
use tonic::body::Body;

use super::{FRAME_BYTES, full, prefix};
use crate::config::Compression;
use crate::grpc::status::status;
use crate::job::{ByteBudget, BytePermit};

/// What is decompressed at a time.
const PART_BYTES: usize = 64 << 10;
/// Messages of zstd refer back at most so far, as a power of two: a decoder keeps as much. RFC 8878
/// recommends that these 8 MiB are understood; only levels beyond 19 go further.
const ZSTD_WINDOW_LOG: u32 = 23;

/// `request` with messages that are not compressed, if it says how they are and that is among
/// `encodings`; the framework has the words for all others.
pub(in crate::grpc) fn decompressed(
    request: http::Request<Body>,
    encodings: &[Compression],
    limit: usize,
    budget: &ByteBudget,
) -> http::Request<Body> {
    let named = request.headers().get("grpc-encoding").and_then(|name| name.to_str().ok());
    let named = named.and_then(|name| encodings.iter().find(|encoding| encoding.name() == name));
    let Some(encoding) = named.copied() else { return request };
    request.map(|body| Body::new(Decompressed::new(body, encoding, limit, budget.clone())))
}

/// A body of messages that were compressed.
#[derive(Debug)]
struct Decompressed<B> {
    body: B,
    encoding: Compression,
    limit: usize,
    budget: ByteBudget,
    /// Memory of the message that goes on.
    permit: Option<BytePermit>,
    /// The beginning of a message of which not all is there.
    incoming: BytesMut,
    /// Bytes of a message that goes on as it came.
    passing: usize,
    outgoing: VecDeque<Bytes>,
    ended: bool,
}

impl<B> Decompressed<B> {
    fn new(body: B, encoding: Compression, limit: usize, budget: ByteBudget) -> Self {
        Self {
            body,
            encoding,
            limit,
            budget,
            permit: None,
            incoming: BytesMut::new(),
            passing: 0,
            outgoing: VecDeque::new(),
            ended: false,
        }
    }

    /// Lets go on what is there, one message at a time: each may be many times as large as it came.
    fn pass(&mut self) -> Result<(), Status> {
        if self.passing == 0 {
            let Some((flag, length)) = prefix(&self.incoming) else { return Ok(()) };
            // One above the limit is refused by whoever reads it.
            if flag == 1 && length <= self.limit {
                let whole = FRAME_BYTES + length;
                if self.incoming.len() < whole {
                    // A large one is seen when half of it is there ([`super::held`]).
                    self.incoming.reserve(whole - self.incoming.len());
                    return Ok(());
                }
                let message = self.incoming.split_to(whole);
                return self.decompress(&message[FRAME_BYTES..]);
            }
            self.passing = length.saturating_add(FRAME_BYTES);
        }
        let passes = self.passing.min(self.incoming.len());
        self.passing -= passes;
        self.outgoing.push_back(self.incoming.split_to(passes).freeze());
        Ok(())
    }

    fn decompress(&mut self, message: &[u8]) -> Result<(), Status> {
        let broken = |error: io::Error| {
            let name = self.encoding.name();
            Status::internal(format!(
                "the message is not what grpc-encoding `{name}` says: {error}"
            ))
        };
        let mut reader: Box<dyn Read + '_> = match self.encoding {
            Compression::Gzip => Box::new(GzDecoder::new(message)),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(message).map_err(broken)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(broken)?;
                Box::new(decoder)
            }
        };
        let permit = self.permit.get_or_insert_with(|| self.budget.charge(0));
        let (mut parts, mut length) = (Vec::new(), 0);
        loop {
            let mut part = Vec::with_capacity(PART_BYTES);
            let came = reader.by_ref().take(PART_BYTES as u64).read_to_end(&mut part);
            let came = came.map_err(broken)?;
            if came == 0 {
                break;
            }
            length += came;
            if length > self.limit {
                return Err(Status::resource_exhausted(format!(
                    "message has more than {limit} bytes when decompressed, the limit is {limit}",
                    limit = self.limit
                )));
            }
            if !self.budget.extend(permit, came) {
                return Err(status(&full(&self.budget, came), ""));
            }
            parts.push(Bytes::from(part));
        }
        let mut front = BytesMut::with_capacity(FRAME_BYTES);
        front.put_u8(0);
        front.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        self.outgoing.push_back(front.freeze());
        self.outgoing.extend(parts);
        Ok(())
    }
}

impl<B> HttpBody for Decompressed<B>
where
    B: HttpBody<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(part) = this.outgoing.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            // Whoever asks for more has decoded what came before.
            this.permit = None;
            if !this.incoming.is_empty() {
                if let Err(error) = this.pass() {
                    (this.ended, this.permit) = (true, None);
                    return Poll::Ready(Some(Err(error)));
                }
                if !this.outgoing.is_empty() {
                    continue;
                }
            }
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.incoming.extend_from_slice(&data),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    // The framework has the words for a message that breaks off.
                    this.ended = true;
                    let rest = this.incoming.split().freeze();
                    this.outgoing.extend(Some(rest).filter(|rest| !rest.is_empty()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
