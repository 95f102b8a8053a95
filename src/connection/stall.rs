//! Ends what a peer holds up by not reading: a call whose answer finds no room in the peer's window,
//! and a connection whose socket takes no byte.
//!
//! Both are needed. A peer may read everything and open no window; it may also open all windows and
//! never read, while it keeps the connection alive by sending.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::answers;

/// Runs calls, each as a task. One whose answer finds no room for `limit` is dropped, which resets
/// its stream and frees all that it holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallExecutor {
    pub(super) limit: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for CallExecutor {
    fn execute(&self, call: F) {
        drop(tokio::spawn(Watched { call, stall: Stall::new(self.limit) }));
    }
}

pin_project! {
    /// A call as a task. By hand: a block of code would be moved once more on its way there.
    struct Watched<F> {
        #[pin]
        call: F,
        stall: Stall,
    }
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let (polled, waiting) = answers::watched(this.stall.since, || this.call.poll(context));
        this.stall.since = waiting;
        if polled.is_pending() && this.stall.poll(context).is_ready() {
            tracing::debug!("call reset: its answer finds no room");
            return Poll::Ready(());
        }
        polled
    }
}

/// A wait that may take so long and no longer.
#[derive(Debug)]
struct Stall {
    limit: Duration,
    /// When it began; `None` while nothing waits.
    since: Option<Instant>,
    /// Set at the first wait and then again only when it has rung, so that a peer that is merely
    /// slow costs a timer now and then.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    fn new(limit: Duration) -> Self {
        Self { limit, since: None, timer: None }
    }

    /// Ready when the wait has taken too long.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(since) = self.since else { return Poll::Pending };
        let end = since + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        while timer.deadline() < end {
            ready!(timer.as_mut().poll(context));
            timer.as_mut().reset(end);
        }
        timer.as_mut().poll(context)
    }
}

/// A socket that fails when it takes no byte for too long.
#[derive(Debug)]
pub(super) struct Unstalled<S> {
    socket: S,
    stall: Stall,
}

impl<S> Unstalled<S> {
    pub(super) fn new(socket: S, limit: Duration) -> Self {
        Self { socket, stall: Stall::new(limit) }
    }

    fn written<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stall.since = None;
            return polled;
        }
        self.stall.since.get_or_insert_with(Instant::now);
        ready!(self.stall.poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.written(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.written(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.socket).poll_flush(context);
        self.written(polled, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.socket).poll_shutdown(context);
        self.written(polled, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_takes_nothing_fails_and_a_slow_one_does_not() {
        let limit = Duration::from_secs(30);
        let (ours, mut theirs) = tokio::io::duplex(1);
        let mut socket = Unstalled::new(ours, limit);
        let began = Instant::now();
        let reader = async {
            for _ in 0..3 {
                tokio::time::sleep(limit.saturating_sub(Duration::from_secs(1))).await;
                theirs.read_u8().await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(socket.write_all(b"abcdef"), reader);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 3 * 29 + 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_on_its_way_is_left_alone() {
        let (sender, done) = tokio::sync::oneshot::channel();
        let executor = CallExecutor { limit: Duration::from_secs(1) };
        hyper::rt::Executor::execute(&executor, async move {
            tokio::time::sleep(Duration::from_secs(100)).await;
            sender.send(()).unwrap();
        });
        done.await.unwrap();
    }
}
