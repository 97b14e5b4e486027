//! Where the pool listens.

use std::path::{Path, PathBuf};

use baton_observe::control::directories;

/// The directory of a pool that root has started.
const OF_ROOT: &str = "/run/baton/pool";
/// The socket for guests' processes in the directory of a pool.
const SOCKET: &str = "link.sock";

/// The socket of the pool that the user has named by its directory or by this socket. If none was named: of the
/// first pool in a runtime directory of this user or of root.
pub(super) fn socket(named: Option<&Path>) -> PathBuf {
    match named {
        Some(path) if path.is_dir() => path.join(SOCKET),
        Some(path) => path.to_owned(),
        None => {
            let own = directories().into_iter().map(|path| path.join("pool"));
            let all = own.chain([PathBuf::from(OF_ROOT)]);
            let mut sockets = all.map(|directory| directory.join(SOCKET));
            let found = sockets.find(|socket| socket.exists());
            found.unwrap_or_else(|| Path::new(OF_ROOT).join(SOCKET))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_named_by_its_directory_or_by_its_socket() {
        let directory = std::env::temp_dir();
        assert_eq!(socket(Some(&directory)), directory.join(SOCKET));
        let other = directory.join("there-is-no-such-socket");
        assert_eq!(socket(Some(&other)), other);
    }
}
