//! Open files: how many a run needs, and how many of them each guest may use.
//!
//! All guests share the process's table of files, and a guest can open files itself: each connection of its vsock
//! device is one. So the files that the run needs besides connections are counted at the start, and what the limit
//! leaves is divided among the guests. No guest can then use up the files of another, or of the control socket.
//!
//! The counts are upper bounds; `vmm/tests/files.rs` starts a run with no more files than were counted.

use baton_config::{ConsoleConfig, GuestConfig, KernelSource, RunConfig};
use baton_machine::console::MAX_CLIENTS;
use baton_machine::devices::VsockBounds;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

/// KVM, events, console input, trace, and the sockets for metrics and control with one connection each.
const OF_THE_RUN: u64 = 32;
/// Perf events of an executor, and the file that shows who owns its host CPU.
const OF_AN_EXECUTOR: u64 = 5;
/// The virtual machine and its serial port.
const OF_A_GUEST: u64 = 4;
/// A vCPU's KVM file and its thread's perf events.
const OF_A_VCPU: u64 = 6;
/// The events of a device's thread, its interrupt, and its disk, tap or socket.
const OF_A_DEVICE: u64 = 10;
/// A vsock device's directory and epoll, a connection that is accepted only to be refused, and a socket that is
/// checked before it is connected to.
const OF_A_VSOCK: u64 = 6;
/// The file of a console, or its terminal, and the events of its thread.
const OF_A_CONSOLE: u64 = 6;
/// The socket of a console, its directory, and the programs that are attached to it or refused.
const OF_A_CONSOLE_SOCKET: u64 = 4 + MAX_CLIENTS as u64;
/// Fewest sockets with which a vsock device is of use.
const LEAST_SOCKETS: u64 = 8;

/// The run needs more files than may be open.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "this run needs {needed} open files and {limit} are allowed: allow more (ulimit -n, or LimitNOFILE= \
     of a systemd unit), or give fewer vCPUs and devices"
)]
pub struct TooFewFiles {
    /// Files that the run needs at least.
    pub needed: u64,
    /// Files that may be open at most.
    pub limit: u64,
}

/// Raises this process's limit of open files to the maximum, and returns it. A system service starts with 1,024, for
/// the sake of programs that cannot deal with more.
pub fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        // `None` is no limit.
        Ok(()) => maximum.unwrap_or(u64::MAX),
        Err(_) => current.unwrap_or(u64::MAX),
    }
}

/// Files that this process has open now, including those that it inherited.
#[must_use]
pub fn open_now() -> u64 {
    // The directory is one of them while it is read. Without /proc, count the standard three.
    std::fs::read_dir("/proc/self/fd").map_or(3, |files| files.count().saturating_sub(1) as u64)
}

/// The files that a run needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Files to start and run, without the sockets of the guests.
    pub start: u64,
    /// How many guests have a vsock device.
    pub vsocks: u64,
}

impl Needs {
    /// What a run of `config` on `executors` host CPUs needs, beside the `open` files that are open already.
    #[must_use]
    pub fn of(config: &RunConfig, executors: usize, open: u64) -> Self {
        let guests: u64 = config.guests.iter().map(of_guest).sum();
        let with_vsock = config.guests.iter().filter(|guest| guest.vsock.is_some());
        Self {
            start: open + OF_THE_RUN + OF_AN_EXECUTOR * executors as u64 + guests,
            vsocks: with_vsock.count() as u64,
        }
    }

    /// How many sockets each guest may have if `limit` files may be open.
    ///
    /// # Errors
    /// If the limit is too low for the start and a few sockets for each guest.
    pub fn share(self, limit: u64) -> Result<VsockBounds, TooFewFiles> {
        let needed = self.start + self.vsocks * LEAST_SOCKETS;
        if limit < needed {
            return Err(TooFewFiles { needed, limit });
        }
        let each = (limit - self.start).checked_div(self.vsocks);
        // Without a vsock device the bounds do not matter.
        Ok(each.map_or_else(VsockBounds::default, VsockBounds::of_sockets))
    }

