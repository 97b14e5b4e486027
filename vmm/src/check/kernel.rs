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
            let text = format!("kept, at {offset:#x} from GS by its code{confirmed}");
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
