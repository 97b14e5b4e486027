//! The user at the other end of a Unix socket, as the kernel knows him.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};

use rustix::net::sockopt;

/// Room for the groups of a user at first. The kernel returns how many there are if that is too little.
const FIRST_GROUPS: usize = 32;

/// A process that has connected, with the rights that it had then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The process.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its groups, the first of which is that of new files.
    pub groups: Vec<u32>,
}

impl Peer {
    /// The process that connected to this `socket`.
    ///
    /// # Errors
    /// If the socket is not a Unix socket that is connected.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let peer = sockopt::socket_peercred(&socket)?;
        let mut groups = vec![peer.gid.as_raw()];
        groups.extend(groups_of(&socket)?);
        groups.dedup();
        Ok(Self {
            pid: peer.pid.as_raw_pid(),
            uid: peer.uid.as_raw(),
            groups,
        })
    }
}

/// The supplementary groups of the process that connected.
fn groups_of(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; FIRST_GROUPS];
    loop {
        let mut bytes = mem::size_of_val(&groups[..]) as libc::socklen_t;
        // SAFETY: the kernel writes at most `bytes` bytes to the vector, which has that many, and then how many
        // it has written or needs to `bytes`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = bytes as usize / mem::size_of::<u32>();
        match result {
            0 => {
                groups.truncate(count);
                return Ok(groups);
            }
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ERANGE) && count > groups.len() => {
                    groups.resize(count, 0);
                }
                error => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_peer_has_this_processes_user_and_groups() {
        let (socket, _other) = UnixStream::pair().expect("sockets");
        let peer = Peer::of(&socket).expect("a peer");
        assert_eq!(peer.pid, std::process::id() as i32);
        assert_eq!(peer.uid, rustix::process::getuid().as_raw());
        assert_eq!(peer.groups[0], rustix::process::getgid().as_raw());
        for group in rustix::process::getgroups().expect("groups") {
            assert!(peer.groups.contains(&group.as_raw()));
        }
    }
}
