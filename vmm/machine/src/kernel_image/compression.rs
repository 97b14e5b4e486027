//! How the kernel in a bzImage is compressed, and its decompression.

use std::io::{self, Read};

use flate2::read::GzDecoder;
use lzma_rust2::{LzmaReader, XzReader};
use ruzstd::decoding::StreamingDecoder;
use thiserror::Error;

/// Largest kernel that is decompressed, bytes.
pub(super) const MAX_KERNEL: usize = 512 << 20;
/// Largest window of a compressed kernel, KiB. Linux compresses with windows of up to 128 MiB.
const MAX_WINDOW_KIB: u32 = 256 << 10;
/// Bytes of a block of the LZ4 legacy format, decompressed.
const LZ4_BLOCK: usize = 8 << 20;
const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// A format in which Linux compresses itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// `CONFIG_KERNEL_GZIP`.
    Gzip,
    /// `CONFIG_KERNEL_XZ`.
    Xz,
    /// `CONFIG_KERNEL_ZSTD`.
    Zstd,
    /// `CONFIG_KERNEL_LZ4`.
    Lz4,
    /// `CONFIG_KERNEL_LZMA`.
    Lzma,
    /// `CONFIG_KERNEL_BZIP2`, which is not supported.
    Bzip2,
    /// `CONFIG_KERNEL_LZO`, which is not supported.
    Lzo,
}

/// A kernel could not be decompressed.
#[derive(Debug, Error)]
pub enum DecompressError {
    /// The format is none that Linux uses on x86.
    #[error("it is compressed in a format that is not known")]
    Unknown,
    /// The format is known, but this program has no decompressor for it.
    #[error("decompression of {} is not supported", .0.name())]
    Unsupported(Compression),
    /// The compressed bytes are not valid.
    #[error("it cannot be decompressed by {}: {source}", .format.name())]
    Corrupt {
        /// The format.
        format: Compression,
        /// The decompressor's error.
        source: io::Error,
    },
    /// The kernel is larger than any that is known.
    #[error("it has more than {}M when it is decompressed", .0 >> 20)]
    TooLarge(usize),
}

impl Compression {
    /// The name of the format.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Lzma => "lzma",
            Self::Bzip2 => "bzip2",
            Self::Lzo => "lzo",
        }
    }

    /// The format of `bytes`, by their magic number.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        const MAGIC: [(&[u8], Compression); 7] = [
            (&[0x1f, 0x8b], Compression::Gzip),
            (b"\xfd7zXZ\0", Compression::Xz),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
            (&LZ4_MAGIC, Compression::Lz4),
            (&[0x5d, 0, 0], Compression::Lzma),
            (b"BZh", Compression::Bzip2),
            (b"\x89LZO\0\r\n\x1a\n", Compression::Lzo),
        ];
        let format = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic));
        format.map(|&(_, format)| format)
    }

    /// Decompresses `bytes` to at most `most` bytes. What follows the compressed data is ignored: Linux appends
    /// the size of the kernel.
    ///
    /// # Errors
    /// As [`DecompressError`].
    pub(super) fn decompress(self, bytes: &[u8], most: usize) -> Result<Vec<u8>, DecompressError> {
        let corrupt = |source| DecompressError::Corrupt {
            format: self,
            source,
        };
        let kernel = match self {
            Self::Gzip => read(GzDecoder::new(bytes), most),
            Self::Xz => read(XzReader::new_mem_limit(bytes, false, MAX_WINDOW_KIB), most),
            Self::Zstd => zstd(bytes, most),
            Self::Lz4 => lz4(bytes, most),
            Self::Lzma => LzmaReader::new_mem_limit(bytes, MAX_WINDOW_KIB, None)
                .and_then(|reader| read(reader, most)),
            Self::Bzip2 | Self::Lzo => return Err(DecompressError::Unsupported(self)),
        };
        match kernel.map_err(corrupt)? {
            kernel if kernel.len() > most => Err(DecompressError::TooLarge(most)),
            kernel => Ok(kernel),
        }
    }
}

