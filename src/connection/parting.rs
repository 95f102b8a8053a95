//! Lets a peer finish what it was saying when it is told to go.
//!
//! A connection that ends in order says so twice: "no new calls", then, when the peer has confirmed,
//! "this was the last one that I took". Some clients (gRPC's C library, which Python, Ruby, C# and C++
//! use) confirm first and then send calls that they had begun before. The HTTP library has forgotten
//! those by then: it ignores them, and takes what follows about their windows for a violation that ends
//! the connection, with all calls that it still has. So the confirmation is held back until nothing
//! more has come for a moment; the calls behind it are then taken and answered like all others.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::PREFACE;

/// Quiet time after which the confirmation is handed on. What stands behind it was sent in one go.
const QUIET: Duration = Duration::from_millis(20);
/// Length of a frame's head. Source: RFC 9113, section 4.1.
const HEAD: usize = 9;
/// The confirmation: an acknowledged PING with the HTTP library's own eight bytes.
const CONFIRMATION: [u8; HEAD + 8] =
    [0, 0, 8, 6, 1, 0, 0, 0, 0, 0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];
/// Rooms smaller than this are filled by way of a buffer of our own.
const ROOM: usize = 64;

/// A socket whose peer may finish what it was saying.
#[derive(Debug)]
pub(super) struct Parting<S> {
    socket: S,
    frames: Frames,
    /// Read, and not yet handed on.
    waiting: BytesMut,
    quiet: Option<Pin<Box<Sleep>>>,
}

impl<S> Parting<S> {
    pub(super) fn new(socket: S) -> Self {
        let frames =
            Frames { speaks: Speaks::Unknown, left: 0, part: BytesMut::new(), held: false };
        Self { socket, frames, waiting: BytesMut::new(), quiet: None }
    }
}

/// Where in the peer's frames the reader is.
#[derive(Debug)]
struct Frames {
    speaks: Speaks,
    /// Bytes of the present frame that are still to come.
    left: usize,
    /// The beginning of a frame (or of the preface), until it can be told what it is.
    part: BytesMut,
    /// Whether the confirmation has come and was not handed on yet.
    held: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Speaks {
    Unknown,
    Http2,
    Other,
}

impl Frames {
    /// Looks at bytes that stand behind those of `part` (which are among them), takes the confirmation
    /// out, and keeps an unfinished beginning for later. The first so many bytes are to be handed on.
    fn pass(&mut self, bytes: &mut [u8]) -> usize {
        if self.speaks == Speaks::Unknown {
            if bytes.len() < PREFACE.len() && PREFACE.starts_with(bytes) {
                self.part.extend_from_slice(bytes);
                return 0;
            }
            let is_http2 = bytes.starts_with(PREFACE);
            self.speaks = if is_http2 { Speaks::Http2 } else { Speaks::Other };
            self.left = PREFACE.len();
        }
        if self.speaks == Speaks::Other {
            return bytes.len();
        }
        let (mut seen, mut passed) = (0, 0);
        while seen < bytes.len() {
            let rest = &bytes[seen..];
            if self.left == 0 {
                let is_short = rest.len() < HEAD
                    || (rest.len() < CONFIRMATION.len() && CONFIRMATION.starts_with(rest));
                if is_short {
                    self.part.extend_from_slice(rest);
                    break;
                }
                if rest.starts_with(&CONFIRMATION) {
                    self.held = true;
                    seen += CONFIRMATION.len();
                    continue;
                }
                let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]);
                self.left = HEAD + usize::try_from(length).unwrap_or(usize::MAX - HEAD);
            }
            let count = self.left.min(rest.len());
            if passed < seen {
                bytes.copy_within(seen..seen + count, passed);
            }
            (seen, passed, self.left) = (seen + count, passed + count, self.left - count);
        }
        passed
    }
}

