//! The two kinds of socket that calls come in on: TCP, and Unix for callers on the same host.

use std::io;

use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::backlog::{Aging, Backlog};

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

    /// How long what is read has lain there, as far as that can be told.
    fn backlog(&self) -> Backlog;
}

impl Accept for TcpListener {
    type Socket = Aging<TcpStream>;

    async fn accept(&self) -> io::Result<Self::Socket> {
        Self::accept(self).await.map(|(stream, _)| Aging::new(stream))
    }
}

impl Accept for UnixListener {
    type Socket = Aging<UnixStream>;

    async fn accept(&self) -> io::Result<Self::Socket> {
        Self::accept(self).await.map(|(stream, _)| Aging::new(stream))
    }
}

impl Socket for Aging<TcpStream> {
    async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.socket().peek(bytes).await
    }

    async fn has_ended(&self) -> io::Result<bool> {
        Ok(self.socket().ready(Interest::READABLE).await?.is_read_closed())
    }

    fn send_at_once(&self) -> io::Result<()> {
        self.socket().set_nodelay(true)
    }

    fn backlog(&self) -> Backlog {
        self.backlog()
    }
}

impl Socket for Aging<UnixStream> {
    async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let look = || Ok(recv(self.socket(), &mut *bytes, RecvFlags::PEEK)?.0);
        self.socket().async_io(Interest::READABLE, look).await
    }

    async fn has_ended(&self) -> io::Result<bool> {
        Ok(self.socket().ready(Interest::READABLE).await?.is_read_closed())
    }

    fn send_at_once(&self) -> io::Result<()> {
        Ok(())
    }

    fn backlog(&self) -> Backlog {
        self.backlog()
    }
}
