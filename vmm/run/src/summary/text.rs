//! The summary as a table for people.

use std::fmt::Write;

use baton_config::units::format_cpus;
use baton_config::units::readable_ns;

use super::{CpuAccount, Elsewhere, GuestSummary, RunSummary, VcpuSummary, Workload};

/// A column: its title and what stands in it.
type Column = (&'static str, fn(&VcpuSummary) -> Option<String>);

/// Columns that are zero for all vCPUs of a run are left out.
const COLUMNS: [Column; 19] = [
    ("ran", |v| time(v.account.ran_ns)),
    ("charged", |v| time(v.account.charged_ns)),
    ("elsewhere", |v| time(v.account.elsewhere_ns)),
    ("donated", |v| time(v.account.donated_ns)),
    ("received", |v| time(v.account.received_ns)),
    ("waited", |v| time(v.account.waited_ns)),
    ("host steal", |v| time(v.account.host_steal_ns)),
    ("preempted", |v| count(v.account.preemptions)),
    ("holding", |v| count(v.account.holder_preemptions)),
    ("proxied", |v| count(v.account.proxied)),
    ("chain", |v| count(v.account.longest_chain)),
    ("deferred", |v| count(v.account.deferrals)),
    ("missed", |v| count(v.account.deadline_misses)),
    ("throttled", |v| time(v.account.throttled_ns)),
    ("switches", |v| count(v.account.switches)),
    ("moved", |v| count(v.account.migrations)),
    ("exits", |v| count(v.account.exits.total())),
    ("doorbells", |v| count(v.account.exits.doorbells)),
    ("nonsense", |v| count(v.account.exits.nonsense)),
];

fn time(ns: u64) -> Option<String> {
    (ns > 0).then(|| readable_ns(ns))
}

fn count(n: u64) -> Option<String> {
    (n > 0).then(|| n.to_string())
}

/// The whole summary, ending in a newline.
#[must_use]
pub fn render(run: &RunSummary) -> String {
    let mut text = String::new();
    let policy = match (run.sched.as_str(), run.proxy) {
        ("baton", true) => "baton, proxy on".to_owned(),
        ("baton", false) => "baton, proxy off".to_owned(),
        (other, _) => other.to_owned(),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "\n{} on host CPUs {} under {policy}",
        readable_ns(run.elapsed_ns),
        format_cpus(&run.host_cpus)
    );
    for (cpu, executor) in run.host_cpus.iter().zip(&run.executors) {
        let share = |ns: u64| ns as f64 * 100.0 / run.elapsed_ns.max(1) as f64;
        let _ = writeln!(
            text,
            "  host CPU {cpu}: guests {:.1} %, idle {:.1} %, lost to the host {:.1} %",
            share(executor.busy_ns),
            share(executor.idle_ns),
            share(executor.host_steal_ns)
        );
        if executor.away_ns > 0 {
            let away = readable_ns(executor.away_ns);
            let _ = writeln!(
                text,
                "  host CPU {cpu} was away for {away}: offline, or not for this process"
            );
        }
    }
    if run.cpu.process_ns > 0 {
        let CpuAccount {
            process_ns,
            charged_ns,
            unassigned_ns,
        } = run.cpu;
        let _ = writeln!(
            text,
            "  {} of CPU time: {} charged to guests, {} idle executors, {} all else",
            readable_ns(process_ns),
            readable_ns(charged_ns),
            readable_ns(unassigned_ns.idle_executors),
            readable_ns(unassigned_ns.rest)
        );
    }
    for guest in &run.guests {
        let _ = writeln!(text, "\n{}: {}", guest.name, guest.end);
        workload_lines(&mut text, &guest.workload);
        elsewhere_line(&mut text, &guest.elsewhere_ns);
        let reduced = guest.vcpus.iter().map(|vcpu| vcpu.account.reduced_ns).max();
        if let Some(reduced) = reduced.filter(|&reduced| reduced > 0) {
            let _ = writeln!(
                text,
                "  its reservations were reduced for {}, while host CPUs were away",
                readable_ns(reduced)
            );
        }
        if guest.console_dropped > 0 {
            let _ = writeln!(
                text,
                "  {} bytes of its console were dropped: nobody took them in time",
                guest.console_dropped
            );
        }
        let cycles: u64 = guest.vcpus.iter().map(|vcpu| vcpu.account.cycles).sum();
        // One that ended by itself was in no deadlock. A circle is said once, however often it was met:
        // vCPUs that sleep in one are not looked at again.
        if cycles > 0 && guest.exit_code.is_none() {
            text.push_str(
                "  its vCPUs said that they wait for each other in a circle: if the guest no longer goes \
                 on, it is in a deadlock\n",
            );
        }
        table(&mut text, guest);
    }
    text
}

fn elsewhere_line(text: &mut String, elsewhere: &Elsewhere) {
    let parts = [
        (elsewhere.parked, "by halted vCPUs' threads"),
        (elsewhere.devices, "by its devices"),
        (elsewhere.console, "by its console"),
    ];
    let named = parts.into_iter().filter(|(spent, _)| *spent > 0);
    let named: Vec<_> = named
        .map(|(spent, by)| format!("{} {by}", readable_ns(spent)))
        .collect();
    if !named.is_empty() {
        let _ = writeln!(text, "  charged beside its runs: {}", named.join(", "));
    }
}

fn workload_lines(text: &mut String, workload: &Workload) {
    if workload.acquisitions > 0 {
        let _ = writeln!(
            text,
            "  {} acquisitions in {}: {}/s; wait mean {}, 99% below {}, longest {}",
            workload.acquisitions,
            readable_ns(workload.elapsed_ns),
            workload.acquisitions_per_s,
            readable_ns(workload.wait_mean_ns),
            readable_ns(workload.wait_p99_ns),
            readable_ns(workload.wait_max_ns),
        );
    }
    match workload.counter_ok {
        Some(true) => text.push_str("  the counter under the lock equals the acquisitions\n"),
        Some(false) => {
            text.push_str("  THE COUNTER UNDER THE LOCK DIFFERS FROM THE ACQUISITIONS\n");
        }
        None => {}
    }
    if workload.iterations > 0 {
        let _ = writeln!(
            text,
            "  {} iterations in {}: {}/s",
            workload.iterations,
            readable_ns(workload.elapsed_ns),
            workload.iterations_per_s
        );
    }
}

fn table(text: &mut String, guest: &GuestSummary) {
    let columns: Vec<(&str, Vec<String>)> = COLUMNS
        .iter()
        .filter_map(|(title, cell)| {
            let cells: Vec<Option<String>> = guest.vcpus.iter().map(cell).collect();
            cells.iter().any(Option::is_some).then(|| {
                let cells = cells
                    .into_iter()
                    .map(|cell| cell.unwrap_or_else(|| "-".to_owned()))
                    .collect();
                (*title, cells)
            })
        })
        .collect();
    let width = |(title, cells): &(&str, Vec<String>)| {
        cells
            .iter()
            .map(String::len)
            .max()
            .unwrap_or(0)
            .max(title.len())
    };
    let _ = write!(text, "  vCPU");
    for column in &columns {
        let _ = write!(text, "  {:>1$}", column.0, width(column));
    }
    text.push('\n');
    for index in 0..guest.vcpus.len() {
        let _ = write!(text, "  {index:>4}");
        for column in &columns {
            let _ = write!(text, "  {:>1$}", column.1[index], width(column));
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_host::runner::VcpuAccount;

    #[test]
    fn columns_without_a_number_are_left_out() {
        let guest = GuestSummary {
            name: "g".to_owned(),
            vcpus: vec![
                VcpuSummary {
                    account: VcpuAccount {
                        ran_ns: 1_000,
                        ..VcpuAccount::default()
                    },
                    ..VcpuSummary::default()
                },
                VcpuSummary::default(),
            ],
            ..Default::default()
        };
        let mut text = String::new();
        table(&mut text, &guest);
        assert_eq!(text, "  vCPU     ran\n     0  1.00us\n     1       -\n");
    }
}
