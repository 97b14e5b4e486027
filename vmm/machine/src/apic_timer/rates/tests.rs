use super::*;

const KVM_SHORTEST: Duration = Duration::from_micros(200);

#[test]
fn linux_with_a_thousand_ticks_a_second_is_not_slowed_down_on_ten_vcpus() {
    // As calibrated: some are a little fast.
    let ticks = [
        1_000, 1_003, 998, 1_050, 1_000, 1_000, 1_000, 1_099, 1_000, 1_000,
    ];
    let rates = TimerRates::new(10, KVM_SHORTEST);
    for (index, rate) in (0..).zip(ticks) {
        assert_eq!(rates.allow(index, rate), rate);
    }
}

#[test]
fn the_timers_of_a_guest_never_have_more_together_than_it_may() {
    for vcpus in [1, 2, 10, 11, 16, 64, 254] {
        let rates = TimerRates::new(vcpus, KVM_SHORTEST);
        let mut has = vec![0; vcpus as usize];
        // A simple generator: which vCPU, and which rate.
        let mut noise = 1u64;
        for _ in 0..10_000 {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let index = (noise >> 33) as u32 % vcpus;
            let rate = (noise >> 40) as u32 % 6_000;
            let allowed = rates.allow(index, rate);
            assert!(allowed >= rate.min(rates.share), "each has its share");
            assert!(allowed <= rate);
            has[index as usize] = allowed;
            assert!(has.iter().sum::<u32>() <= most(vcpus));
        }
        let common_use = rates.lock();
        assert_eq!(common_use.extras.iter().sum::<u32>(), common_use.sum);
    }
}

#[test]
fn a_vcpu_that_stops_its_timer_leaves_its_part_to_others() {
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
fn no_timer_is_checked_where_kvms_own_limit_is_low_enough() {
    assert!(TimerRates::new(1, KVM_SHORTEST).is_needed());
    let millisecond = Duration::from_millis(1);
    assert!(!TimerRates::new(10, millisecond).is_needed());
    assert!(TimerRates::new(12, millisecond).is_needed());
    assert!(TimerRates::new(1, Duration::ZERO).is_needed());
}

#[test]
fn the_guest_gets_one_report() {
    let rates = TimerRates::new(1, KVM_SHORTEST);
    assert!(rates.is_first_report());
    assert!(!rates.is_first_report());
}
