//! Which reservations were not delivered, and where the time went.
//!
//! A reservation promises its budget in each period in which the vCPU could use all of it. The promise of a period
//! is kept if the budget is used up by the deadline, by the vCPU itself or by one that it carries. So a period in
//! which the vCPU halts with budget left, or runs on another vCPU's budget, breaks no promise. Each deadline that
//! passes with budget left while the vCPU could use it is a promise that was not kept (`deadline_misses`).
//!
//! Three counters have the time in which a vCPU could run and did not. No time is in two of them:
//!
//! | counter | lost to | remedy |
//! |---|---|---|
//! | `host_steal_ns` | the host, which ran something else on the CPU that the policy had given to the vCPU | `--executor-priority`, or fewer programs there |
//! | `waited_ns` | other vCPUs: it had a budget, or needs none, and no CPU | a reservation, or an earlier deadline |
//! | `throttled_wait_ns` | its own reservation, whose budget was used up | a larger budget |
//!
//! Only the first two can break a promise.

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
                    "{of_vcpu} not delivered by {} deadlines: the host took {} of its time, it waited {} for a \
                     host CPU and {} for a budget",
                    counters.deadline_misses,
                    readable_ns(counters.host_steal_ns),
                    readable_ns(counters.waited_ns),
                    readable_ns(counters.throttled_wait_ns),
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
            waited_ns: 5_000_000,
            throttled_wait_ns: 3_000_000,
            host_steal_ns: 1_000_000,
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
                "guest db, vCPU 1: its reservation was not delivered by 4 deadlines: the host took 1.00ms of its \
                 time, it waited 5.00ms for a host CPU and 3.00ms for a budget",
                "guest db, vCPU 2: its reservation was reduced for 7.00ms, while host CPUs were away",
            ]
        );
    }
}
