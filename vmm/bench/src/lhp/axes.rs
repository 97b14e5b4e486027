//! The axes of the benchmark: locks, loads and policies.

use baton_config::{DEFAULT_DEFER, HintSource, Reservation, RunConfig, SchedMode, VcpuThreads};
use clap::ValueEnum;
use serde::Serializer;

/// The reservation of each vCPU of [`Load::Hard`]: together 80 % of the pool.
pub const HARD_BUDGET: Reservation = match Reservation::hard(4_000_000, 10_000_000) {
    Ok(reservation) => reservation,
    Err(_) => panic!("it is within the bounds"),
};

/// A lock of the built-in guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lock {
    /// Test-and-set.
    Tas,
    /// A strict ticket lock.
    Ticket,
    /// A queue lock.
    Mcs,
    /// A mutex, whose waiters sleep.
    Mutex,
}

/// The guests that share the pool of m host CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Load {
    /// One guest of m vCPUs: no overcommit.
    #[value(name = "1x")]
    X1,
    /// One guest of 2m vCPUs.
    #[value(name = "2x")]
    X2,
    /// One guest of 4m vCPUs.
    #[value(name = "4x")]
    X4,
    /// One guest of 8m vCPUs.
    #[value(name = "8x")]
    X8,
    /// Two guests of m vCPUs, each with a lock of its own.
    #[value(name = "two-guests")]
    TwoGuests,
    /// One guest of m vCPUs with the lock, beside a guest of m vCPUs that only compute.
    #[value(name = "hog")]
    Hog,
    /// One guest of 2m vCPUs, each with a hard reservation of 4 ms in 10 ms.
    #[value(name = "hard")]
    Hard,
}

/// The scheduler, and what it learns about locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// The host kernel; waiters spin.
    #[value(name = "host-spin")]
    HostSpin,
    /// The host kernel; waiters spin for a while and then halt, as stock Linux guests do.
    #[value(name = "host-pv")]
    HostPv,
    /// The host kernel's SCHED_DEADLINE; waiters spin.
    #[value(name = "host-deadline")]
    HostDeadline,
    /// Baton, without hints about locks.
    #[value(name = "baton-nohints")]
    BatonNoHints,
    /// Baton with both of what follows, where the guest publishes no hints and the host infers them.
    #[value(name = "baton-inferred")]
    BatonInferred,
    /// Baton, which defers the preemption of holders.
    #[value(name = "baton-defer")]
    BatonDefer,
    /// Baton, which runs preempted holders on their waiters' budgets.
    #[value(name = "baton-proxy")]
    BatonProxy,
    /// Baton with both.
    #[value(name = "baton")]
    Baton,
    /// Baton with both, where the host infers only the hints that it can infer of any guest; measured only if it is
    /// named.
    #[value(name = "baton-inferred-any")]
    BatonInferredAny,
    /// Baton with both, each vCPU on a thread of its own; measured only if it is named.
    #[value(name = "baton-threads")]
    BatonThreads,
    /// Baton with both, the guests as processes of a pool that is a process, too; measured only if it is named.
    #[value(name = "baton-pool")]
    BatonPool,
    /// Baton with both and with a trace of every decision to /dev/null; measured only if it is named.
    #[value(name = "baton-traced")]
    BatonTraced,
    /// Equal slices in turn on Baton's executors, for comparison; measured only if it is named.
    #[value(name = "round-robin")]
    RoundRobin,
}

/// The name of a value of an axis, as on the command line and in all outputs.
#[must_use]
pub fn name<T: ValueEnum>(value: &T) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

/// For `serialize_with`: an axis value as its [`name`].
///
/// # Errors
/// Those of the serializer.
pub fn serialize_name<T: ValueEnum, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&name(value))
}

impl Policy {
    /// The policies that are measured by default: all that differ in their decisions.
    pub(super) const DECIDING: [Self; 8] = [
        Self::HostSpin,
        Self::HostPv,
        Self::HostDeadline,
        Self::BatonNoHints,
        Self::BatonInferred,
        Self::BatonDefer,
        Self::BatonProxy,
        Self::Baton,
    ];

    /// Whether this is a baseline, under which the host kernel schedules.
    #[must_use]
    pub fn is_host(self) -> bool {
        matches!(self, Self::HostSpin | Self::HostPv | Self::HostDeadline)
    }

    /// Whether the guests are processes of a pool.
    pub(super) fn has_processes(self) -> bool {
        self == Self::BatonPool
    }

