//! What a scheduler gets, guests that are ready to run, and what it reports at the end.

use std::sync::Arc;

use baton_config::GuestConfig;
use baton_machine::{ExitCounts, Guest, Vcpu};
use baton_observe::recorder::Moment;
use serde::Serialize;

/// A guest that is ready to run.
#[derive(Debug)]
pub struct ReadyGuest {
    /// The guest.
    pub guest: Arc<Guest>,
    /// Its configuration.
    pub config: GuestConfig,
    /// Its vCPUs, in order.
    pub vcpus: Vec<Box<Vcpu>>,
}

/// A scheduler that runs vCPUs.
pub trait Runner {
    /// Stops all vCPUs and waits until none runs. To be called also when all guests have ended by
    /// themselves.
    fn stop(self: Box<Self>) -> RunnerReport;
}

/// What a scheduler reports at the end.
#[derive(Debug, Default)]
pub struct RunnerReport {
    /// The numbers of each guest's vCPUs, in order.
    pub vcpus: Vec<Vec<VcpuAccount>>,
    /// CPU time of the whole process while it ran guests, ns; 0 where the scheduler charges nothing.
    pub process_ns: u64,
    /// What each executor did with its host CPU, if there were executors.
    pub executors: Vec<ExecutorReport>,
    /// The moment for the timeline, if one was to be recorded.
    pub moment: Option<Moment>,
}

/// What one executor did with its CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExecutorReport {
    /// Spent on guests, their exits and decisions about them, CPU time, ns; charged to them.
    pub busy_ns: u64,
    /// Spent on wake-ups for nothing and on decisions to sleep, CPU time, ns; charged to no guest.
    pub unassigned_ns: u64,
    /// Spent by the host on other things while the executor was not asleep, ns.
    pub host_steal_ns: u64,
    /// Asleep for lack of work, ns.
    pub idle_ns: u64,
    /// Asleep because the host CPU could not be used: offline, or not permitted to this process; ns.
    pub away_ns: u64,
    /// Decisions of the policy.
    pub decisions: u64,
}

/// What the scheduler counted for one vCPU. Times are in nanoseconds. What the scheduler in charge does not
/// count stays zero.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VcpuAccount {
    /// CPU time that the vCPU ran.
    pub ran_ns: u64,
    /// CPU time charged to its reservation or share.
    pub charged_ns: u64,
    /// Of that, CPU time that other threads spent for it.
    pub elsewhere_ns: u64,
    /// Of that, for its sleeps and its wake-ups.
    pub sleep_ns: u64,
    /// Of `elsewhere_ns`, by the devices of its guest.
    pub devices_ns: u64,
    /// Of `sleep_ns`, time taken from more urgent vCPUs of other guests by waking it.
    pub disturbing_ns: u64,
    /// Of `charged_ns`, time in which another vCPU ran.
    pub donated_ns: u64,
    /// Time it ran on others' scheduling contexts.
    pub received_ns: u64,
    /// Time it was runnable, had a budget, and waited for a CPU.
    pub waited_ns: u64,
    /// Time it was runnable and waited for a budget.
    pub throttled_wait_ns: u64,
    /// Of its time on a CPU, time that the host kernel gave to others.
    pub host_steal_ns: u64,
    /// Times it was taken off a CPU against its will.
    pub preemptions: u64,
    /// Of those, times it held a lock.
    pub holder_preemptions: u64,
    /// Times it ran for a waiter.
    pub proxied: u64,
    /// Time in those.
    pub proxied_ns: u64,
    /// Longest chain of waiters and holders that ended at it.
    pub longest_chain: u64,
    /// Times it was found in a circle of vCPUs that wait for each other.
    pub cycles: u64,
    /// Times the chain of vCPUs for which it waits was longer than is followed.
    pub long_chains: u64,
    /// Times its preemption was deferred because it held a lock.
    pub deferrals: u64,
    /// Time that these deferrals took beyond its own.
    pub deferred_ns: u64,
    /// Deadlines it missed, one for each period in which its budget did not come in time.
    pub deadline_misses: u64,
    /// Time it was throttled for lack of budget, whether or not it could have run.
    pub throttled_ns: u64,
    /// Time in which its reservation was reduced because host CPUs were away.
    pub reduced_ns: u64,
    /// Times it was put on a CPU.
    pub switches: u64,
    /// Times it was put on another CPU than the one on which it ran last.
    pub migrations: u64,
    /// Its exits.
    pub exits: ExitCounts,
}
