//! A whole run: its guests, its scheduler and what it offers to the outside.

use std::path::PathBuf;
use std::time::Duration;

use crate::control::Control;
use crate::executor_priority::ExecutorPriority;
use crate::guest::GuestConfig;
use crate::metrics_target::MetricsTarget;
use crate::output::{SummaryForm, Timeline};
use crate::sched::{Given, LateHalts, SchedMode, VcpuThreads};

/// Default of [`RunConfig::slice`]. A preemption costs some 25 us, which is below 1 % of 4 ms.
pub const DEFAULT_SLICE: Duration = Duration::from_millis(4);
/// Default of [`RunConfig::shutdown_timeout`]. Service managers kill what has not stopped after 90 s.
pub const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(60);
/// Default of [`RunConfig::defer`].
pub const DEFAULT_DEFER: Duration = Duration::from_micros(50);

/// Everything about one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunConfig {
    /// The guests. The index of a guest here is `GuestRecord::number` in baton-machine.
    pub guests: Vec<GuestConfig>,
    /// Host CPUs of the pool, ascending, none twice. Empty: all that this process may use.
    pub host_cpus: Vec<usize>,
    /// Whether the pool may have host CPUs that another process owns.
    pub share_cpus: bool,
    /// Whether other programs are kept off the pool's host CPUs (not under the host's schedulers).
    pub isolate: bool,
    /// The scheduler that decides which vCPU runs.
    pub sched: SchedMode,
    /// Run preempted lock holders on their waiters' budgets ([`SchedMode::Baton`] only).
    pub proxy: bool,
    /// How long the preemption of a lock holder may be deferred; `None` for never.
    pub defer: Option<Duration>,
    /// Longest time for which a vCPU without a reservation runs while others wait.
    pub slice: Duration,
    /// Which of `proxy`, `defer` and `slice` the user has given a value, whatever the value is.
    pub given: Given,
    /// Whether each vCPU has a thread of its own.
    pub vcpu_threads: VcpuThreads,
    /// The priority of the threads that run vCPUs (not under the host's schedulers).
    pub executor_priority: ExecutorPriority,
    /// Whether reservations are accepted where halts are noticed late ([`SchedMode::Baton`] only).
    pub late_halts: LateHalts,
    /// Whether a run in which a reservation was not delivered has failed ([`SchedMode::Baton`] only).
    pub require_delivery: bool,
    /// Stop after this time; `None` runs until all guests have ended.
    pub duration: Option<Duration>,
    /// How long guests with a power button have to switch themselves off at the end of the run; zero: they are cut
    /// at once.
    pub shutdown_timeout: Duration,
    /// Stop when the guest of this name has ended.
    pub until_guest: Option<String>,
    /// Form of the summary.
    pub summary: SummaryForm,
    /// Which of the policy's decisions to record for a timeline ([`SchedMode::Baton`] only).
    pub timeline: Timeline,
    /// File to which a trace in Perfetto's format is written ([`SchedMode::Baton`] only).
    pub trace: Option<PathBuf>,
    /// Where metrics are offered ([`SchedMode::Baton`] only).
    pub metrics: Option<MetricsTarget>,
    /// Where the control socket is offered ([`SchedMode::Baton`] only).
    pub control: Control,
    /// Whether guests may have more memory together than the host has.
    pub overcommit_memory: bool,
    /// Discard what guests print and give them no input.
    pub quiet: bool,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            guests: Vec::new(),
            host_cpus: Vec::new(),
            share_cpus: false,
            isolate: false,
            sched: SchedMode::Baton,
            proxy: true,
            defer: Some(DEFAULT_DEFER),
            slice: DEFAULT_SLICE,
            given: Given::default(),
            vcpu_threads: VcpuThreads::Auto,
            executor_priority: ExecutorPriority::Off,
            late_halts: LateHalts::Refuse,
            require_delivery: false,
            duration: None,
            shutdown_timeout: DEFAULT_SHUTDOWN_TIMEOUT,
            until_guest: None,
            summary: SummaryForm::Text,
            timeline: Timeline::Off,
            trace: None,
            metrics: None,
            control: Control::Off,
            overcommit_memory: false,
            quiet: false,
        }
    }
}

impl RunConfig {
    /// Indices of the guests whose ends end the run.
    pub fn awaited(&self) -> impl Iterator<Item = usize> {
        let until = self.until_guest.as_ref();
        let counts = move |guest: &GuestConfig| until.is_none_or(|name| *name == guest.name);
        let numbered = self.guests.iter().enumerate();
        numbered
            .filter(move |(_, guest)| counts(guest))
            .map(|(index, _)| index)
    }
}
