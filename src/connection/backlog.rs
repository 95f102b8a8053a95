//! How long what a peer has sent lies in the socket before it is read.
//!
//! A server that is behind reads requests that have waited, and their deadlines run since they came and
//! not since they were read: whoever does not see that answers all of them too late, and is behind for
//! ever. So while reads do not empty the socket, it is noted now and then how many bytes have come by
//! that time, and what is read later is as old as the first note that counts it. That is a lower bound:
//! bytes come before they are seen.
//!
//! (The kernel's own notes, `SO_TIMESTAMPNS`, are of the wall clock, and packets that wait side by side
//! are merged under the note of the last, up to half a megabyte.)

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::ioctl_fionread;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Time between two notes: below it, nothing is late that was not.
const NOTE_EVERY: Duration = Duration::from_millis(1);
/// Most notes that are kept. A socket that is so far behind gets no more until some are read.
const MOST_NOTES: usize = 256;

/// How long what is read from a connection has lain there; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Backlog(Arc<AtomicU64>);

impl Backlog {
    /// At least so long; zero while each read empties the socket.
    pub fn age(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// Tells those who ask.
    pub(crate) fn set(&self, age: Duration) {
        self.0.store(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// A socket that knows its backlog.
#[derive(Debug)]
pub struct Aging<S> {
    socket: S,
    backlog: Backlog,
    arrived: Arrived,
}

/// What has come by when, of that which is not read yet.
#[derive(Debug, Default)]
struct Arrived {
    /// Bytes that were read so far.
    read: u64,
    /// Times, and bytes that had come by then since the beginning; both rise.
    notes: VecDeque<(Instant, u64)>,
}

impl Arrived {
    /// More was read and the socket is not empty: how long that has lain there at least.
    fn was_read(&mut self, count: u64, now: Instant) -> Duration {
        self.read += count;
        while self.notes.front().is_some_and(|(_, come)| *come < self.read) {
            self.notes.pop_front();
        }
        self.notes.front().map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
    }

    /// Whether it is time for another note.
    fn wants_note(&self, now: Instant) -> bool {
        let is_due = |(at, _): &(Instant, u64)| now.saturating_duration_since(*at) >= NOTE_EVERY;
        self.notes.len() < MOST_NOTES && self.notes.back().is_none_or(is_due)
    }

    /// So many bytes wait.
    fn note(&mut self, waiting: u64, now: Instant) {
        let come = self.read + waiting;
        if self.notes.back().is_none_or(|(_, before)| *before < come) {
            self.notes.push_back((now, come));
        }
    }

    /// All has been read.
    fn emptied(&mut self, count: u64) {
        self.read += count;
        self.notes.clear();
    }
}

impl<S: AsFd> Aging<S> {
    pub(super) fn new(socket: S) -> Self {
        Self { socket, backlog: Backlog::default(), arrived: Arrived::default() }
    }

    /// Its backlog.
    pub(super) fn backlog(&self) -> Backlog {
        self.backlog.clone()
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> &S {
        &self.socket
    }

    /// After a read of `count` bytes, for which there was just room or more.
    fn was_read(&mut self, count: usize, more_room: bool) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let age = if more_room {
            self.arrived.emptied(count);
            Duration::ZERO
        } else {
            let now = Instant::now();
            let age = self.arrived.was_read(count, now);
            if self.arrived.wants_note(now) {
                // Not told: then nothing is known of what comes next, as before.
                self.arrived.note(ioctl_fionread(&self.socket).unwrap_or(0), now);
            }
            age
        };
        if age != self.backlog.age() {
            self.backlog.set(age);
        }
    }
}

impl<S: AsFd + AsyncRead + Unpin> AsyncRead for Aging<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = room.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(context, room))?;
        this.was_read(room.filled().len() - before, room.remaining() > 0);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Aging<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_is_read_is_as_old_as_the_first_note_that_counts_it() {
        let (begun_at, mut arrived) = (Instant::now(), Arrived::default());
        let at = |ms| begun_at + MS * ms;
        assert_eq!(arrived.was_read(10, at(0)), Duration::ZERO);
        arrived.note(100, at(0));
        assert!(!arrived.wants_note(at(0)) && arrived.wants_note(at(1)));
        assert_eq!(arrived.was_read(50, at(7)), MS * 7);
        // By now 90 more have come.
        arrived.note(140, at(8));
        assert_eq!(arrived.was_read(50, at(9)), MS * 9, "the last of the first hundred");
        assert_eq!(arrived.was_read(1, at(9)), MS);
        assert_eq!(arrived.was_read(89, at(20)), MS * 12);
        assert_eq!(arrived.was_read(1, at(21)), Duration::ZERO, "it was never seen waiting");
    }

    #[test]
    fn an_empty_socket_forgets_and_a_full_one_keeps_the_oldest() {
        let (begun_at, mut arrived) = (Instant::now(), Arrived::default());
        arrived.note(100, begun_at);
        arrived.emptied(100);
        assert_eq!(arrived.was_read(10, begun_at + MS), Duration::ZERO);
        for ms in 0..5000 {
            let now = begun_at + MS * ms;
            if arrived.wants_note(now) {
                arrived.note(100 + u64::from(ms), now);
            }
        }
        assert_eq!(arrived.notes.len(), MOST_NOTES);
        assert_eq!(arrived.was_read(1, begun_at + MS * 5000), MS * 5000);
    }

    #[tokio::test]
    async fn a_socket_has_a_backlog_until_it_is_empty() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut aging = Aging::new(listener.accept().await.unwrap().0);
        let backlog = aging.backlog();
        peer.write_all(&[7; 100]).await.unwrap();
        let before = Instant::now();
        aging.read_exact(&mut [0; 40]).await.unwrap();
        assert_eq!(backlog.age(), Duration::ZERO, "it may have come just now");
        aging.read_exact(&mut [0; 40]).await.unwrap();
        assert!(backlog.age() > Duration::ZERO);
        assert!(backlog.age() <= before.elapsed(), "{:?}", backlog.age());
        // More room than bytes: nothing is left.
        assert_eq!(aging.read(&mut [0; 100]).await.unwrap(), 20);
        assert_eq!(backlog.age(), Duration::ZERO);
    }
}