    /// Whether it is a policy with which `other` is compared: each of the host kernel's, and for a pool the form of one
    /// process that comes closest to it.
    pub(super) fn is_baseline_of(self, other: Self) -> bool {
        self != other && (self.is_host() || (self == Self::BatonThreads && other.has_processes()))
    }

    /// Whether vCPUs can have reservations under this policy.
    pub(super) fn keeps_reservations(self) -> bool {
        !matches!(self, Self::HostSpin | Self::HostPv | Self::RoundRobin)
    }

    /// Sets the scheduler and its options, and where the hints of all guests come from, in `config`.
    pub(super) fn apply(self, config: &mut RunConfig) {
        config.sched = match self {
            Self::HostSpin | Self::HostPv => SchedMode::Host,
            Self::HostDeadline => SchedMode::HostDeadline,
            Self::RoundRobin => SchedMode::RoundRobin,
            _ => SchedMode::Baton,
        };
        let both = matches!(
            self,
            Self::Baton
                | Self::BatonInferred
                | Self::BatonInferredAny
                | Self::BatonThreads
                | Self::BatonPool
                | Self::BatonTraced
        );
        if self == Self::BatonThreads {
            config.vcpu_threads = VcpuThreads::On;
        }
        config.proxy = both || self == Self::BatonProxy;
        config.defer = (both || self == Self::BatonDefer).then_some(DEFAULT_DEFER);
        // The cost of recording and writing, without that of a disk that others may use.
        config.trace = (self == Self::BatonTraced).then(|| "/dev/null".into());
        for guest in &mut config.guests {
            guest.hints = self.hint_source();
        }
    }

    /// Where the hints about lock holders come from. No policy relies on the default, which may change.
    fn hint_source(self) -> HintSource {
        match self {
            Self::HostSpin
            | Self::HostPv
            | Self::HostDeadline
            | Self::BatonNoHints
            | Self::RoundRobin => HintSource::Off,
            Self::BatonInferred => HintSource::Inferred,
            Self::BatonInferredAny => HintSource::InferredAny,
            Self::BatonDefer
            | Self::BatonProxy
            | Self::Baton
            | Self::BatonThreads
            | Self::BatonPool
            | Self::BatonTraced => HintSource::Page,
        }
    }

    /// The part of the guest's command line that belongs to this policy.
    pub(super) fn guest_words(self) -> &'static str {
        match self {
            Self::HostSpin | Self::HostDeadline | Self::BatonNoHints | Self::RoundRobin => {
                "hints=off wait=spin"
            }
            Self::HostPv => "hints=off wait=halt",
            // The waiters are those of `BatonNoHints`, so that only the hints differ.
            Self::BatonInferred | Self::BatonInferredAny => "hints=stock wait=spin",
            Self::BatonDefer
            | Self::BatonProxy
            | Self::Baton
            | Self::BatonThreads
            | Self::BatonPool
            | Self::BatonTraced => "hints=on wait=spin",
        }
    }
}

impl Load {
    /// The number of vCPUs of each guest with a lock, on a pool of `cpus` host CPUs.
    #[must_use]
    pub fn lock_guests(self, cpus: usize) -> Vec<usize> {
        match self {
            Self::X1 | Self::Hog => vec![cpus],
            Self::X2 | Self::Hard => vec![2 * cpus],
            Self::X4 => vec![4 * cpus],
            Self::X8 => vec![8 * cpus],
            Self::TwoGuests => vec![cpus; 2],
        }
    }

    /// The reservation of each vCPU with the lock.
    pub(super) fn reservation(self) -> Option<Reservation> {
        (self == Self::Hard).then_some(HARD_BUDGET)
    }

    /// The number of vCPUs that only compute, on a pool of `cpus` host CPUs.
    #[must_use]
    pub fn hog_vcpus(self, cpus: usize) -> usize {
        if self == Self::Hog { cpus } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_schema() {
        let names = |values: Vec<String>| values.join(" ");
        assert_eq!(
            names(Lock::value_variants().iter().map(name).collect()),
            "tas ticket mcs mutex"
        );
        assert_eq!(
            names(Load::value_variants().iter().map(name).collect()),
            "1x 2x 4x 8x two-guests hog hard"
        );
        assert_eq!(
            names(Policy::value_variants().iter().map(name).collect()),
            "host-spin host-pv host-deadline baton-nohints baton-inferred baton-defer \
             baton-proxy baton baton-inferred-any baton-threads baton-pool baton-traced round-robin"
        );
    }
}
