//! Whether a guest that has ended starts again.

use baton_config::{GuestConfig, OnReboot, RestartPolicy};
use baton_machine::GuestEnd;

/// Whether a guest of `config` that ended as `end` starts again. Who resets a guest from outside wants that, whatever
/// follows when the guest resets itself.
pub(crate) fn starts_again(config: &GuestConfig, end: &GuestEnd) -> bool {
    if *end == GuestEnd::ResetByRequest {
        return true;
    }
    if end.is_reset() && config.on_reboot == Some(OnReboot::Restart) {
        return true;
    }
    match config.restart {
        RestartPolicy::Never => false,
        RestartPolicy::OnFailure => !end.is_success(),
        RestartPolicy::Always => !end.is_by_request(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(on_reboot: Option<OnReboot>, restart: RestartPolicy) -> [bool; 6] {
        let config = GuestConfig {
            on_reboot,
            restart,
            ..GuestConfig::new("guest")
        };
        [
            GuestEnd::ResetByRequest,
            GuestEnd::Reset,
            GuestEnd::TripleFault { vcpu: 0 },
            GuestEnd::Exited(1),
            GuestEnd::Exited(0),
            GuestEnd::PoweredOff,
        ]
        .map(|end| starts_again(&config, &end))
    }

    #[test]
    fn the_way_in_which_a_guest_ended_decides_whether_it_starts_again() {
        use OnReboot::{End, Restart};
        use RestartPolicy::{Always, Never, OnFailure};
        for end in [None, Some(End)] {
            assert_eq!(after(end, Never), [true, false, false, false, false, false]);
            assert_eq!(
                after(end, OnFailure),
                [true, false, true, true, false, false]
            );
            assert_eq!(after(end, Always), [true, true, true, true, true, false]);
        }
        let restart = Some(Restart);
        assert_eq!(
            after(restart, Never),
            [true, true, true, false, false, false]
        );
        assert_eq!(
            after(restart, OnFailure),
            [true, true, true, true, false, false]
        );
    }
}
