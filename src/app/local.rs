//! A Unix socket and its file: made at start, removed at the end.

use std::io;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::StartError;

/// A bound Unix socket. Its file is removed with it.
#[derive(Debug)]
pub struct LocalListener {
    listener: UnixListener,
    file: SocketFile,
}

/// Removes the file when it is dropped.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(%error, path = %self.0.display(), "socket not removed");
        }
    }
}

impl LocalListener {
    /// Binds `path`. A socket that a server left behind when it was killed is replaced; one that
    /// somebody listens on is not, nor is any other file.
    ///
    /// # Errors
    /// [`StartError::BindLocal`].
    pub(super) fn bind(path: &Path) -> Result<Self, StartError> {
        let failed = |source| StartError::BindLocal { path: path.display().to_string(), source };
        let bound = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
                std::fs::remove_file(path).map_err(failed)?;
                UnixListener::bind(path)
            }
            bound => bound,
        };
        let listener = bound.map_err(failed)?;
        Ok(Self { listener, file: SocketFile(path.to_owned()) })
    }

    pub(super) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

/// Whether it is a socket that nobody listens on.
fn is_abandoned(path: &Path) -> bool {
    let connected = std::os::unix::net::UnixStream::connect(path);
    connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        && std::fs::symlink_metadata(path)
            .is_ok_and(|metadata| std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type()))
}
