//! A network interface of a guest.

use std::str::FromStr;

use crate::error::{ConfigError, fail};
use crate::identity::parse_mac;
use crate::rate::{RateLimit, RateOptions};

/// A network interface, written `tap=NAME` and, behind it, `,mac=52:54:00:12:34:56` and limits
/// ([`mod@crate::rate`]) for frames to the guest and from it, as in
/// `tap=tap0,rx-bandwidth=10M/s,tx-ops=5000/s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Name of the tap on the host.
    pub tap: String,
    /// The guest's address. Without one, the guest's driver chooses its own.
    pub mac: Option<[u8; 6]>,
    /// How much the guest may receive.
    pub rx: RateLimit,
    /// How much the guest may send.
    pub tx: RateLimit,
}

impl FromStr for NetConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(',');
        let Some(tap) = parts.next().and_then(tap_name) else {
            return fail(format!(
                "'{text}' is not a network interface: write it as in tap=tap0 or \
                 tap=tap0,mac=52:54:00:12:34:56"
            ));
        };
        let mut mac = None;
        let mut rx = RateOptions::new("rx-");
        let mut tx = RateOptions::new("tx-");
        for option in parts {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            if name == "mac" {
                mac = Some(parse_mac(value)?);
            } else if !rx.take(name, value)? && !tx.take(name, value)? {
                return fail(format!(
                    "'{name}' is not an option of a network interface: there are mac and, for each of \
                     rx and tx, rx-bandwidth, rx-bandwidth-burst, rx-ops and rx-ops-burst, as in \
                     tap=tap0,rx-bandwidth=10M/s"
                ));
            }
        }
        Ok(Self {
            tap: tap.to_owned(),
            mac,
            rx: rx.limit()?,
            tx: tx.limit()?,
        })
    }
}

/// The name in `tap=NAME`, if Linux could give an interface that name.
fn tap_name(text: &str) -> Option<&str> {
    let name = text.strip_prefix("tap=")?;
    let fine = !name.is_empty() && !name.contains('/') && !name.contains(char::is_whitespace);
    fine.then_some(name)
}
