//! The summary as text for people.

use std::fmt::Write;

use baton_config::units::format_cpus;
use baton_config::units::readable_ns;

use super::cpu_account::CpuAccount;
use super::guest_summary::{Elsewhere, GuestSummary};
use super::run_summary::RunSummary;
use super::table::table;
use super::workload::Workload;

/// The whole summary, ending in a newline.
#[must_use]
pub fn render(run: &RunSummary) -> String {
    let mut text = String::new();
    let scheduler = match (run.sched.as_str(), run.proxy) {
        ("baton", true) => "baton, proxy on",
        ("baton", false) => "baton, proxy off",
        (other, _) => other,
    };
    // Writing to a string does not fail, here and below.
    let _ = writeln!(
        text,
        "\n{} on host CPUs {} under {scheduler}",
        readable_ns(run.elapsed_ns),
        format_cpus(&run.host_cpus)
    );
    host_cpu_lines(&mut text, run);
    cpu_time_line(&mut text, run.cpu);
    for guest in &run.guests {
        guest_lines(&mut text, guest);
        table(&mut text, guest);
    }
    text
}

fn host_cpu_lines(text: &mut String, run: &RunSummary) {
    let share = |ns: u64| ns as f64 * 100.0 / run.elapsed_ns.max(1) as f64;
    for (cpu, executor) in run.host_cpus.iter().zip(&run.executors) {
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
}

fn cpu_time_line(text: &mut String, account: CpuAccount) {
    let CpuAccount {
        process_ns,
        charged_ns,
        unassigned_ns,
    } = account;
    if process_ns > 0 {
        let _ = writeln!(
            text,
            "  {} of CPU time: {} charged to guests, {} idle executors, {} all else",
            readable_ns(process_ns),
            readable_ns(charged_ns),
            readable_ns(unassigned_ns.idle_executors),
            readable_ns(unassigned_ns.rest)
        );
    }
}

/// What there is to say of a guest above its table.
fn guest_lines(text: &mut String, guest: &GuestSummary) {
    let _ = writeln!(text, "\n{}: {}", guest.name, guest.end);
    match guest.restarts {
        0 => {}
        1 => text.push_str("  it was started again once\n"),
        times => {
            let _ = writeln!(text, "  it was started again {times} times");
        }
    }
    if let Some(hints) = &guest.hints {
        let _ = writeln!(text, "  hints: {hints}");
    }
    workload_lines(text, &guest.workload);
    elsewhere_line(text, &guest.elsewhere_ns);
    let counters = || guest.vcpus.iter().map(|vcpu| &vcpu.account.counters);
    let reduced_ns = counters().map(|counters| counters.reduced_ns).max();
    if let Some(reduced_ns) = reduced_ns.filter(|&reduced_ns| reduced_ns > 0) {
        let _ = writeln!(
            text,
            "  its reservations were reduced for {}, while host CPUs were away",
            readable_ns(reduced_ns)
        );
    }
    if guest.console_dropped > 0 {
        let _ = writeln!(
            text,
            "  {} bytes of its console were dropped: nobody took them in time",
            guest.console_dropped
        );
    }
    let cycles: u64 = counters().map(|counters| counters.cycles).sum();
    // A guest that ended by itself was in no deadlock. However often a circle was met, it gets one line, because
    // vCPUs that sleep in it are not met again.
    if cycles > 0 && guest.exit_code.is_none() {
        text.push_str(
            "  its vCPUs said that they wait for each other in a circle: if the guest no longer goes \
             on, it is in a deadlock\n",
        );
    }
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
