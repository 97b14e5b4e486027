//! What each scheduler of `--sched` keeps of what the user asks for. What cannot be kept is refused with a
//! sentence: nobody is to measure, or to rely on, what was never there.

use super::{ConfigError, DEFAULT_WEIGHT, GuestConfig, RunConfig, SchedMode, VcpuThreads, fail};
use crate::Control;
use crate::{Reservation, Timeline};
use vcpu_sched::Exhaustion;

/// Which of the options that have a default the user has given a value. A default asks for nothing, so
/// that `baton run --sched host` needs no `--proxy off`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// [`RunConfig::proxy`].
    pub proxy: bool,
    /// [`RunConfig::defer`].
    pub defer: bool,
    /// [`RunConfig::slice`].
    pub slice: bool,
}

/// Holds `config` against what its scheduler keeps.
///
/// # Errors
/// The first thing that it does not keep, and what to do.
pub(super) fn check(config: &RunConfig) -> Result<(), ConfigError> {
    let name = match config.sched {
        SchedMode::Baton => return Ok(()),
        SchedMode::Host => "host",
        SchedMode::HostDeadline => "host-deadline",
    };
    for (asked, option, what) in options(config) {
        if asked {
            return fail(format!(
                "--sched {name} cannot keep {option}: {what}; give --sched baton, or leave {option} out"
            ));
        }
    }
    config
        .guests
        .iter()
        .try_for_each(|guest| check_guest(guest, config.sched))
}

/// What only Baton's own scheduler has: whether it is asked for, the option, and what it is.
fn options(config: &RunConfig) -> [(bool, &'static str, &'static str); 8] {
    const HOLDERS: &str = "only Baton's own scheduler knows who holds a lock";
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
}

fn check_guest(guest: &GuestConfig, sched: SchedMode) -> Result<(), ConfigError> {
    let name = &guest.name;
    let reserved = |vcpu: usize, reservation: &Reservation| {
        format!("guest {name}, vCPU {vcpu}: --sched ")
            + &match sched {
                SchedMode::HostDeadline => format!(
                    "host-deadline cannot keep the soft reservation {reservation}, for SCHED_DEADLINE \
                 never gives more than the budget: write hard instead of soft, or give --sched baton"
                ),
                SchedMode::Host | SchedMode::Baton => format!(
                    "host cannot keep the reservation {reservation}, for the host's default scheduler has \
                 none: leave the reservation out, or give --sched baton or --sched host-deadline"
                ),
            }
    };
    let kept = |reservation: &Reservation| {
        sched == SchedMode::HostDeadline && reservation.exhaustion() == Exhaustion::Hard
    };
    for (vcpu, reservation) in guest.reservations.iter().enumerate() {
        if let Some(reservation) = reservation
            && !kept(reservation)
        {
            return fail(reserved(vcpu, reservation));
        }
    }
    if sched == SchedMode::Host && guest.weight != DEFAULT_WEIGHT {
        return fail(format!(
            "guest {name}: --sched host cannot keep the weight {}, for it gives each vCPU the same \
             share: leave the weight out, or give --sched baton or --sched host-deadline",
            guest.weight
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::MetricsTarget;

    const OTHERS: [SchedMode; 2] = [SchedMode::Host, SchedMode::HostDeadline];

    /// Makes a run ask for more.
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

    /// The refusal of a run under `sched` that `change` makes ask for more; none for Baton's own.
    fn refusal(sched: SchedMode, change: impl Fn(&mut RunConfig)) -> Option<String> {
        let [mut asks, mut own] = [sched, SchedMode::Baton].map(config);
        change(&mut asks);
        change(&mut own);
        assert_eq!(own.validate(), Ok(()), "Baton keeps it");
        asks.validate().err().map(|error| error.to_string())
    }

    #[test]
    fn defaults_ask_for_nothing() {
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
                assert!(text.contains(&format!("cannot keep {option}:")), "{text}");
                assert!(text.contains("give --sched baton"), "{text}");
            }
        }
    }

    #[test]
    fn what_is_off_is_kept_by_everybody() {
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
    fn a_reservation_is_refused_by_who_has_none_and_a_soft_one_by_who_would_make_it_hard() {
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
