//! What is known of a call before its message: whether it is plain, and what its headers say.

use std::time::Duration;

use http::{Method, Request};

use super::{PATH, Ways};
use crate::connection::{ConnectionId, Crowded, Lay, Origin};
use crate::error::InvalidRequest;
use crate::grpc::{deadline, request_id};
use crate::telemetry::traces::CallTrace;

/// Content types of messages in protobuf.
const CONTENT_TYPES: [&[u8]; 2] = [b"application/grpc", b"application/grpc+proto"];

/// What the headers of a plain call and its connection say.
pub(super) struct Head {
    pub(super) timeout: Result<Option<Duration>, InvalidRequest>,
    pub(super) request_id: Option<String>,
    pub(super) connection: ConnectionId,
    pub(super) crowded: Option<Crowded>,
    pub(super) trace: Option<CallTrace>,
    /// How long it lay in its socket.
    pub(super) lay: Lay,
}

impl Head {
    /// `None` for a call that is not plain. One walk over the few headers that there are: each
    /// question by name would cost as much.
    pub(super) fn of<B>(request: &Request<B>, origin: &Origin, ways: Ways) -> Option<Self> {
        if ways.guarded || request.method() != Method::POST || request.uri().path() != PATH {
            return None;
        }
        let (mut is_message, mut timeout, mut request_id) = (false, None, None);
        for (name, value) in request.headers() {
            match name.as_str() {
                "content-type" => is_message = CONTENT_TYPES.contains(&value.as_bytes()),
                "grpc-encoding" | "origin" => return None,
                "grpc-accept-encoding" if ways.compresses => return None,
                deadline::HEADER if timeout.is_some() => return None,
                deadline::HEADER => timeout = Some(value),
                request_id::NAME => request_id = request_id.or(Some(value)),
                _ => {}
            }
        }
        is_message.then(|| Self {
            timeout: timeout.map(deadline::timeout).transpose(),
            request_id: request_id.and_then(request_id::text),
            connection: origin.connection,
            crowded: origin.crowded,
            lay: Lay(origin.backlog.age()),
            trace: request.extensions().get::<CallTrace>().cloned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::backlog::Backlog;

    const OPEN: Ways = Ways { guarded: false, compresses: false };

    fn of(ways: Ways, headers: &[(&str, &str)]) -> Option<Head> {
        let mut request = Request::post(PATH);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let origin = Origin {
            connection: ConnectionId(7),
            peer: None,
            crowded: None,
            backlog: Backlog::default(),
        };
        Head::of(&request.body(()).unwrap(), &origin, ways)
    }

    #[test]
    fn what_has_nothing_to_it_but_a_message_is_plain() {
        let message = ("content-type", "application/grpc");
        assert!(of(OPEN, &[message, ("user-agent", "x"), ("te", "trailers")]).is_some());
        assert!(of(OPEN, &[]).is_none(), "no message");
        assert!(of(OPEN, &[("content-type", "application/grpc-web")]).is_none());
        for other in [("grpc-encoding", "gzip"), ("origin", "https://page.example")] {
            assert!(of(OPEN, &[message, other]).is_none(), "{other:?}");
        }
        assert!(of(Ways { guarded: true, ..OPEN }, &[message]).is_none());
        let reads = [message, ("grpc-accept-encoding", "gzip")];
        assert!(of(OPEN, &reads).is_some());
        assert!(of(Ways { compresses: true, ..OPEN }, &reads).is_none());
    }

    #[test]
    fn a_call_is_as_old_as_what_is_read_from_its_connection() {
        let request = Request::post(PATH).header("content-type", "application/grpc");
        let request = request.body(()).unwrap();
        let backlog = Backlog::default();
        let (connection, seen) = (ConnectionId(7), backlog.clone());
        let origin = Origin { connection, peer: None, crowded: None, backlog };
        for age in [Duration::ZERO, Duration::from_millis(60)] {
            seen.set(age);
            assert_eq!(Head::of(&request, &origin, OPEN).unwrap().lay, Lay(age));
        }
    }

    #[test]
    fn headers_are_read_in_one_walk() {
        let message = ("content-type", "application/grpc+proto");
        let id = ("x-request-id", "r-1");
        let head = of(OPEN, &[("grpc-timeout", "50m"), id, message]).unwrap();
        assert_eq!(head.timeout, Ok(Some(Duration::from_millis(50))));
        assert_eq!((head.request_id.as_deref(), head.connection.0), (Some("r-1"), 7));
        assert!(of(OPEN, &[message, ("grpc-timeout", "soon")]).unwrap().timeout.is_err());
        let twice = [message, ("grpc-timeout", "1S"), ("grpc-timeout", "2S")];
        assert!(of(OPEN, &twice).is_none(), "it is told so the other way");
        let ids = of(OPEN, &[message, id, ("x-request-id", "r-2")]).unwrap().request_id;
        assert_eq!(ids.as_deref(), Some("r-1"));
    }
}
