use super::*;

const KVM_SHORTEST: Duration = Duration::from_micros(200);

fn state(lvt: u32, count: u32, divide: u32) -> kvm_lapic_state {
    let mut state = kvm_lapic_state::default();
    for (at, value) in [(LVT_TIMER, lvt), (INITIAL_COUNT, count), (DIVIDE, divide)] {
        for (to, byte) in state.regs[at..].iter_mut().zip(value.to_le_bytes()) {
            *to = byte as libc::c_char;
        }
    }
    state
}

fn rate(count: u32, divide: u32) -> u32 {
    PeriodicTimer::of(&state(MODE_PERIODIC, count, divide))
        .map_or(0, |timer| timer.rate(KVM_SHORTEST))
}

#[test]
fn only_a_periodic_timer_that_runs_counts_masked_or_not() {
    let masked = 1 << 16;
    for (lvt, count, runs) in [
        (MODE_PERIODIC | 0x40, 1_000_000, true),
        (MODE_PERIODIC | masked | 0x40, 1_000_000, true),
        (MODE_PERIODIC, 0, false),
        (0x40, 1_000_000, false),
        (2 << 17, 1_000_000, false),
    ] {
        assert_eq!(PeriodicTimer::of(&state(lvt, count, 0xb)).is_some(), runs);
    }
}

#[test]
fn the_period_is_the_count_times_the_divisor_in_nanoseconds() {
    assert_eq!(rate(1_000_000, 0b1011), 1_000);
    for (divide, divisor) in [
        (0b0000, 2),
        (0b0001, 4),
        (0b0010, 8),
        (0b0011, 16),
        (0b1000, 32),
        (0b1001, 64),
        (0b1010, 128),
    ] {
        assert_eq!(rate(4_000_000 / divisor, divide), 250, "{divide:#b}");
    }
}

#[test]
fn no_rate_is_above_what_kvm_lets_it_be() {
    assert_eq!(rate(1, 0b1011), 5_000);
    assert_eq!(rate(u32::MAX, 0b1010), 0);
}

#[test]
fn a_timer_that_is_slowed_down_expires_no_more_often_than_it_may() {
    for divide in [0b1011, 0b0011, 0b1010] {
        for allowed in [1, 21, 156, 999, 1_100] {
            let timer = PeriodicTimer::of(&state(MODE_PERIODIC, 1, divide)).expect("a timer");
            let slowed = PeriodicTimer {
                count: timer.count_for(allowed),
                ..timer
            };
            let rate = slowed.rate(KVM_SHORTEST);
            assert!(
                rate <= allowed && rate + rate / 100 + 1 >= allowed,
                "{rate} {allowed}"
            );
        }
    }
}
