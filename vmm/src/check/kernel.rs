//! What Baton does with a kernel.

use std::fmt;
use std::path::Path;

use baton_machine::kernel_image::{
    ContentsError, CountFact, ExamineError, ImageFormat, KernelContents, KernelFacts,
};

use super::report::{Finding, Mark, write_findings};

/// The findings about the file of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelReport {
    findings: Vec<Finding>,
    hints: String,
}

/// Checks the kernel in the file at `path`.
///
/// # Errors
/// If the file cannot be read.
pub fn kernel_file(path: &Path) -> Result<KernelReport, ExamineError> {
    Ok(KernelReport::of(&KernelFacts::examine(path)?))
}

impl KernelReport {
    fn of(facts: &KernelFacts) -> Self {
        let mut findings = vec![boot(facts), version(facts)];
        match &facts.contents {
            Ok(contents) => {
                findings.extend([count(&contents.count), pages(contents)]);
                // The mark is one of Linux.
                let is_linux = facts.version.is_some();
                findings.extend(is_linux.then(|| spinlocks(contents.has_pv_spinlocks)));
            }
            Err(error) => findings.push(unknown(error)),
        }
        Self {
            findings,
            hints: hints(facts.contents.as_ref().ok()).to_owned(),
        }
    }

    /// Whether Baton can boot the kernel.
    #[must_use]
    pub fn can_boot(&self) -> bool {
        self.findings.iter().all(|f| f.mark != Mark::Missing)
    }
}

impl fmt::Display for KernelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_findings(f, &self.findings)?;
        let boots = match self.can_boot() {
            true => "Baton can boot this kernel.",
            false => "Baton cannot boot this kernel.",
        };
        writeln!(f, "\n{boots} {}", self.hints)
    }
}

fn finding(mark: Mark, what: &'static str, text: impl Into<String>) -> Finding {
    let text = text.into();
    Finding { mark, what, text }
}

fn boot(facts: &KernelFacts) -> Finding {
    let entry = match &facts.boot {
        Ok(entry) => entry.address().0,
        Err(error) => return finding(Mark::Missing, "boot", error.to_string()),
    };
    let pvh = facts.contents.as_ref().ok().and_then(|c| c.pvh_entry);
    let text = match (facts.format, pvh) {
        (ImageFormat::BzImage(format), _) => {
            let packed = format.map(|format| format!(", compressed by {}", format.name()));
            let packed = packed.unwrap_or_default();
            let pvh = match pvh {
                Some(pvh) => format!(" (its vmlinux has the PVH entry {pvh:#x})"),
                None => String::new(),
            };
            format!("a bzImage{packed}, entered at {entry:#x} by the 64-bit boot protocol{pvh}")
        }
        (ImageFormat::Elf, Some(_)) => format!("an ELF file, entered at {entry:#x} by PVH"),
        (ImageFormat::Elf, None) => format!(
            "an ELF file without a PVH entry, entered at {entry:#x} by the 64-bit boot protocol"
        ),
    };
    finding(Mark::Ok, "boot", text)
}

fn version(facts: &KernelFacts) -> Finding {
    match &facts.version {
        Some(version) => finding(Mark::Ok, "Linux", version),
        None => finding(
            Mark::Warn,
            "Linux",
            "no version found: it may be another system",
        ),
    }
}

fn count(count: &CountFact) -> Finding {
    const WHAT: &str = "preempt count";
    match count {
        CountFact::Kept {
            offset,
            confirmed_by,
            doubted_by,
        } => {
            let confirmed = match confirmed_by.as_slice() {
                [] => String::new(),
                sources => format!(", confirmed by {}", sources.join(" and ")),
            };
            // Since Linux 6.15 it is an address, and GS has a difference.
            let place = match offset >> 63 {
                0 => format!("at {offset:#x} from GS"),
                _ => format!("at {offset:#x} before the kernel moves"),
            };
            let text = format!("kept, {place} by its code{confirmed}");
            match doubted_by.as_slice() {
                [] => finding(Mark::Ok, WHAT, text),
                sources => {
                    let sources = sources.join(" and ");
                    finding(
                        Mark::Warn,
                        WHAT,
                        format!("{text}, but contradicted by {sources}"),
                    )
                }
            }
        }
        CountFact::None { by_config } => finding(
            Mark::Warn,
            WHAT,
            match by_config {
                Some(true) => "none: it was built without CONFIG_PREEMPT_COUNT",
                Some(false) => {
                    "none found, although it was built with CONFIG_PREEMPT_COUNT: give --symbols"
                }
                None => {
                    "none: its code counts in no variable, as that of a kernel without CONFIG_PREEMPT_COUNT"
                }
            },
        ),
    }
}

