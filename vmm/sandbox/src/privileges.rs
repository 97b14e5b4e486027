//! User, groups and capabilities of the process.

use std::fmt;
use std::str::FromStr;

use rustix::fs::{Gid, Uid, stat};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use thiserror::Error;

use crate::error::SandboxError;

/// The group of this device stays one of the process.
const KVM: &str = "/dev/kvm";

/// A user and his group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub user: u32,
    /// The group's number.
    pub group: u32,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.user, self.group)
    }
}

impl FromStr for User {
    type Err = NoSuchUser;

    /// Reads `USER` or `USER:GROUP`, each a number or a name. Without a group, it is that of the user's entry, or the
    /// one with the same number.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let none = || NoSuchUser(text.to_owned());
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let (user, own_group) = match user.parse::<u32>() {
            Ok(number) => (number, number),
            Err(_) => {
                let entry = nix::unistd::User::from_name(user).ok().flatten();
                let entry = entry.ok_or_else(none)?;
                (entry.uid.as_raw(), entry.gid.as_raw())
            }
        };
        let group = match group.map(|group| (group, group.parse::<u32>())) {
            None => own_group,
            Some((_, Ok(number))) => number,
            Some((name, Err(_))) => {
                let entry = nix::unistd::Group::from_name(name).ok().flatten();
                entry.ok_or_else(none)?.gid.as_raw()
            }
        };
        Ok(Self { user, group })
    }
}

/// There is no such user.
#[derive(Debug, Error)]
#[error("this host has no user or group {0}: give a number or a name, as in 200001 or alice:vms")]
pub struct NoSuchUser(String);

/// Gives up all privileges of the calling process, which has one thread, except to `keep`. With `user`, the
/// process belongs to that user from now on; root alone can do that. The process cannot get privileges again, and leaves
/// no image of its memory.
pub(crate) fn give_up(user: Option<User>, keep: CapabilitySet) -> Result<(), SandboxError> {
    const STEP: &str = "giving up privileges";
    let had = capabilities(None).map_err(SandboxError::step(STEP))?;
    let keep = had.permitted.intersection(keep);
    for capability in CapabilitySet::all().difference(keep) {
        match remove_capability_from_bounding_set(capability) {
            // This kernel does not know it, or this user has none.
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(error) => return Err(SandboxError::step(STEP)(error)),
        }
    }
    if let Some(User { user, group }) = user {
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        let kvm = stat(KVM).map(|kvm| Gid::from_raw(kvm.st_gid));
        let groups: Vec<Gid> = kvm.into_iter().filter(|gid| !gid.is_root()).collect();
        set_keep_capabilities(true)
            .and_then(|()| set_thread_groups(&groups))
            .and_then(|()| set_thread_res_gid(group, group, group))
            .and_then(|()| set_thread_res_uid(user, user, user))
            .map_err(SandboxError::step("the guest's user"))?;
    }
    clear_ambient_capability_set()
        .and_then(|()| {
            set_capabilities(
                None,
                CapabilitySets {
                    effective: keep,
                    permitted: keep,
                    inheritable: CapabilitySet::empty(),
                },
            )
        })
        .and_then(|()| set_no_new_privs(true))
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(SandboxError::step(STEP))
}
