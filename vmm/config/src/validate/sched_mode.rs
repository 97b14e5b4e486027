//! What each scheduler of `--sched` supports. An option that a scheduler does not support is refused, so
//! that no user measures or relies on something that was never in force.

use vcpu_sched::{Exhaustion, Reservation};

use crate::control::Control;
use crate::error::{ConfigError, fail};
use crate::executor_priority::ExecutorPriority;
use crate::guest::{DEFAULT_WEIGHT, GuestConfig};
use crate::output::Timeline;
use crate::run::RunConfig;
use crate::sched::{SchedMode, VcpuThreads};

/// Refuses what the scheduler of `config` does not support.
///
/// # Errors
/// The first option that is not supported, and what to do.
pub(super) fn check(config: &RunConfig) -> Result<(), ConfigError> {
    if config.sched == SchedMode::Baton {
        return Ok(());
    }
    let name = config.sched.name();
    let for_executors = executor_options(config);
    let for_executors = for_executors
        .into_iter()
        .filter(|_| config.sched.policy().is_none());
    for UnsupportedOption {
        is_requested,
        option,
        reason,
    } in baton_options(config).into_iter().chain(for_executors)
    {
        if is_requested {
            return fail(format!(
                "--sched {name} does not support {option}: {reason}; give --sched baton, or leave \
                 {option} out"
            ));
        }
    }
    config
        .guests
        .iter()
        .try_for_each(|guest| check_guest(guest, config.sched))
}

/// An option that some schedulers do not support.
struct UnsupportedOption {
    is_requested: bool,
    option: &'static str,
    /// Why they do not support it.
    reason: &'static str,
}

impl From<(bool, &'static str, &'static str)> for UnsupportedOption {
    fn from((is_requested, option, reason): (bool, &'static str, &'static str)) -> Self {
        Self {
            is_requested,
            option,
            reason,
        }
    }
}

/// The options that only the scheduler `baton` supports.
fn baton_options(config: &RunConfig) -> [UnsupportedOption; 3] {
    const HOLDERS: &str = "only Baton's own scheduler knows which vCPU holds a lock";
    let given = config.given;
    [
        (given.proxy && config.proxy, "--proxy on", HOLDERS),
        (given.defer && config.defer.is_some(), "--defer", HOLDERS),
        (
            config.require_delivery,
            "--require-delivery",
            "only Baton's own scheduler counts what it delivered of a reservation",
        ),
    ]
    .map(UnsupportedOption::from)
}

/// The options that need executors, which the host's schedulers do without.
fn executor_options(config: &RunConfig) -> [UnsupportedOption; 8] {
    const SHOWN: &str = "it shows what Baton's own scheduler decides";
    let given = config.given;
    [
        (
            given.slice,
            "--slice",
            "the host kernel decides how long a vCPU runs",
        ),
        (
            config.vcpu_threads == VcpuThreads::Off,
            "--vcpu-threads off",
            "the host kernel schedules threads, so each vCPU has one",
        ),
        (
            config.executor_priority != ExecutorPriority::Off,
            "--executor-priority",
            "there are no executors",
        ),
        (
            config.isolate,
            "--isolate",
            "the run owns no host CPUs, because it promises no CPU time",
        ),
        (config.timeline != Timeline::Off, "--timeline", SHOWN),
        (config.trace.is_some(), "--trace", SHOWN),
        (config.metrics.is_some(), "--metrics", SHOWN),
        (
            matches!(config.control, Control::Path(_)),
            "--control",
            SHOWN,
        ),
    ]
    .map(UnsupportedOption::from)
}

