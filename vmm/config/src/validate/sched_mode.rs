//! What each scheduler of `--sched` supports. An option that a scheduler does not support is refused, so
//! that no user measures or relies on something that was never in force.

use vcpu_sched::{Exhaustion, Reservation};

use crate::control::Control;
use crate::error::{ConfigError, fail};
use crate::guest::{DEFAULT_WEIGHT, GuestConfig};
use crate::output::Timeline;
use crate::run::RunConfig;
use crate::sched::{SchedMode, VcpuThreads};

/// Refuses what the scheduler of `config` does not support.
///
/// # Errors
/// The first option that is not supported, and what to do.
pub(super) fn check(config: &RunConfig) -> Result<(), ConfigError> {
    let name = match config.sched {
        SchedMode::Baton => return Ok(()),
        SchedMode::Host => "host",
        SchedMode::HostDeadline => "host-deadline",
    };
    for BatonOnly {
        is_requested,
        option,
        reason,
    } in baton_only_options(config)
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

/// An option that only Baton's own scheduler supports.
struct BatonOnly {
    is_requested: bool,
    option: &'static str,
    /// Why no other scheduler supports it.
    reason: &'static str,
}

fn baton_only_options(config: &RunConfig) -> [BatonOnly; 8] {
    const HOLDERS: &str = "only Baton's own scheduler knows which vCPU holds a lock";
    const SHOWN: &str = "it shows what Baton's own scheduler decides";
    let given = config.given;
    [
        (given.proxy && config.proxy, "--proxy on", HOLDERS),
        (given.defer && config.defer.is_some(), "--defer", HOLDERS),
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
        (config.timeline != Timeline::Off, "--timeline", SHOWN),
        (config.trace.is_some(), "--trace", SHOWN),
        (config.metrics.is_some(), "--metrics", SHOWN),
        (
            matches!(config.control, Control::Path(_)),
            "--control",
            SHOWN,
        ),
    ]
    .map(|(is_requested, option, reason)| BatonOnly {
        is_requested,
        option,
        reason,
    })
}

fn check_guest(guest: &GuestConfig, sched: SchedMode) -> Result<(), ConfigError> {
    let name = &guest.name;
    for (vcpu, reservation) in guest.reservations.iter().enumerate() {
        if let Some(refusal) = reservation.and_then(|own| refusal_of_reservation(own, sched)) {
            return fail(format!("guest {name}, vCPU {vcpu}: --sched {refusal}"));
        }
    }
    if sched == SchedMode::Host && guest.weight != DEFAULT_WEIGHT {
        return fail(format!(
            "guest {name}: --sched host does not support the weight {}, because it gives each vCPU the \
             same share: leave the weight out, or give --sched baton or --sched host-deadline",
            guest.weight
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
    use crate::metrics_target::MetricsTarget;
    use crate::sched::Given;

    const OTHERS: [SchedMode; 2] = [SchedMode::Host, SchedMode::HostDeadline];

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
        let changes: [(&str, Change); 8] = [
            ("--proxy on", |c| c.given = given(true, false, false)),
            ("--defer", |c| c.given = given(false, true, false)),
            ("--slice", |c| c.given = given(false, false, true)),
            ("--vcpu-threads off", |c| {
                c.vcpu_threads = VcpuThreads::Off;
            }),
            ("--timeline", |c| c.timeline = Timeline::LongestCarried),
            ("--trace", |c| c.trace = Some("x.perfetto".into())),
            ("--metrics", |c| {
                c.metrics = Some(MetricsTarget::Unix("x.sock".into()));
            }),
            ("--control", |c| c.control = Control::Path("x.sock".into())),
        ];
        for sched in OTHERS {
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
    fn a_weight_is_refused_where_all_have_the_same_share() {
        let heavy = |config: &mut RunConfig| config.guests[0].weight = 500;
        let text = refusal(SchedMode::Host, heavy).expect("refused");
        assert!(text.contains("the weight 500"), "{text}");
        assert_eq!(refusal(SchedMode::HostDeadline, heavy), None);
    }
}