/// What `reader` yields, but no more than one byte above `most`.
fn read(reader: impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn zstd(bytes: &[u8], most: usize) -> io::Result<Vec<u8>> {
    let window = u64::from(MAX_WINDOW_KIB) << 10;
    let decoder = StreamingDecoder::new_with_max_window_size(bytes, window);
    read(decoder.map_err(io::Error::other)?, most)
}

/// Decompresses the legacy format of LZ4, which Linux uses: a magic number, and blocks behind their lengths.
fn lz4(bytes: &[u8], most: usize) -> io::Result<Vec<u8>> {
    let mut kernel = Vec::new();
    let mut block = vec![0; LZ4_BLOCK];
    let mut rest = bytes.get(LZ4_MAGIC.len()..).unwrap_or_default();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        // The size of the kernel, which Linux appends.
        if behind.is_empty() || kernel.len() > most {
            break;
        }
        rest = behind;
        if *length == LZ4_MAGIC {
            continue;
        }
        let length = u32::from_le_bytes(*length) as usize;
        let (compressed, behind) = rest
            .split_at_checked(length)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = lz4_flex::block::decompress_into(compressed, &mut block);
        let size = size.map_err(io::Error::other)?;
        kernel.extend_from_slice(&block[..size]);
        rest = behind;
    }
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_image::sample;

    const TEXT: &[u8] = b"a kernel, a kernel, a kernel, a kernel\n";
    /// `TEXT` as xz compresses it for Linux: with the filter for x86.
    const XZ: &[u8] = &[
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x01, 0x69, 0x22, 0xde, 0x36, 0x02, 0x01, 0x04,
        0x00, 0x21, 0x01, 0x10, 0x00, 0x8b, 0x21, 0x6f, 0x49, 0xe0, 0x00, 0x26, 0x00, 0x12, 0x5d,
        0x00, 0x30, 0x88, 0x09, 0x66, 0x94, 0x53, 0x74, 0xb6, 0x71, 0x69, 0xd8, 0xdb, 0xcc, 0x4c,
        0xc0, 0x93, 0x80, 0x00, 0x00, 0x00, 0x00, 0xb1, 0x4b, 0x19, 0x23, 0x00, 0x01, 0x2a, 0x27,
        0x68, 0xcc, 0xe7, 0xea, 0x90, 0x42, 0x99, 0x0d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x01, 0x59,
        0x5a,
    ];
    const LZMA: &[u8] = &[
        0x5d, 0x00, 0x00, 0x00, 0x04, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x30,
        0x88, 0x09, 0x66, 0x94, 0x53, 0x74, 0xb6, 0x71, 0x69, 0xd8, 0xdb, 0xcc, 0x4c, 0xc3, 0xf4,
        0x49, 0x27, 0xff, 0xfe, 0x69, 0x68, 0x00,
    ];

    /// `TEXT` in each supported format.
    fn compressed() -> Vec<(Compression, Vec<u8>)> {
        vec![
            (Compression::Gzip, sample::gzip(TEXT)),
            (Compression::Xz, XZ.to_vec()),
            (Compression::Zstd, sample::zstd(TEXT)),
            (Compression::Lz4, sample::lz4(TEXT)),
            (Compression::Lzma, LZMA.to_vec()),
        ]
    }

    #[test]
    fn each_format_is_known_by_its_magic_number_and_decompressed() {
        for (format, mut bytes) in compressed() {
            assert_eq!(Compression::of(&bytes), Some(format));
            let text = format.decompress(&bytes, 100).expect("valid");
            assert_eq!(text, TEXT, "{format:?}");
            // Linux appends the size.
            bytes.extend(39u32.to_le_bytes());
            let text = format.decompress(&bytes, 100).expect("valid");
            assert_eq!(text, TEXT, "{format:?}");
        }
    }

    #[test]
    fn no_more_is_decompressed_than_the_bound() {
        for (format, bytes) in compressed() {
            let decompressed = format.decompress(&bytes, TEXT.len());
            assert_eq!(decompressed.expect("valid"), TEXT);
            let error = format
                .decompress(&bytes, TEXT.len() - 1)
                .expect_err("too large");
            assert!(
                matches!(error, DecompressError::TooLarge(38)),
                "{format:?}: {error}"
            );
        }
        let bomb = sample::gzip(&vec![0; 8 << 20]);
        let error = Compression::Gzip
            .decompress(&bomb, 1 << 20)
            .expect_err("too large");
        assert_eq!(
            error.to_string(),
            "it has more than 1M when it is decompressed"
        );
    }

    #[test]
    fn bytes_that_are_cut_short_are_an_error() {
        for (format, bytes) in compressed() {
            // What is missing at the end of some formats is only a check.
            for length in 0..bytes.len() / 2 {
                let text = format.decompress(&bytes[..length], 100);
                let is_known = text.is_ok_and(|text| !text.is_empty());
                assert!(!is_known, "{format:?}, {length} bytes");
            }
        }
    }

    #[test]
    fn a_format_without_a_decompressor_is_named() {
        for (magic, name) in [(&b"BZh9"[..], "bzip2"), (b"\x89LZO\0\r\n\x1a\n", "lzo")] {
            let format = Compression::of(magic).expect("known");
            let error = format.decompress(magic, 100).expect_err("not supported");
            assert_eq!(
                error.to_string(),
                format!("decompression of {name} is not supported")
            );
        }
        assert_eq!(Compression::of(b""), None);
        assert_eq!(Compression::of(b"MZ"), None);
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_behind_a_magic_number_do_no_harm(
            at in 0..5usize, flips in proptest::collection::vec((4..64usize, 0..=255u8), 0..20),
        ) {
            let (format, mut bytes) = compressed().swap_remove(at);
            for (place, value) in flips {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte = value;
                }
            }
            if let Ok(text) = format.decompress(&bytes, 1 << 20) {
                assert!(text.len() <= 1 << 20);
            }
        }
    }
}
