//! What a process keeps, and the steps by which it gives up the rest.

use rustix::thread::{CapabilitySet, capabilities};

use crate::error::SandboxError;
use crate::privileges::User;
use crate::reach::Reach;
use crate::{limits, namespaces, new_root, privileges, system_calls, violation};

/// What root's processes keep: they notice the halts of their vCPUs by perf events of KVM's tracepoints, which
/// `kernel.perf_event_paranoid` denies to others, and each start of the guest opens new ones.
const KEPT: CapabilitySet = CapabilitySet::PERFMON;

/// What a process keeps in its sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Files and directories.
    pub reachable: Vec<Reach>,
    /// Whether it keeps the host's network, which it needs to attach to taps. It can have no sockets of
    /// the network in either case.
    pub keep_network: bool,
    /// The user to whom it belongs from now on; `None`: the same as before. Root alone can change that.
    pub user: Option<User>,
}

impl Sandbox {
    /// Has the calling process enter. It must have one thread. Threads that it starts later are in the sandbox, too.
    ///
    /// # Errors
    /// If the host does not permit it, the process has other threads, or a path cannot be kept.
    pub fn enter(&self) -> Result<(), SandboxError> {
        let own = capabilities(None).map_err(SandboxError::step("capabilities"))?;
        // Root in a container may be without it.
        let may_unshare = own.effective.contains(CapabilitySet::SYS_ADMIN);
        if self.user.is_some() && !own.effective.contains(CapabilitySet::SETUID) {
            return Err(SandboxError::NotRoot);
        }
        violation::report()?;
        namespaces::enter(may_unshare, self.keep_network)?;
        new_root::enter(&self.reachable)?;
        limits::set()?;
        privileges::give_up(self.user, KEPT)?;
        system_calls::forbid_others()
    }
}
