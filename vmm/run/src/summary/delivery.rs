//! Which reservations were not delivered, and to what the time was lost.
//!
//! A reservation promises its budget in each period in which the vCPU could use all of it. The promise of a period
//! is kept if the budget is used up by the deadline, by the vCPU itself or by one that it carries. So a period in
//! which the vCPU halts with budget left, or runs on another vCPU's budget, breaks no promise. The policy counts what
//! was promised and what came of it (`vcpu-sched`: `classes/delivery.rs`):
//!
//! | counter | the promise was | remedy |
//! |---|---|---|
//! | `delivered_ns` | kept | |
//! | `lost_to_host_ns` | broken by the host, which ran something else on the host CPUs, or took them offline | `--executor-priority`, or fewer programs there |
//! | `lost_to_overcommit_ns` | broken by other vCPUs, which ran until the deadline | fewer or smaller reservations |
//! | `undemanded_ns` | not called in | |
//!
//! `throttled_wait_ns` breaks no promise: the vCPU wanted more than its reservation.

use baton_config::units::readable_ns;

use super::run_summary::RunSummary;

/// One sentence for each vCPU whose reservation was not delivered at all times.
#[must_use]
pub fn undelivered(run: &RunSummary) -> Vec<String> {
    let mut lines = Vec::new();
    for guest in &run.guests {
        for (index, vcpu) in guest.vcpus.iter().enumerate() {
            let counters = &vcpu.account.counters;
            let of_vcpu = format!("guest {}, vCPU {index}: its reservation was", guest.name);
            if counters.deadline_misses > 0 {
                lines.push(format!(
                    "{of_vcpu} not delivered by {} deadlines: of {} that were promised, {} were delivered, {} lost \
                     to the host and {} lost to overcommit",
                    counters.deadline_misses,
                    readable_ns(counters.promised_ns),
                    readable_ns(counters.delivered_ns),
                    readable_ns(counters.lost_to_host_ns),
                    readable_ns(counters.lost_to_overcommit_ns),
                ));
            }
            if counters.reduced_ns > 0 {
                lines.push(format!(
                    "{of_vcpu} reduced for {}, while host CPUs were away",
                    readable_ns(counters.reduced_ns)
                ));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use baton_host::runner::VcpuAccount;
    use vcpu_sched::Counters;

    use super::*;
    use crate::summary::{GuestSummary, VcpuSummary};

    #[test]
    fn only_deadlines_that_were_missed_and_reductions_are_undelivered() {
        let vcpu = |counters| VcpuSummary {
            account: VcpuAccount {
                counters,
                ..VcpuAccount::default()
            },
            ..VcpuSummary::default()
        };
        let kept = Counters {
            promised_ns: 50_000_000,
            delivered_ns: 44_000_000,
            lost_to_host_ns: 1_000_000,
            lost_to_overcommit_ns: 5_000_000,
            throttled_wait_ns: 3_000_000,
            ..Counters::default()
        };
        let missed = Counters {
            deadline_misses: 4,
            ..kept
        };
        let reduced = Counters {
            reduced_ns: 7_000_000,
            ..kept
        };
        let run = RunSummary {
            guests: vec![GuestSummary {
                name: "db".to_owned(),
                vcpus: [kept, missed, reduced].map(vcpu).into(),
                ..GuestSummary::default()
            }],
            ..RunSummary::default()
        };
        assert_eq!(
            undelivered(&run),
            [
                "guest db, vCPU 1: its reservation was not delivered by 4 deadlines: of 50.0ms that were promised, \
                 44.0ms were delivered, 1.00ms lost to the host and 5.00ms lost to overcommit",
                "guest db, vCPU 2: its reservation was reduced for 7.00ms, while host CPUs were away",
            ]
        );
    }
}
