//! What each method of the gRPC services needs. One that is not listed here is not served where callers
//! need credentials, so that a new one is closed until somebody decides.

use crate::error::Right;

/// What a method needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: probes have no credentials.
    Open,
    /// A known caller. Listings leave out what it may not describe.
    Caller,
    /// A right to the model that the message names.
    Model(Right),
}

const INFERENCE: &str = "/inference.GRPCInferenceService/";

/// Methods of the inference service.
const METHODS: [(&str, Need); 20] = [
    ("ServerLive", Need::Open),
    ("ServerReady", Need::Open),
    ("ModelReady", Need::Model(Right::Describe)),
    ("ServerMetadata", Need::Caller),
    ("ModelMetadata", Need::Model(Right::Describe)),
    ("ModelInfer", Need::Model(Right::Infer)),
    ("ModelStreamInfer", Need::Model(Right::Infer)),
    ("ModelConfig", Need::Model(Right::Describe)),
    // Of one model, or a listing.
    ("ModelStatistics", Need::Model(Right::Describe)),
    ("RepositoryIndex", Need::Caller),
    ("RepositoryModelLoad", Need::Model(Right::Control)),
    ("RepositoryModelUnload", Need::Model(Right::Control)),
    ("SystemSharedMemoryStatus", Need::Caller),
    ("SystemSharedMemoryRegister", Need::Caller),
    ("SystemSharedMemoryUnregister", Need::Caller),
    ("CudaSharedMemoryStatus", Need::Caller),
    ("CudaSharedMemoryRegister", Need::Caller),
    ("CudaSharedMemoryUnregister", Need::Caller),
    ("TraceSetting", Need::Caller),
    ("LogSettings", Need::Caller),
];

/// Methods of other services, by their whole path.
const OTHERS: [(&str, Need); 5] = [
    ("/grpc.health.v1.Health/Check", Need::Open),
    ("/grpc.health.v1.Health/Watch", Need::Open),
    ("/grpc.health.v1.Health/List", Need::Caller),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Need::Caller),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Need::Caller),
];

/// Paths of all methods and what they need.
pub fn all() -> impl Iterator<Item = (String, Need)> {
    let own = METHODS.iter().map(|(name, need)| (format!("{INFERENCE}{name}"), *need));
    own.chain(OTHERS.iter().map(|(path, need)| ((*path).to_owned(), *need)))
}

/// Place of the method at this path among [`all`]; `None` for a path that is none.
pub fn index(path: &str) -> Option<usize> {
    match path.strip_prefix(INFERENCE) {
        Some(name) => METHODS.iter().position(|(known, _)| *known == name),
        None => Some(METHODS.len() + OTHERS.iter().position(|(known, _)| *known == path)?),
    }
}

/// What the method at this path needs; `None` for a path that is none, letter by letter.
pub fn need(path: &str) -> Option<Need> {
    let (methods, name): (&[_], _) = match path.strip_prefix(INFERENCE) {
        Some(name) => (&METHODS, name),
        None => (&OTHERS, path),
    };
    methods.iter().find(|(known, _)| *known == name).map(|(_, need)| *need)
}
