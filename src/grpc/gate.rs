//! The gate of the gRPC services: who calls, before anything is read of the message.

use std::time::SystemTime;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tonic::Status;

use super::status::denied;
use crate::access::methods::{self, Need};
use crate::access::{Access, Caller};
use crate::connection::tls::PeerIdentity;
use crate::error::Denial;

/// Who makes this call.
///
/// # Errors
/// [`Denial`], to be told as UNAUTHENTICATED.
pub fn admit(access: &Access, request: &Request) -> Result<Caller, Denial> {
    let certificate = request.extensions().get::<PeerIdentity>();
    let certificate = certificate.map(|PeerIdentity(name)| &**name);
    access.admit(request.headers(), certificate, SystemTime::now())
}

/// Lets a call through with its [`Caller`] in its extensions, or answers it.
pub(super) async fn gate(
    State(access): State<Access>,
    mut request: Request,
    next: Next,
) -> Response {
    match methods::need(request.uri().path()) {
        // Not listed is not served: a path is matched letter by letter, here as by the router.
        None => return Status::unimplemented("no such method").into_http(),
        Some(Need::Open) => {}
        Some(Need::Caller | Need::Model(_)) => match admit(&access, &request) {
            Ok(caller) => drop(request.extensions_mut().insert(caller)),
            Err(denial) => return denied(&denial).into_http(),
        },
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost_reflect::DescriptorPool;

    use super::methods::{Need, need};
    use crate::pb;

    #[test]
    fn every_method_has_a_need_and_no_other_path_has() {
        let sets = [pb::FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET];
        let mut paths = BTreeSet::new();
        for set in sets {
            for service in DescriptorPool::decode(set).unwrap().services() {
                for method in service.methods() {
                    paths.insert(format!("/{}/{}", service.full_name(), method.name()));
                }
            }
        }
        assert!(paths.len() >= 22);
        let open: Vec<&String> =
            paths.iter().filter(|path| need(path) == Some(Need::Open)).collect();
        assert_eq!(
            open,
            [
                "/grpc.health.v1.Health/Check",
                "/grpc.health.v1.Health/Watch",
                "/inference.GRPCInferenceService/ServerLive",
                "/inference.GRPCInferenceService/ServerReady",
            ]
        );
        for path in &paths {
            assert!(need(path).is_some(), "{path}: decide what it needs");
            let other = [
                path[1..].to_owned(),
                format!("/{path}"),
                format!("{path}/"),
                path.to_lowercase(),
                path.replace('.', "%2E"),
            ];
            for other in other {
                assert_eq!(need(&other), None, "{other}");
            }
        }
    }
}
