//! What is not served, and why: the same sentences on the data port and over REST.

/// Shared memory.
pub const SHARED_MEMORY: &str = "shared memory with clients is not served: a region that a client \
     names is memory that it does not own; a Unix socket serves callers on the same host";
/// Logs and traces.
pub const OPERATORS: &str = "log and trace settings belong to the operator, not to callers";
/// Loading and unloading.
pub const ADMIN_PORT: &str =
    "repository control is not served on the data port; the admin port has it";