impl<S: AsyncRead + Unpin> Parting<S> {
    /// Reads what has come into `room`, of which at least [`ROOM`] bytes are free, and drops from it
    /// what is not to be handed on yet. Nothing was added: the peer has ended.
    fn fill(&mut self, context: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = room.filled().len();
        loop {
            let part = self.frames.part.split();
            room.put_slice(&part);
            let polled = Pin::new(&mut self.socket).poll_read(context, room);
            if !matches!(polled, Poll::Ready(Ok(()))) {
                self.frames.part = part;
                room.set_filled(before);
                return polled;
            }
            if room.filled().len() == before + part.len() {
                // The end: whatever was begun is handed on as it is.
                return Poll::Ready(Ok(()));
            }
            let passed = self.frames.pass(&mut room.filled_mut()[before..]);
            room.set_filled(before + passed);
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Parting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.waiting.is_empty() && buffer.remaining() >= ROOM {
            if let Poll::Ready(read) = this.fill(context, buffer) {
                return Poll::Ready(read);
            }
        } else if this.waiting.is_empty() {
            let mut space = [0; ROOM];
            let mut room = ReadBuf::new(&mut space);
            if let Poll::Ready(read) = this.fill(context, &mut room) {
                read?;
                this.waiting.extend_from_slice(room.filled());
                if this.waiting.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
        }
        if this.waiting.is_empty() {
            // Nothing comes at present.
            if !this.frames.held || this.frames.left > 0 {
                return Poll::Pending;
            }
            let quiet = this.quiet.get_or_insert_with(|| Box::pin(sleep(QUIET)));
            ready!(quiet.as_mut().poll(context));
            (this.frames.held, this.quiet) = (false, None);
            this.waiting.extend_from_slice(&CONFIRMATION);
        }
        let count = this.waiting.len().min(buffer.remaining());
        buffer.put_slice(&this.waiting[..count]);
        this.waiting.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Parting<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0], &[0, 0, 0, 1], payload].concat()
    }

    /// What comes out when `sent` goes in by pieces of these sizes, to reads of these sizes.
    async fn through(sent: &[u8], pieces: &[usize], reads: &[usize]) -> Vec<u8> {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let mut socket = Parting::new(near);
        let (sent, pieces) = (sent.to_vec(), pieces.to_vec());
        let sending = tokio::spawn(async move {
            let mut rest = &sent[..];
            for size in pieces.iter().cycle() {
                let (piece, after) = rest.split_at(rest.len().min(*size));
                far.write_all(piece).await.unwrap();
                rest = after;
                tokio::task::yield_now().await;
                if rest.is_empty() {
                    break;
                }
            }
            // Long enough for what is held back.
            sleep(QUIET * 2).await;
        });
        let mut got = Vec::new();
        for size in reads.iter().cycle() {
            let mut space = vec![0; *size];
            let count = socket.read(&mut space).await.unwrap();
            if count == 0 {
                break;
            }
            got.extend_from_slice(&space[..count]);
        }
        sending.await.unwrap();
        got
    }

    #[tokio::test(start_paused = true)]
    async fn the_confirmation_comes_after_what_stood_behind_it() {
        let behind = [frame(1, &[0x83]), frame(8, &[0, 0, 1, 0])].concat();
        let before = [PREFACE, &frame(4, &[])].concat();
        let sent = [&before[..], &CONFIRMATION, &behind].concat();
        let wanted = [&before[..], &behind, &CONFIRMATION].concat();
        assert_eq!(through(&sent, &[1 << 10], &[1 << 10]).await, wanted);
    }

    #[tokio::test(start_paused = true)]
    async fn another_protocol_passes_as_it_is() {
        let sent = [&b"POST / HTTP/1.1\r\n\r\n"[..], &CONFIRMATION].concat();
        assert_eq!(through(&sent, &[1], &[1]).await, sent);
        assert_eq!(through(b"PRI", &[1], &[100]).await, b"PRI");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// No byte is lost, added or put into another frame, however the bytes come in and are read.
        #[test]
        fn frames_stay_whole(
            payloads in prop::collection::vec(prop::collection::vec(0..9_u8, 0..40), 0..6),
            at in 0..6_usize,
            pieces in prop::collection::vec(1..30_usize, 1..5),
            reads in prop::collection::vec(1..90_usize, 1..5),
        ) {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let frames: Vec<Vec<u8>> = payloads.iter().map(|payload| frame(6, payload)).collect();
            let (before, after) = frames.split_at(at.min(frames.len()));
            let (before, after) = (before.concat(), after.concat());
            let sent = [PREFACE, &before, &CONFIRMATION, &after].concat();
            let got = runtime.unwrap().block_on(through(&sent, &pieces, &reads));
            let got_after = got.strip_prefix(&[PREFACE, &before].concat()[..]).unwrap();
            let place = got_after.windows(CONFIRMATION.len()).position(|w| w == CONFIRMATION);
            let place = place.unwrap();
            let rest = [&got_after[..place], &got_after[place + CONFIRMATION.len()..]].concat();
            prop_assert_eq!(rest, after);
            prop_assert_eq!(got.len(), sent.len());
        }
    }
}