fn check_guest(guest: &GuestConfig, sched: SchedMode) -> Result<(), ConfigError> {
    let name = &guest.name;
    for (vcpu, reservation) in guest.reservations.iter().enumerate() {
        if let Some(refusal) = reservation.and_then(|own| refusal_of_reservation(own, sched)) {
            return fail(format!("guest {name}, vCPU {vcpu}: --sched {refusal}"));
        }
    }
    let has_weights = matches!(sched, SchedMode::Baton | SchedMode::HostDeadline);
    if !has_weights && guest.weight != DEFAULT_WEIGHT {
        return fail(format!(
            "guest {name}: --sched {} does not support the weight {}, because it gives each vCPU the \
             same share: leave the weight out, or give --sched baton or --sched host-deadline",
            sched.name(),
            guest.weight
        ));
    }
    if sched.policy().is_none() && guest.may_restart() {
        return fail(format!(
            "guest {name}: --sched {} does not support guests that start again, because they cannot join its \
             threads: leave on_reboot and restart out, or give --sched baton",
            sched.name()
        ));
    }
    if sched != SchedMode::Baton && guest.hints.infers() {
        return fail(format!(
            "guest {name}: --sched {} does not support inferred hints, because only Baton's own scheduler \
             uses hints: leave the hints out, or give --sched baton",
            sched.name()
        ));
    }
    Ok(())
}

