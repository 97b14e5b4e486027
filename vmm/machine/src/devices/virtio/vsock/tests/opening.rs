//! Opening the device, and the path of its socket.

use std::os::unix::net::UnixListener;
use std::path::Path;

use baton_config::VsockConfig;

use super::super::super::device::VirtioDevice;
use super::super::bounds::VsockBounds;
use super::super::device::Vsock;
use super::harness::{CID, SocketPath};
use crate::devices::error::DeviceError;

#[test]
fn at_the_end_the_devices_own_socket_is_removed_and_no_other() {
    let path = SocketPath::new();
    let vsock = path.open().expect("opens");
    assert!(path.0.exists());
    drop(vsock);
    assert!(!path.0.exists());

    let vsock = path.open().expect("opens");
    std::fs::remove_file(&path.0).expect("removed");
    let _other = UnixListener::bind(&path.0).expect("listens");
    drop(vsock);
    assert!(path.0.exists());
}

#[test]
fn a_socket_that_is_left_over_is_replaced_and_no_other_file() {
    let path = SocketPath::new();
    drop(UnixListener::bind(&path.0).expect("listens"));
    let vsock = path.open().expect("a socket at which no program listens");
    assert!(matches!(path.open(), Err(DeviceError::VsockInUse { .. })));
    drop(vsock);
    std::fs::write(&path.0, "notes").expect("a file");
    let error = path.open().err().expect("refused").to_string();
    assert!(error.contains("not a socket"), "{error}");
    assert_eq!(std::fs::read(&path.0).expect("a file"), b"notes");
}

#[test]
fn paths_that_cannot_be_sockets_are_refused() {
    let open = |path: &Path| {
        let config = VsockConfig {
            cid: CID,
            path: path.to_owned(),
        };
        Vsock::open(&config, VsockBounds::default())
            .err()
            .expect("refused")
    };
    assert!(matches!(
        open(Path::new("/nonexistent/vm.sock")),
        DeviceError::Vsock { .. }
    ));
    let long = Path::new("/tmp").join("x".repeat(100));
    assert!(matches!(open(&long), DeviceError::VsockPathTooLong { .. }));
}

#[test]
fn the_driver_reads_its_address() {
    let path = SocketPath::new();
    let vsock = path.open().expect("opens");
    assert_eq!(vsock.config_space(), [3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((vsock.device_id(), vsock.queue_count()), (19, 3));
}
