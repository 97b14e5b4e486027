//! The timeline of the recorded moment.

use baton_config::units::readable_ns;
use baton_observe::timeline;
use vcpu_sched::VcpuId;

use super::run_summary::RunSummary;

/// The recorded moment, drawn as text. A sentence if none was recorded.
#[must_use]
pub fn moment(run: &RunSummary) -> String {
    let Some(moment) = &run.moment else {
        return "No vCPU ran on another's budget, so there is nothing to show.\n".to_owned();
    };
    let around = moment.end - moment.start;
    let names: Vec<String> = run
        .guests
        .iter()
        .flat_map(|guest| (0..guest.vcpus.len()).map(move |vcpu| format!("{}/{vcpu}", guest.name)))
        .collect();
    let name = |vcpu: VcpuId| names.get(vcpu.index()).cloned().unwrap_or_default();
    let (from, to) = (
        moment.start.saturating_sub(around),
        moment.end.saturating_add(around),
    );
    format!(
        "\nThe longest time that a waiter's budget carried a holder: {}\n\n{}",
        readable_ns(around),
        timeline::render(&moment.events, from, to, name)
    )
}