/// Why `sched`, which is not Baton's, cannot keep `reservation`; `None` if it can.
fn refusal_of_reservation(reservation: Reservation, sched: SchedMode) -> Option<String> {
    match (sched, reservation.exhaustion()) {
        (SchedMode::HostDeadline, Exhaustion::Hard) => None,
        (SchedMode::HostDeadline, Exhaustion::Soft) => Some(format!(
            "host-deadline cannot keep the soft reservation {reservation}, because SCHED_DEADLINE never \
             gives more than the budget: write hard instead of soft, or give --sched baton"
        )),
        (SchedMode::RoundRobin, _) => Some(format!(
            "round-robin cannot keep the reservation {reservation}, because it only gives equal slices in \
             turn: leave the reservation out, or give --sched baton"
        )),
        (SchedMode::Host | SchedMode::Baton, _) => Some(format!(
            "host cannot keep the reservation {reservation}, because the host's default scheduler has \
             none: leave the reservation out, or give --sched baton or --sched host-deadline"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::guest::HintSource;
    use crate::metrics_target::MetricsTarget;
    use crate::sched::Given;

    const HOSTS: [SchedMode; 2] = [SchedMode::Host, SchedMode::HostDeadline];
    const OTHERS: [SchedMode; 3] = [
        SchedMode::RoundRobin,
        SchedMode::Host,
        SchedMode::HostDeadline,
    ];

    /// Requests an option of a run.
    type Change = fn(&mut RunConfig);

    fn config(sched: SchedMode) -> RunConfig {
        RunConfig {
            guests: vec![GuestConfig::new("db")],
            sched,
            control: Control::Default,
            ..RunConfig::default()
        }
    }

    fn given(proxy: bool, defer: bool, slice: bool) -> Given {
        Given {
            proxy,
            defer,
            slice,
        }
    }

    /// The refusal of a run under `sched` with `change`, which Baton's own scheduler supports.
    fn refusal(sched: SchedMode, change: impl Fn(&mut RunConfig)) -> Option<String> {
        let [mut other, mut own] = [sched, SchedMode::Baton].map(config);
        change(&mut other);
        change(&mut own);
        assert_eq!(own.validate(), Ok(()), "Baton supports it");
        other.validate().err().map(|error| error.to_string())
    }

    #[test]
    fn defaults_are_supported_by_every_scheduler() {
        for sched in OTHERS {
            assert_eq!(refusal(sched, |_| ()), None);
        }
    }

    #[test]
    fn each_option_that_the_hosts_scheduler_cannot_keep_is_refused_by_its_name() {
        let changes: [(&str, Change); 11] = [
            ("--proxy on", |c| c.given = given(true, false, false)),
            ("--defer", |c| c.given = given(false, true, false)),
            ("--slice", |c| c.given = given(false, false, true)),
            ("--vcpu-threads off", |c| {
                c.vcpu_threads = VcpuThreads::Off;
            }),
            ("--executor-priority", |c| {
                c.executor_priority = ExecutorPriority::Fifo(1);
            }),
            ("--isolate", |c| c.isolate = true),
            ("--require-delivery", |c| c.require_delivery = true),
            ("--timeline", |c| c.timeline = Timeline::LongestCarried),
            ("--trace", |c| c.trace = Some("x.perfetto".into())),
            ("--metrics", |c| {
                c.metrics = Some(MetricsTarget::Unix("x.sock".into()));
            }),
            ("--control", |c| c.control = Control::Path("x.sock".into())),
        ];
        for sched in HOSTS {
            for (option, change) in changes {
                let text = refusal(sched, change).unwrap_or_default();
                assert!(
                    text.contains(&format!("does not support {option}:")),
                    "{text}"
                );
                assert!(text.contains("give --sched baton"), "{text}");
            }
        }
    }

    #[test]
    fn round_robin_supports_what_executors_do_and_no_hints() {
        for (option, given) in [
            ("--proxy on", given(true, false, false)),
            ("--defer", given(false, true, false)),
        ] {
            let text = refusal(SchedMode::RoundRobin, |c| c.given = given).unwrap_or_default();
            let expected = format!("--sched round-robin does not support {option}:");
            assert!(text.contains(&expected), "{text}");
        }
        let executors = |config: &mut RunConfig| {
            config.given = given(false, false, true);
            config.vcpu_threads = VcpuThreads::Off;
            config.executor_priority = ExecutorPriority::Fifo(1);
            config.timeline = Timeline::Whole;
            config.trace = Some("x.perfetto".into());
            config.control = Control::Path("x.sock".into());
        };
        assert_eq!(refusal(SchedMode::RoundRobin, executors), None);
    }

    #[test]
    fn an_option_that_is_off_is_supported_by_every_scheduler() {
        let off = |config: &mut RunConfig| {
            config.given = given(true, true, false);
            config.proxy = false;
            config.defer = None;
            config.vcpu_threads = VcpuThreads::On;
            config.control = Control::Off;
            config.duration = Some(Duration::from_secs(1));
        };
        for sched in OTHERS {
            assert_eq!(refusal(sched, off), None);
        }
    }

    #[test]
    fn a_scheduler_without_reservations_refuses_them_and_one_without_soft_ones_refuses_those() {
        for (sched, reservation, words) in [
            (
                SchedMode::Host,
                "1ms/10ms,hard",
                &["leave the reservation out"][..],
            ),
            (
                SchedMode::Host,
                "1ms/10ms,soft",
                &["leave the reservation out"],
            ),
            (
                SchedMode::RoundRobin,
                "1ms/10ms,hard",
                &["leave the reservation out"],
            ),
            (SchedMode::HostDeadline, "1ms/10ms,hard", &[]),
            (
                SchedMode::HostDeadline,
                "1ms/10ms,soft",
                &["write hard instead of soft"],
            ),
        ] {
            let refused = refusal(sched, |config| {
                config.guests[0] = GuestConfig::new("db").with_cpus(2);
                config.guests[0].reservations[1] = reservation.parse().ok();
            });
            assert_eq!(refused.is_some(), !words.is_empty(), "{refused:?}");
            let text = refused.unwrap_or_default();
            for word in words.iter().chain(&["guest db, vCPU 1", reservation]) {
                assert!(words.is_empty() || text.contains(word), "{text}");
            }
        }
    }

    #[test]
    fn inferred_hints_are_refused_where_none_are_used() {
        for sched in OTHERS {
            for hints in [
                HintSource::Auto,
                HintSource::Inferred,
                HintSource::InferredAny,
            ] {
                let text = refusal(sched, |config| config.guests[0].hints = hints);
                assert!(text.is_some_and(|text| text.contains("inferred hints")));
            }
            for hints in [HintSource::Page, HintSource::Off] {
                assert_eq!(
                    refusal(sched, |config| config.guests[0].hints = hints),
                    None
                );
            }
        }
    }

    #[test]
    fn a_weight_is_refused_where_all_have_the_same_share() {
        let heavy = |config: &mut RunConfig| config.guests[0].weight = 500;
        let text = refusal(SchedMode::Host, heavy).expect("refused");
        assert!(text.contains("the weight 500"), "{text}");
        assert!(refusal(SchedMode::RoundRobin, heavy).is_some());
        assert_eq!(refusal(SchedMode::HostDeadline, heavy), None);
    }
}
