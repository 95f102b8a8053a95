//! The two kinds of socket that calls come in on: TCP, and Unix for callers on the same host.

use std::io;

use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A bound socket.
pub trait Accept {
    /// What it accepts.
    type Socket: Socket;

    /// The next connection.
    ///
    /// # Errors
    /// The system's.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Socket>> + Send;
}

/// A connected socket.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {
    /// Waits for bytes and copies them without taking them; none when the peer has gone.
    ///
    /// # Errors
    /// The system's.
    fn peek(&self, bytes: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;

    /// Whether the peer has ended its side, behind bytes that are there.
    ///
    /// # Errors
    /// The system's.
    fn has_ended(&self) -> impl Future<Output = io::Result<bool>> + Send;

    /// Sends what is written without waiting for more.
    ///
    /// # Errors
    /// The system's.
    fn send_at_once(&self) -> io::Result<()>;
}

impl Accept for TcpListener {
    type Socket = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Accept for UnixListener {
    type Socket = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Socket for TcpStream {
    async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        Self::peek(self, bytes).await
    }

    async fn has_ended(&self) -> io::Result<bool> {
        Ok(self.ready(Interest::READABLE).await?.is_read_closed())
    }

    fn send_at_once(&self) -> io::Result<()> {
        self.set_nodelay(true)
    }
}

impl Socket for UnixStream {
    async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let look = || Ok(recv(self, &mut *bytes, RecvFlags::PEEK)?.0);
        self.async_io(Interest::READABLE, look).await
    }

    async fn has_ended(&self) -> io::Result<bool> {
        Ok(self.ready(Interest::READABLE).await?.is_read_closed())
    }

    fn send_at_once(&self) -> io::Result<()> {
        Ok(())
    }
}
