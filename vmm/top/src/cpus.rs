//! The lines about host CPUs above the table: one for each that runs something, one for all that are idle, and one
//! for all that are away. Where there are more lines than fit, the user scrolls.

use baton_config::units::format_cpus;
use baton_observe::control::snapshot::CpuSnapshot;

/// A line about host CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CpuLine {
    /// Its text.
    pub text: String,
    /// Whether a vCPU runs on another vCPU's budget there.
    pub proxied: bool,
}

/// The line about `cpu`.
pub(super) fn line(cpu: &CpuSnapshot) -> CpuLine {
    let (what, proxied) = match (&cpu.run, &cpu.donor) {
        (None, _) => ("idle".to_owned(), false),
        (Some(run), Some(donor)) if cpu.suspect => (
            format!("{run} on the budget of {donor}, which suspects that it holds a lock"),
            true,
        ),
        (Some(run), Some(donor)) if run != donor => (
            format!(
                "{run} on the budget of {donor}, which waits for lock {:#x}",
                cpu.lock.unwrap_or_default()
            ),
            true,
        ),
        (Some(run), _) => (run.clone(), false),
    };
    CpuLine {
        text: format!("CPU {:<3} {what}", cpu.cpu),
        proxied,
    }
}

/// All lines about `cpus`.
pub(super) fn lines(cpus: &[CpuSnapshot]) -> Vec<CpuLine> {
    let (busy, rest): (Vec<&CpuSnapshot>, Vec<&CpuSnapshot>) =
        cpus.iter().partition(|cpu| cpu.run.is_some());
    let (away, idle): (Vec<&CpuSnapshot>, Vec<&CpuSnapshot>) =
        rest.into_iter().partition(|cpu| cpu.away);
    let mut lines: Vec<CpuLine> = busy.into_iter().map(line).collect();
    for (what, cpus) in [
        ("idle", idle),
        ("away (offline, or not for this process)", away),
    ] {
        if !cpus.is_empty() {
            let mut cpus: Vec<usize> = cpus.into_iter().map(|cpu| cpu.cpu).collect();
            cpus.sort_unstable();
            lines.push(CpuLine {
                text: format!("{what}: {}", format_cpus(&cpus)),
                proxied: false,
            });
        }
    }
    lines
}

/// The part of `lines` that fits into `room` lines, beginning at `scroll`. If not all fit, the last line is a
/// hint.
pub(super) fn window(lines: Vec<CpuLine>, scroll: usize, room: usize) -> Vec<CpuLine> {
    let count = lines.len();
    if count <= room {
        return lines;
    }
    let shown = room.saturating_sub(1);
    let from = scroll.min(count - shown);
    let mut window: Vec<CpuLine> = lines.into_iter().skip(from).take(shown).collect();
    window.push(CpuLine {
        text: format!(
            "lines {} to {} of {count}: left and right show the others",
            (from + 1).min(count),
            from + shown
        ),
        proxied: false,
    });
    window
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(cpu: usize, run: Option<&str>) -> CpuSnapshot {
        CpuSnapshot {
            cpu,
            run: run.map(str::to_owned),
            donor: run.map(str::to_owned),
            ..CpuSnapshot::default()
        }
    }

    #[test]
    fn a_suspect_that_is_carried_is_told_from_a_holder() {
        let carried = |suspect: bool| CpuSnapshot {
            donor: Some("db/1".to_owned()),
            lock: (!suspect).then_some(16),
            suspect,
            ..cpu(0, Some("db/0"))
        };
        assert_eq!(
            [true, false].map(|suspect| line(&carried(suspect)).text),
            [
                "CPU 0   db/0 on the budget of db/1, which suspects that it holds a lock",
                "CPU 0   db/0 on the budget of db/1, which waits for lock 0x10"
            ]
        );
        assert!(line(&carried(true)).proxied);
    }

    #[test]
    fn idle_cpus_share_a_line() {
        let all = [
            cpu(0, None),
            cpu(1, Some("db/0")),
            cpu(2, None),
            cpu(3, None),
        ];
        let texts: Vec<String> = lines(&all).into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["CPU 1   db/0", "idle: 0,2-3"]);
    }

    #[test]
    fn every_one_of_128_busy_cpus_can_be_scrolled_to() {
        let all: Vec<CpuSnapshot> = (0..128).map(|n| cpu(n, Some("db/0"))).collect();
        let mut seen = std::collections::BTreeSet::new();
        for scroll in 0..200 {
            let window = window(lines(&all), scroll, 9);
            assert_eq!(window.len(), 9);
            seen.extend(window.into_iter().take(8).map(|line| line.text));
        }
        assert_eq!(seen.len(), 128);
        assert_eq!(window(lines(&all), 0, 128).len(), 128);
    }
}
