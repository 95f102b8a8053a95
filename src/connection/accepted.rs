//! One accepted connection, from its first words to its end.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};

use super::arrivals::Arrival;
use super::backlog::Backlog;
use super::parting::Parting;
use super::service::{Answer, Calls, CallsOfConnection, ConnectionId, Origin};
use super::socket::Socket;
use super::stall::{CallExecutor, Unstalled};
use super::tls::{PeerIdentity, Secured};
use super::{Connections, PREFACE};
use crate::telemetry::metrics::Refused;

/// One accepted connection.
pub(super) struct Connection<S> {
    pub(super) service: S,
    pub(super) builder: auto::Builder<CallExecutor>,
    pub(super) port: Connections,
}

/// A connection that has said its first words.
enum Met<S> {
    Clear(S),
    Secured(Box<Secured<S>>),
}

impl Connections {
    async fn meet<S: Socket>(&self, socket: S) -> Result<Met<S>, (Refused, io::Error)> {
        greeting(&socket).await.map_err(|error| (Refused::Gone, error))?;
        // Small answers must not wait for the acknowledgement of the last one.
        socket.send_at_once().map_err(|error| (Refused::Gone, error))?;
        match &self.tls {
            None => Ok(Met::Clear(socket)),
            Some(tls) => tls
                .accept(socket, &self.metrics)
                .await
                .map(|secured| Met::Secured(Box::new(secured))),
        }
    }
}

impl<S> Connection<S> {
    /// Serves until the peer has gone, or `stopped` is done and its calls have ended.
    pub(super) async fn serve(
        self,
        socket: impl Socket,
        mut arrival: Arrival,
        stopped: impl Future<Output = ()>,
    ) where
        S: Calls<Body: Answer>,
    {
        tokio::pin!(stopped);
        let (patience, backlog) = (self.port.limits.handshake, socket.backlog());
        // Before its first words a connection has no call, so it can be dropped at any time.
        let met = tokio::select! {
            biased;
            () = &mut stopped => return,
            met = tokio::time::timeout(patience, self.port.meet(socket)) => {
                met.unwrap_or_else(|_| Err((Refused::Silent, io::ErrorKind::TimedOut.into())))
            }
            () = arrival.gave_way() => {
                Err((Refused::Handshakes, io::Error::other("its place was needed")))
            }
        };
        // Kept to the end of the connection.
        let Some(_place) = arrival.go_on() else {
            self.port.metrics.refused(Refused::Handshakes);
            return;
        };
        match met {
            Ok(Met::Clear(socket)) => self.serve_on(socket, (None, backlog), stopped).await,
            Ok(Met::Secured(secured)) => {
                self.serve_on(secured.0, (secured.1, backlog), stopped).await;
            }
            Err((reason, error)) => {
                self.port.metrics.refused(reason);
                tracing::debug!(?reason, %error, "closed before its first call");
            }
        }
    }

    /// Serves a connection whose first words are there.
    async fn serve_on(
        self,
        socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        (peer, backlog): (Option<PeerIdentity>, Backlog),
        stopped: impl Future<Output = ()>,
    ) where
        S: Calls<Body: Answer>,
    {
        let Self { service, builder, port } = self;
        let limits = port.limits;
        let random = RandomState::new().hash_one(0_u8);
        let origin = Origin { connection: ConnectionId(random), peer, crowded: None, backlog };
        let service = CallsOfConnection { service, origin, port: Arc::new(port) };
        let socket = Unstalled::new(Parting::new(socket), limits.write_stall);
        let connection = builder.serve_connection(TokioIo::new(socket), service);
        tokio::pin!(connection);
        let aged = aged(limits.max_age, random);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopped => {
                connection.as_mut().graceful_shutdown();
                connection.as_mut().await
            }
            () = aged => {
                // The peer is told to go elsewhere and has a while to end its calls.
                connection.as_mut().graceful_shutdown();
                let grace = tokio::time::timeout(limits.max_age_grace, connection);
                grace.await.unwrap_or_else(|_| {
                    tracing::debug!("connection is old and its calls do not end: cut");
                    Ok(())
                })
            }
        };
        if let Err(error) = ended {
            // Peers that vanish or break the protocol are everyday.
            tracing::debug!(%error, "connection ended with an error");
        }
    }
}

/// Waits until a connection is old; for ever if age has no limit.
async fn aged(limit: Duration, random: u64) {
    if limit.is_zero() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(lifetime(limit, random)).await;
}

/// `limit`, a tenth more or less: connections that began together do not end together.
///
/// Source: gRFC A9.
fn lifetime(limit: Duration, random: u64) -> Duration {
    const STEPS: u64 = 2001;
    let thousandths = 900 + u32::try_from(random % STEPS).unwrap_or(0) / 10;
    limit * thousandths / 1000
}

/// Waits for a connection's first bytes, without taking them: all of HTTP/2's preface, or something
/// else, which may be HTTP/1.1.
async fn greeting(socket: &impl Socket) -> io::Result<()> {
    let mut first = [0; PREFACE.len()];
    let mut seen = 0;
    loop {
        let count = socket.peek(&mut first).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if count == PREFACE.len() || !PREFACE.starts_with(&first[..count]) {
            return Ok(());
        }
        if count == seen {
            if socket.has_ended().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // Peeking returns at once while a part lies there: look again a little later.
            tokio::time::sleep(PEEK_PAUSE).await;
        }
        seen = count;
    }
}

/// Pause between two looks at a preface that comes in parts.
const PEEK_PAUSE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_spread_a_tenth_around_the_limit() {
        let limit = Duration::from_secs(100);
        let all: Vec<u64> = (0..10_000).map(|random| lifetime(limit, random).as_secs()).collect();
        assert_eq!(all.iter().min(), Some(&90));
        assert_eq!(all.iter().max(), Some(&110));
    }
}
