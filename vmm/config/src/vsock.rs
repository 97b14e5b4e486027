//! A socket device of a guest.

use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{ConfigError, fail};

/// Largest address of a guest's vsock: the next number stands for any address.
const MAX_CID: u32 = u32::MAX - 1;

/// A socket device, written `cid=3,path=/run/vm.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VsockConfig {
    /// The guest's address, 3 or more.
    pub cid: u32,
    /// The Unix socket where programs of the host reach the guest. Programs that the guest reaches
    /// listen at this path with `_` and a port behind it.
    pub path: PathBuf,
}

impl FromStr for VsockConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text
            .strip_prefix("cid=")
            .and_then(|rest| rest.split_once(",path="))
            .filter(|(_, path)| !path.is_empty());
        let Some((cid, path)) = parts else {
            return fail(format!(
                "'{text}' is not a vsock device: write it as in cid=3,path=/run/vm.sock"
            ));
        };
        match cid.parse() {
            // Lower addresses are those of the hypervisor, loopback and the host.
            Ok(cid @ 3..=MAX_CID) => Ok(Self {
                cid,
                path: path.into(),
            }),
            _ => fail(format!(
                "cid is '{cid}', must be 3 to {MAX_CID}, as in cid=3,path=/run/vm.sock"
            )),
        }
    }
}
