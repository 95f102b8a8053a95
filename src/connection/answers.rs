//! Answers on their way out, in pieces, and what is known of a peer that does not take them.
//!
//! The HTTP library keeps what a body hands out until the peer has room for it. So a body hands out
//! one piece at a time, and is asked for the next one when the last has found room: that is how
//! progress is seen. The memory of a large answer counts until its last piece was sent; that of small
//! ones is bounded by the number of calls on a connection.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use crate::job::{ByteBudget, BytePermit};

/// Largest piece. Answers up to this size go out whole and are not counted.
const PIECE_BYTES: usize = 32 << 10;

thread_local! {
    /// Whether the call that is polled on this thread has a piece for which there was no room, and
    /// since when.
    static WAITING: Cell<Waiting> = const { Cell::new(Waiting::No) };
}

/// Whether a piece waits for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    No,
    /// It was handed out a moment ago: nearly always there is room, and no clock needs to be read.
    New,
    Since(Instant),
}

/// Polls a call with what was known of its last piece, and returns what is known now.
pub(super) fn watched<T>(
    waiting: Option<Instant>,
    poll: impl FnOnce() -> Poll<T>,
) -> (Poll<T>, Option<Instant>) {
    WAITING.set(waiting.map_or(Waiting::No, Waiting::Since));
    let polled = poll();
    let since = match WAITING.replace(Waiting::No) {
        Waiting::No => None,
        Waiting::New => polled.is_pending().then(Instant::now),
        Waiting::Since(since) => Some(since),
    };
    (polled, since)
}

/// An answer in pieces, which keeps its call open until it is dropped. The call knows the memory.
#[derive(Debug)]
pub(super) struct PiecedBody<B, C> {
    body: B,
    call: C,
    rest: Bytes,
}

impl<B, C> PiecedBody<B, C> {
    pub(super) fn new(body: B, call: C) -> Self {
        Self { body, call, rest: Bytes::new() }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        WAITING.set(Waiting::New);
        let size = self.rest.len().min(PIECE_BYTES);
        Frame::data(self.rest.split_to(size))
    }
}

impl<B, C> HttpBody for PiecedBody<B, C>
where
    B: HttpBody<Data = Bytes> + Unpin,
    C: AsRef<ByteBudget> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        WAITING.set(Waiting::No);
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(match frame?.into_data() {
            Ok(data) => {
                self.rest = counted(data, self.call.as_ref());
                Ok(self.piece())
            }
            Err(trailers) => Ok(trailers),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Asked before the first piece.
        if self.rest.is_empty() { self.body.size_hint() } else { SizeHint::default() }
    }
}

/// Bytes that count until the last slice of them is gone.
struct Counted {
    bytes: Bytes,
    _permit: BytePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn counted(bytes: Bytes, budget: &ByteBudget) -> Bytes {
    if bytes.len() <= PIECE_BYTES {
        return bytes;
    }
    let permit = budget.charge(bytes.len());
    Bytes::from_owner(Counted { bytes, _permit: permit })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// A body of one frame.
    struct One(Option<Bytes>);

    impl HttpBody for One {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
        }
    }

    fn next(body: &mut PiecedBody<One, ByteBudget>) -> Option<Bytes> {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
        Some(frame.now_or_never().unwrap()?.unwrap().into_data().unwrap())
    }

    #[test]
    fn a_large_answer_goes_in_pieces_and_counts_until_the_last_is_gone() {
        let (budget, size) = (ByteBudget::new(10), 2 * PIECE_BYTES + 1);
        let whole = (0..size).map(|index| u8::try_from(index % 251).unwrap()).collect::<Bytes>();
        let mut body = PiecedBody::new(One(Some(whole.clone())), budget.clone());
        let mut pieces = Vec::new();
        let (_, waiting) = watched(None, || {
            while let Some(piece) = next(&mut body) {
                assert!(piece.len() <= PIECE_BYTES && WAITING.get() == Waiting::New);
                pieces.push(piece);
            }
            Poll::Ready(())
        });
        assert!(waiting.is_none(), "the last piece found room");
        assert_eq!((pieces.len(), pieces.concat()), (3, whole.to_vec()));
        drop(body);
        assert_eq!(budget.taken(), size);
        pieces.truncate(1);
        assert_eq!(budget.taken(), size, "one slice keeps it all");
        drop(pieces);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn a_small_answer_goes_as_it_is() {
        let budget = ByteBudget::new(10);
        let mut body = PiecedBody::new(One(Some(Bytes::from_static(b"y"))), budget.clone());
        assert_eq!(next(&mut body).unwrap(), "y");
        assert_eq!((next(&mut body), budget.taken()), (None, 0));
    }
}
