//! What the process can reach while its guest runs: the files of its configuration, `/dev/kvm` and its pool.

use std::fs::OpenOptions;
use std::path::Path;

use baton_config::{ConsoleConfig, GuestConfig, KernelSource, RunConfig};
use baton_host::halt::read_tracepoints;
use baton_machine::console::reserve_terminal;
use baton_sandbox::{Reach, Sandbox, User};

use super::pool_path;
use crate::error::RunError;
use crate::host_memory;

/// Has the calling process enter the sandbox of the guest of `config`, which will join the pool at `pool`. The process
/// must have one thread. With `user`, it belongs to that user from now on.
///
/// # Errors
/// If the configuration makes no sense, the guest's memory does not fit, or the host does not permit the sandbox.
pub fn enter_sandbox(
    config: &RunConfig,
    pool: Option<&Path>,
    user: Option<User>,
) -> Result<(), RunError> {
    config.validate()?;
    // The control groups are out of reach afterwards.
    host_memory::check(config)?;
    read_tracepoints();
    let mut reachable = vec![Reach::device("/dev/kvm"), Reach::device("/dev/null")];
    let socket = pool_path::socket(pool);
    // A pool that starts again makes a new socket.
    reachable.extend(socket.parent().map(Reach::read));
    for guest in &config.guests {
        of_guest(guest, &mut reachable);
    }
    let sandbox = Sandbox {
        reachable,
        keep_network: config.guests.iter().any(|guest| !guest.nets.is_empty()),
        user,
    };
    Ok(sandbox.enter()?)
}

fn of_guest(guest: &GuestConfig, reachable: &mut Vec<Reach>) {
    if let KernelSource::Path(path) = &guest.kernel {
        reachable.push(Reach::read(path));
    }
    let read = guest.initrd.iter().chain(&guest.symbols);
    reachable.extend(read.map(Reach::read));
    reachable.extend(guest.disks.iter().map(|disk| match disk.read_only {
        true => Reach::read(&disk.path),
        false => Reach::write(&disk.path),
    }));
    reachable.extend(guest.vsock.iter().map(|vsock| Reach::parent(&vsock.path)));
    if !guest.nets.is_empty() {
        reachable.push(Reach::device("/dev/net/tun"));
        reachable.push(Reach::read("/sys/class/net"));
        reachable.push(Reach::read("/sys/devices/virtual/net"));
    }
    match &guest.console {
        ConsoleConfig::Unix(path) => reachable.push(Reach::parent(path)),
        ConsoleConfig::File(path) => {
            // It cannot be created later. Whoever opens it gets the error.
            let _ = OpenOptions::new().append(true).create(true).open(path);
            reachable.push(Reach::write(path));
        }
        ConsoleConfig::Pty => {
            // Whoever opens it again gets the error.
            let _ = reserve_terminal();
        }
        ConsoleConfig::Stdio | ConsoleConfig::Off => {}
    }
}
