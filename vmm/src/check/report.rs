//! The findings about a host.

use std::fmt;

/// The state of one thing that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It is as it should be.
    Ok,
    /// Guests run, but something is slower or not available.
    Warn,
    /// Guests do not run.
    Missing,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its state.
    pub mark: Mark,
    /// Its name.
    pub what: &'static str,
    /// What was found, and what to do about it.
    pub text: String,
}

/// All findings about a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostReport {
    /// The findings, in the order of the checks.
    pub findings: Vec<Finding>,
    /// Whether the host has the hardware virtualization that Linux guests need.
    pub linux: bool,
}

impl HostReport {
    /// Whether nothing is missing that guests need.
    #[must_use]
    pub fn can_run(&self) -> bool {
        self.findings.iter().all(|f| f.mark != Mark::Missing)
    }

    fn add(&mut self, mark: Mark, what: &'static str, text: String) {
        self.findings.push(Finding { mark, what, text });
    }

    pub(super) fn ok(&mut self, what: &'static str, text: String) {
        self.add(Mark::Ok, what, text);
    }

    pub(super) fn warn(&mut self, what: &'static str, text: String) {
        self.add(Mark::Warn, what, text);
    }

    pub(super) fn missing(&mut self, what: &'static str, text: String) {
        self.add(Mark::Missing, what, text);
    }
}

impl fmt::Display for HostReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_findings(f, &self.findings)?;
        writeln!(
            f,
            "\n{}",
            match (self.can_run(), self.linux) {
                (true, true) => "This host can run guests.",
                (true, false) =>
                    "This host can run guests that are made for it, but no Linux guests: see virtualization.",
                (false, _) => "This host cannot run guests yet.",
            }
        )
    }
}

/// Writes a line for each of `findings`.
pub(super) fn write_findings(f: &mut fmt::Formatter<'_>, findings: &[Finding]) -> fmt::Result {
    let width = findings.iter().map(|x| x.what.len()).max().unwrap_or(0);
    for finding in findings {
        let mark = match finding.mark {
            Mark::Ok => "ok     ",
            Mark::Warn => "warn   ",
            Mark::Missing => "MISSING",
        };
        writeln!(f, "{mark}  {:<width$}  {}", finding.what, finding.text)?;
    }
    Ok(())
}

/// The text of a warning about halts or wake-ups that are noticed late, because of `reason`.
pub(super) fn late(reason: &str) -> String {
    format!(
        "{reason}; until then runs with reservations are refused, or accepted by --late-halts allow"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_machine::kvm::KvmError;

    #[test]
    fn a_host_that_lacks_something_cannot_run_guests() {
        let mut report = HostReport::default();
        report.missing("/dev/kvm", KvmError::Missing.to_string());
        assert!(!report.can_run());
        let text = report.to_string();
        assert!(
            text.contains("MISSING") && text.contains("kvm_intel"),
            "{text}"
        );
    }
}
