//! What starts and stops vCPUs: guests that are ready to run go in, numbers come out.

use std::sync::Arc;

use baton_config::GuestConfig;
use baton_machine::{ExitCounts, Guest, Vcpu};
use baton_observe::recorder::Moment;
use serde::Serialize;

use crate::executor::ExecutorReport;

/// A guest that is ready to run: what a scheduler gets.
#[derive(Debug)]
pub struct ReadyGuest {
    /// The guest.
    pub guest: Arc<Guest>,
    /// What the user wants for it.
    pub config: GuestConfig,
    /// Its vCPUs, in order.
    pub vcpus: Vec<Box<Vcpu>>,
}

/// A scheduler at work.
pub trait Runner {
    /// Stops all vCPUs and waits until none runs. Called once, also when all guests have ended by
    /// themselves.
    fn stop(self: Box<Self>) -> RunnerReport;
}

/// What a scheduler knows at the end.
#[derive(Debug, Default)]
pub struct RunnerReport {
    /// The numbers of each guest's vCPUs, in order.
    pub vcpus: Vec<Vec<VcpuAccount>>,
    /// CPU time of the whole process while it ran guests, ns; 0 where nobody is charged.
    pub process_ns: u64,
    /// What each host CPU of the pool did, where an executor was in charge of it.
    pub executors: Vec<ExecutorReport>,
    /// The moment to show, if one was to be recorded.
    pub moment: Option<Moment>,
}

/// What the scheduler in charge counted for one vCPU. Times in nanoseconds. What the scheduler in charge does not know stays zero.
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
    /// Time it ran on others' budgets.
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
    /// Times it was found to wait for others in a circle.
    pub cycles: u64,
    /// Times the chain of those whom it waits for was longer than is followed.
    pub long_chains: u64,
    /// Times its preemption was put off because it held a lock.
    pub deferrals: u64,
    /// Time that those took beyond its own.
    pub deferred_ns: u64,
    /// Deadlines it missed, one for each period in which its budget did not come in time.
    pub deadline_misses: u64,
    /// Time it was throttled for want of budget, whether or not it could have run.
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
