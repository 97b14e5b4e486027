//! What is known of a kernel by its file.

use std::path::Path;

use memchr::memmem;
use thiserror::Error;

use super::compression::Compression;
use super::elf::{self, Vmlinux};
use super::embedded_config::EmbeddedConfig;
use super::payload::{self, PayloadError};
use crate::inferred::Finding;
use crate::loader::{self, Entry, LoadError};
use crate::memory::{GuestMemory, MemoryError};

/// Memory of the guest into which a kernel is loaded, to know whether that works.
const MEMORY: u64 = 1 << 30;
/// The banner of Linux, before its version.
const BANNER: &[u8] = b"Linux version ";
/// Longest version of a kernel, bytes.
const MAX_VERSION: usize = 256;
/// The name of the step by which a kernel with Baton's patches brings a CPU online. It is there even if the
/// kernel prints no messages.
const BATON_MARK: &[u8] = b"x86/baton:online\0";
/// The name of the table of paravirtual queued spinlocks.
const PV_SPINLOCK_MARK: &[u8] = b"PV qspinlock\0";

/// The form of a kernel's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// An ELF file: `vmlinux`.
    Elf,
    /// A bzImage: `vmlinuz`, in which the kernel is compressed. `None`: it is not, or not known.
    BzImage(Option<Compression>),
}

/// The preempt count of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CountFact {
    /// The kernel's text counts at this offset from the GS base, as the kernel was linked.
    Kept {
        /// The offset.
        offset: u64,
        /// What else shows that it counts there.
        confirmed_by: Vec<&'static str>,
        /// What contradicts that.
        doubted_by: Vec<&'static str>,
    },
    /// The kernel's text counts in no variable.
    None {
        /// The configuration says the same; `None` if it is not known.
        by_config: Option<bool>,
    },
}

/// What the kernel itself shows, once it is decompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelContents {
    /// The physical address at which PVH enters it.
    pub pvh_entry: Option<u64>,
    /// Its preempt count.
    pub count: CountFact,
    /// Whether it has Baton's patches.
    pub has_baton_patches: bool,
    /// Whether it has paravirtual spinlocks, whose waiters halt.
    pub has_pv_spinlocks: bool,
}

/// A kernel could not be read.
#[derive(Debug, Error)]
pub enum ContentsError {
    /// The kernel in a bzImage could not be read.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// What should be a kernel is no 64-bit ELF file.
    #[error("it is no 64-bit ELF file: {0}")]
    NoElf(#[from] object::read::Error),
}

/// What is known of a kernel by its file.
#[derive(Debug)]
pub struct KernelFacts {
    /// The form of the file.
    pub format: ImageFormat,
    /// The version of Linux.
    pub version: Option<String>,
    /// Where Baton enters the kernel, or why it cannot boot it.
    pub boot: Result<Entry, LoadError>,
    /// What the kernel itself shows.
    pub contents: Result<KernelContents, ContentsError>,
}

/// A kernel could not be examined.
#[derive(Debug, Error)]
pub enum ExamineError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] LoadError),
    /// There is no memory to load it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl KernelFacts {
    /// Examines the kernel in the file at `path`.
    ///
    /// # Errors
    /// If the file cannot be read. A file that is no kernel is a fact, not an error.
    pub fn examine(path: &Path) -> Result<Self, ExamineError> {
        let image = loader::read(path.to_owned())?;
        Self::of(&path.display().to_string(), &image)
    }

    /// Examines the kernel `image`, which is called `what`.
    fn of(what: &str, image: &[u8]) -> Result<Self, ExamineError> {
        let memory = GuestMemory::new(MEMORY)?;
        let loaded = loader::load_image(what, image, memory.regions());
        let boot = loaded.map(|loaded| loaded.entry);
        if !loader::is_bzimage(image) {
            return Ok(Self {
                format: ImageFormat::Elf,
                version: banner(image),
                boot,
                contents: contents(image),
            });
        }
        let named = payload::version(image);
        Ok(match payload::unpack(image) {
            Ok((kernel, compression)) => Self {
                format: ImageFormat::BzImage(compression),
                version: named.or_else(|| banner(&kernel)),
                boot,
                contents: contents(&kernel),
            },
            Err(error) => Self {
                format: ImageFormat::BzImage(None),
                version: named,
                boot,
                contents: Err(error.into()),
            },
        })
    }
}

