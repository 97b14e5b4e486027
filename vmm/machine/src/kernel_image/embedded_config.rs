//! The configuration that a kernel may have in itself (`CONFIG_IKCONFIG`).

use memchr::memmem;

use super::compression::Compression;

const START: &[u8] = b"IKCFG_ST";
/// Largest configuration, bytes. Those of distributions have a quarter of a megabyte.
const MAX_CONFIG: usize = 4 << 20;

/// A kernel's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EmbeddedConfig(Vec<u8>);

impl EmbeddedConfig {
    /// The configuration in the kernel `image`, if it has one.
    pub(super) fn find(image: &[u8]) -> Option<Self> {
        memmem::find_iter(image, START)
            .map(|at| &image[at + START.len()..])
            .find(|behind| Compression::of(behind) == Some(Compression::Gzip))
            .and_then(|behind| Compression::Gzip.decompress(behind, MAX_CONFIG).ok())
            .map(Self)
    }

    /// Whether `option` is built in.
    pub(super) fn has(&self, option: &str) -> bool {
        let mut lines = self.0.split(|&byte| byte == b'\n');
        lines.any(|line| line.strip_suffix(b"=y") == Some(option.as_bytes()))
    }
}
