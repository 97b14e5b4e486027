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

#[test]
fn linux_with_a_thousand_ticks_a_second_is_not_slowed_down_on_ten_vcpus() {
    // As calibrated: some are a little fast.
    let ticks = [
        1_000, 1_003, 998, 1_050, 1_000, 1_000, 1_000, 1_099, 1_000, 1_000,
    ];
    let rates = TimerRates::new(10, KVM_SHORTEST);
    for (index, wanted) in (0..).zip(ticks) {
        assert_eq!(rates.allow(index, wanted), wanted);
    }
}

#[test]
fn the_timers_of_a_guest_never_have_more_together_than_it_may() {
    for vcpus in [1, 2, 10, 11, 16, 64, 254] {
        let rates = TimerRates::new(vcpus, KVM_SHORTEST);
        let mut has = vec![0; vcpus as usize];
        // A simple generator: which vCPU, and what it wants.
        let mut noise = 1u64;
        for _ in 0..10_000 {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let index = (noise >> 33) as u32 % vcpus;
            let wanted = (noise >> 40) as u32 % 6_000;
            let allowed = rates.allow(index, wanted);
            assert!(allowed >= wanted.min(rates.share), "each has its share");
            assert!(allowed <= wanted);
            has[index as usize] = allowed;
            assert!(has.iter().sum::<u32>() <= most(vcpus));
        }
        let given = rates.given.lock().expect("no panic");
        assert_eq!(given.extras.iter().sum::<u32>(), given.sum);
    }
}

#[test]
fn who_stops_its_timer_leaves_its_part_to_others() {
    let rates = TimerRates::new(20, KVM_SHORTEST);
    let mut full = 0;
    for index in 0..20 {
        full += u32::from(rates.allow(index, 1_000) == 1_000);
    }
    assert!(full < 20);
    assert_eq!(rates.allow(19, 1_000), rates.share);
    assert_eq!(rates.allow(0, 0), 0);
    assert!(rates.allow(19, 1_000) > rates.share);
}

#[test]
fn nothing_is_looked_at_where_kvms_own_limit_is_low_enough() {
    assert!(TimerRates::new(1, KVM_SHORTEST).is_needed());
    let millisecond = Duration::from_millis(1);
    assert!(!TimerRates::new(10, millisecond).is_needed());
    assert!(TimerRates::new(12, millisecond).is_needed());
    assert!(TimerRates::new(1, Duration::ZERO).is_needed());
}

#[test]
fn the_guest_is_told_once() {
    let rates = TimerRates::new(1, KVM_SHORTEST);
    assert!(rates.is_news());
    assert!(!rates.is_news());
}
