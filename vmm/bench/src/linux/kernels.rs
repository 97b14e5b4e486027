//! The kernels that guests boot.

use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

/// Name of the kernel of `--stock`.
pub(super) const STOCK: &str = "stock";
/// Name of the kernel of `--patched`.
pub(super) const PATCHED: &str = "patched";

/// A kernel, and its name in the results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamedKernel {
    /// The name: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// A 64-bit ELF file or a bzImage.
    pub file: PathBuf,
}

impl NamedKernel {
    /// The kernel `file` with a name that is known to be good.
    pub(super) fn new(name: &str, file: &std::path::Path) -> Self {
        Self {
            name: name.to_owned(),
            file: file.to_owned(),
        }
    }
}

impl FromStr for NamedKernel {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, file) = text
            .split_once('=')
            .filter(|(name, file)| !name.is_empty() && !file.is_empty())
            .ok_or("must be NAME=FILE, as in debian=/boot/vmlinuz")?;
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !name.chars().all(good) {
            return Err("a name consists of letters, digits, '.', '_' and '-'");
        }
        if name == PATCHED {
            return Err("give the kernel with our patches as --patched FILE");
        }
        Ok(Self::new(name, file.as_ref()))
    }
}