/// The version in the banner of the kernel `image`.
fn banner(image: &[u8]) -> Option<String> {
    memmem::find_iter(image, BANNER).find_map(|at| {
        let text = &image[at + BANNER.len()..];
        let text = &text[..text.len().min(MAX_VERSION)];
        let end = text.iter().position(|byte| !byte.is_ascii_graphic())?;
        // The format of the banner is in the kernel, too.
        let is_version = text.first().is_some_and(u8::is_ascii_digit);
        is_version.then(|| String::from_utf8_lossy(&text[..end]).into_owned())
    })
}

fn contents(image: &[u8]) -> Result<KernelContents, ContentsError> {
    let vmlinux = Vmlinux::parse(image)?;
    let has = |mark| memmem::find(image, mark).is_some();
    Ok(KernelContents {
        pvh_entry: vmlinux.pvh_entry(),
        count: count(&vmlinux, image),
        has_baton_patches: has(BATON_MARK),
        has_pv_spinlocks: has(PV_SPINLOCK_MARK),
    })
}

/// The preempt count of the kernel `vmlinux`, whose file is `image`.
fn count(vmlinux: &Vmlinux<'_>, image: &[u8]) -> CountFact {
    let by_config = EmbeddedConfig::find(image).map(|config| config.has("CONFIG_PREEMPT_COUNT"));
    let Finding::Found(offset) = vmlinux.scan() else {
        let by_config = by_config.map(|is_kept| !is_kept);
        return CountFact::None { by_config };
    };
    // Symbols are of help, but not needed: a table that is damaged is as good as none.
    let symbols = elf::symbols(image).ok().flatten().unwrap_or_default();
    let by_symbol = symbols.count().map(|count| count.offset == offset);
    let evidence = [
        (by_symbol, symbols.count_name()),
        (by_config, "CONFIG_PREEMPT_COUNT"),
    ];
    let of = |wanted| {
        let sources = evidence
            .iter()
            .filter(move |(says, _)| *says == Some(wanted));
        sources.map(|&(_, name)| name).collect()
    };
    CountFact::Kept {
        offset,
        confirmed_by: of(true),
        doubted_by: of(false),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel_image::sample::{self, COUNT, PVH};

    const COUNTS: &str = "CONFIG_SMP=y\nCONFIG_PREEMPT_COUNT=y\n";
    const MARKS: &[&[u8]] = &[BATON_MARK, PV_SPINLOCK_MARK];

    fn facts(image: &[u8]) -> KernelFacts {
        KernelFacts::of("k", image).expect("memory")
    }

    /// The sample as a bzImage in each format in which a test can compress it.
    fn bzimages(vmlinux: &[u8]) -> [(Option<Compression>, Vec<u8>); 4] {
        [
            (None, sample::bzimage(vmlinux)),
            (
                Some(Compression::Gzip),
                sample::bzimage(&sample::gzip(vmlinux)),
            ),
            (
                Some(Compression::Zstd),
                sample::bzimage(&sample::zstd(vmlinux)),
            ),
            (
                Some(Compression::Lz4),
                sample::bzimage(&sample::lz4(vmlinux)),
            ),
        ]
    }

    #[test]
    fn an_elf_kernel_shows_its_version_entry_count_and_marks() {
        let facts = facts(&sample::vmlinux(COUNTS, MARKS));
        assert_eq!(facts.format, ImageFormat::Elf);
        assert_eq!(facts.version.as_deref(), Some("6.12.1-sample"));
        assert_eq!(facts.boot.expect("boots").address().0, u64::from(PVH));
        let contents = KernelContents {
            pvh_entry: Some(PVH.into()),
            count: CountFact::Kept {
                offset: COUNT,
                confirmed_by: vec!["pcpu_hot", "CONFIG_PREEMPT_COUNT"],
                doubted_by: vec![],
            },
            has_baton_patches: true,
            has_pv_spinlocks: true,
        };
        assert_eq!(facts.contents.expect("an ELF file"), contents);
    }

    #[test]
    fn a_bzimage_shows_the_same_however_it_is_compressed() {
        let vmlinux = sample::vmlinux(COUNTS, &[]);
        let expected = facts(&vmlinux).contents.expect("an ELF file");
        assert!(!expected.has_baton_patches && !expected.has_pv_spinlocks);
        for (format, image) in bzimages(&vmlinux) {
            let facts = facts(&image);
            assert_eq!(facts.format, ImageFormat::BzImage(format));
            assert_eq!(facts.version.as_deref(), Some("6.12.2-header"));
            assert_eq!(facts.boot.expect("boots").address().0, 0x10_0200);
            assert_eq!(facts.contents.expect("readable"), expected);
        }
    }

    #[test]
    fn evidence_against_a_count_is_reported() {
        let facts = facts(&sample::vmlinux("# CONFIG_PREEMPT_COUNT is not set\n", &[]));
        let count = CountFact::Kept {
            offset: COUNT,
            confirmed_by: vec!["pcpu_hot"],
            doubted_by: vec!["CONFIG_PREEMPT_COUNT"],
        };
        assert_eq!(facts.contents.expect("an ELF file").count, count);
    }

    #[test]
    fn a_kernel_whose_text_counts_in_nothing_has_no_count() {
        let mut image = sample::vmlinux("CONFIG_SMP=y\n", &[]);
        // GS becomes FS.
        image
            .iter_mut()
            .filter(|byte| **byte == 0x65)
            .for_each(|byte| *byte = 0x64);
        let count = facts(&image).contents.expect("an ELF file").count;
        assert!(matches!(count, CountFact::None { .. }), "{count:?}");
    }

    #[test]
    fn a_bzimage_that_cannot_be_decompressed_may_still_boot() {
        for (payload, why) in [
            (
                &b"BZh9 and so on"[..],
                "decompression of bzip2 is not supported",
            ),
            (
                b"no format",
                "it is compressed in a format that is not known",
            ),
        ] {
            let facts = facts(&sample::bzimage(payload));
            assert!(facts.boot.is_ok());
            let error = facts.contents.expect_err("not readable");
            assert_eq!(error.to_string(), why);
        }
    }

    #[test]
    fn an_image_that_is_cut_short_anywhere_does_no_harm() {
        let vmlinux = sample::vmlinux(COUNTS, MARKS);
        for (_, image) in bzimages(&vmlinux)
            .into_iter()
            .chain([(None, vmlinux.clone())])
        {
            for length in (0..image.len()).step_by(7) {
                facts(&image[..length]);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn a_corrupted_image_does_no_harm(
            form in 0..5usize, at in any::<prop::sample::Index>(), values in any::<[u8; 8]>(),
            in_header in any::<bool>(), has_end in any::<bool>(),
        ) {
            let vmlinux = sample::vmlinux(COUNTS, MARKS);
            let mut image = match bzimages(&vmlinux).get(form) {
                Some((_, image)) => image.clone(),
                None => vmlinux,
            };
            // The headers are a small part of the image, and the part that matters most.
            let (start, length) = match (in_header, form) {
                (false, _) => (0, image.len()),
                (true, 4) if has_end => (image.len() - 256, 256),
                (true, 4) => (0, 176),
                (true, _) => (0x1f1, 0x80),
            };
            let place = start + at.index(length - values.len());
            image[place..place + values.len()].copy_from_slice(&values);
            facts(&image);
            let _ = elf::symbols(image.as_slice());
        }
    }
}