fn pages(contents: &KernelContents) -> Finding {
    match contents.has_baton_patches {
        true => finding(Mark::Ok, "hint pages", "published: it has Baton's patches"),
        false => finding(
            Mark::Warn,
            "hint pages",
            "none: it does not have Baton's patches",
        ),
    }
}

fn spinlocks(are_paravirtual: bool) -> Finding {
    const WHAT: &str = "spinlocks";
    match are_paravirtual {
        true => finding(
            Mark::Ok,
            WHAT,
            "paravirtual: a vCPU that waits for long halts",
        ),
        false => finding(
            Mark::Warn,
            WHAT,
            "not paravirtual: a vCPU that waits spins until it is preempted \
             (CONFIG_PARAVIRT_SPINLOCKS changes that)",
        ),
    }
}

fn unknown(error: &ContentsError) -> Finding {
    finding(
        Mark::Warn,
        "contents",
        format!(
            "not known, because {error}: give its vmlinux, as scripts/extract-vmlinux of Linux makes it"
        ),
    )
}

/// A sentence about what the options of `--hints` have to offer.
fn hints(contents: Option<&KernelContents>) -> &'static str {
    let Some(contents) = contents else {
        return "What --hints auto and --hints inferred do with it is only known when it runs.";
    };
    let is_kept = matches!(contents.count, CountFact::Kept { .. });
    match (contents.has_baton_patches, is_kept) {
        (true, true) => {
            "With --hints auto its own hint pages are used; with --hints inferred, its preempt count."
        }
        (true, false) => {
            "With --hints auto its own hint pages are used; with --hints inferred there are no hints."
        }
        (false, true) => {
            "With --hints auto and --hints inferred hints are inferred from its preempt count."
        }
        (false, false) => "With --hints auto and --hints inferred there are no hints.",
    }
}

#[cfg(test)]
mod tests {
    use baton_machine::kernel_image::{Compression, DecompressError};
    use baton_machine::loader::Entry;
    use vm_memory::GuestAddress;

    use super::*;

    fn kept(offset: u64) -> CountFact {
        CountFact::Kept {
            offset,
            confirmed_by: vec!["pcpu_hot"],
            doubted_by: vec![],
        }
    }

    fn report(count: CountFact, has_baton_patches: bool) -> String {
        let contents = KernelContents {
            pvh_entry: Some(0x10_0000),
            count,
            has_baton_patches,
            has_pv_spinlocks: true,
        };
        text(Ok(contents))
    }

    fn text(contents: Result<KernelContents, ContentsError>) -> String {
        let facts = KernelFacts {
            format: ImageFormat::BzImage(Some(Compression::Zstd)),
            version: Some("6.12.1".to_owned()),
            boot: Ok(Entry::Long(GuestAddress(0x20_0200))),
            contents,
        };
        KernelReport::of(&facts).to_string()
    }

    #[test]
    fn the_last_sentence_is_what_the_options_of_hints_offer() {
        let none = || CountFact::None { by_config: None };
        for (count, has_patches, sentence) in [
            (
                kept(0x40),
                true,
                "its own hint pages are used; with --hints inferred, its preempt count.",
            ),
            (
                none(),
                true,
                "its own hint pages are used; with --hints inferred there are no hints.",
            ),
            (
                kept(0x40),
                false,
                "hints are inferred from its preempt count.",
            ),
            (
                none(),
                false,
                "With --hints auto and --hints inferred there are no hints.",
            ),
        ] {
            let text = report(count, has_patches);
            assert!(text.trim_end().ends_with(sentence), "{text}");
            assert!(text.contains("Baton can boot this kernel."), "{text}");
        }
    }

    #[test]
    fn a_count_has_an_offset_or_since_linux_6_15_an_address() {
        let text = report(kept(0x35008), false);
        assert!(
            text.contains("kept, at 0x35008 from GS by its code, confirmed by pcpu_hot"),
            "{text}"
        );
        let text = report(kept(0xffff_ffff_8281_2340), false);
        assert!(
            text.contains("at 0xffffffff82812340 before the kernel moves"),
            "{text}"
        );
        let doubted = CountFact::Kept {
            offset: 8,
            confirmed_by: vec![],
            doubted_by: vec!["CONFIG_PREEMPT_COUNT"],
        };
        let text = report(doubted, false);
        assert!(
            text.contains("but contradicted by CONFIG_PREEMPT_COUNT"),
            "{text}"
        );
    }

    #[test]
    fn a_kernel_that_cannot_be_decompressed_boots_and_the_remedy_is_named() {
        let error = DecompressError::Unsupported(Compression::Lzo);
        let text = text(Err(ContentsError::Payload(error.into())));
        assert!(
            text.contains("decompression of lzo is not supported: give its vmlinux"),
            "{text}"
        );
        assert!(
            text.contains("Baton can boot this kernel. What --hints auto"),
            "{text}"
        );
    }
}