    /// The limit with which each guest may have the greatest number of sockets.
    #[must_use]
    pub fn in_full(self) -> u64 {
        self.start + self.vsocks * VsockBounds::default().sockets()
    }
}

fn of_guest(guest: &GuestConfig) -> u64 {
    let vsock = guest.vsock.iter().len();
    let entropy = usize::from(guest.kernel != KernelSource::Builtin);
    let devices = guest.disks.len() + guest.nets.len() + vsock + entropy;
    let console = match guest.console {
        ConsoleConfig::Stdio | ConsoleConfig::Off => 0,
        ConsoleConfig::File(_) | ConsoleConfig::Pty => OF_A_CONSOLE,
        ConsoleConfig::Unix(_) => OF_A_CONSOLE + OF_A_CONSOLE_SOCKET,
    };
    OF_A_GUEST
        + console
        + OF_A_VCPU * guest.cpus as u64
        + OF_A_DEVICE * devices as u64
        + OF_A_VSOCK * vsock as u64
}

/// Raises the limit and divides among the guests what it allows. If guests get fewer connections than the greatest
/// number, prints a warning on standard error.
///
/// # Errors
/// If too few files may be open to start the run.
pub fn divide(config: &RunConfig, executors: usize) -> Result<VsockBounds, TooFewFiles> {
    let limit = raise_limit();
    let needs = Needs::of(config, executors, open_now());
    let bounds = needs.share(limit)?;
    let most = VsockBounds::default();
    if bounds != most {
        baton_os::say!(
            "baton: with {limit} open files each guest has {} vsock connections at most, not {}; for \
             all of them allow {} (ulimit -n, or LimitNOFILE= of a systemd unit)",
            bounds.connections,
            most.connections,
            needs.in_full()
        );
    }
    Ok(bounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs {
        start: 100,
        vsocks: 4,
    };

    #[test]
    fn what_the_start_leaves_is_divided_and_never_exceeded() {
        for limit in 132..2_000 {
            let bounds = NEEDS.share(limit).expect("fits");
            let all = NEEDS.start + NEEDS.vsocks * bounds.sockets();
            assert!(all <= limit, "{bounds:?} of {limit}");
            assert!(bounds.connections >= 1 && bounds.pending >= 1);
            let most = VsockBounds::default();
            assert_eq!(bounds == most, limit >= NEEDS.in_full(), "{limit}");
        }
    }

    #[test]
    fn a_run_that_does_not_fit_is_refused_with_what_would() {
        let error = NEEDS.share(131).expect_err("refused");
        assert_eq!((error.needed, error.limit), (132, 131));
        NEEDS.share(error.needed).expect("fits");
        assert!(error.to_string().contains("ulimit -n"), "{error}");
    }

    #[test]
    fn more_vcpus_devices_and_executors_need_more_files() {
        let mut config = RunConfig {
            guests: vec![GuestConfig::new("a").with_cpus(4)],
            ..RunConfig::default()
        };
        let small = Needs::of(&config, 2, 3);
        assert_eq!(Needs::of(&config, 3, 3).start, small.start + OF_AN_EXECUTOR);
        config.guests[0].vsock = "cid=3,path=/run/vm.sock".parse().ok();
        config.guests[0].console = ConsoleConfig::Pty;
        assert_eq!(
            Needs::of(&config, 2, 3).start,
            small.start + OF_A_DEVICE + OF_A_VSOCK + OF_A_CONSOLE
        );
        config.guests[0].console = ConsoleConfig::Stdio;
        config.guests[0].disks = vec!["root.img".parse().expect("a disk")];
        let more = Needs::of(&config, 2, 3);
        assert_eq!(more.vsocks, 1);
        assert_eq!(more.start, small.start + 2 * OF_A_DEVICE + OF_A_VSOCK);
    }
}
