//! A disk of a guest.

use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{ConfigError, fail};
use crate::identity::Serial;
use crate::rate::{RateLimit, RateOptions};

/// A disk, written `PATH` and, behind it, `,ro`, `,serial=` and limits ([`mod@crate::rate`]), as in
/// `root.img,serial=root-1,bandwidth=100M/s,ops=5000/s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// A raw image, or a block device of the host.
    pub path: PathBuf,
    /// Whether the guest may only read the disk.
    pub read_only: bool,
    /// The serial number that the guest reads. Without one, the number is derived from the location of
    /// the file on the host.
    pub serial: Option<Serial>,
    /// How much the guest may read and write.
    pub limit: RateLimit,
}

impl FromStr for DiskConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (path, options) = split_path(text);
        if path.is_empty() {
            return fail(format!(
                "'{text}' is not a disk: write it as in root.img or data.img,ro"
            ));
        }
        let mut read_only = false;
        let mut serial = None;
        let mut limit = RateOptions::new("");
        for option in options.split(',').skip(1) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            if option == "ro" {
                read_only = true;
            } else if name == "serial" {
                serial = Some(value.parse()?);
            } else if !limit.take(name, value)? {
                return fail(format!(
                    "'{name}' is not an option of a disk: there are ro, serial, bandwidth, \
                     bandwidth-burst, ops and ops-burst, as in root.img,bandwidth=100M/s"
                ));
            }
        }
        Ok(Self {
            path: path.into(),
            read_only,
            serial,
            limit: limit.limit()?,
        })
    }
}

/// Divides `text` into the path and the options, which begin with a comma. The path may contain commas:
/// the options begin with the first comma behind which an option can stand.
fn split_path(text: &str) -> (&str, &str) {
    let is_option = |rest: &str| {
        let part = rest.split(',').next().unwrap_or_default();
        part == "ro" || part.contains('=')
    };
    let mut commas = text.match_indices(',').map(|(at, _)| at);
    match commas.find(|at| is_option(&text[at + 1..])) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    }
}
