//! What all guests of a pool have in common, from its start to its end.

use baton_config::{ExecutorPriority, LateHalts};

use crate::halt::ThreadPriority;

/// How a pool runs its guests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolSettings {
    /// The priorities of the threads.
    pub(crate) priority: ThreadPriority,
    /// The priority of vCPUs' threads of other processes, while they have the command to run. Executors have one more.
    pub(crate) foreign_priority: ExecutorPriority,
    /// Whether halted vCPUs can sleep in `KVM_RUN`, because KVM can end a halt without delivering the interrupt.
    pub(crate) can_sleep: bool,
    /// Whether each vCPU has a thread that runs it; otherwise executors run vCPUs themselves.
    pub(crate) own_threads: bool,
    /// Whether guests with reservations may run where halts are noticed late.
    pub(crate) late_halts: LateHalts,
}
