use super::*;
use crate::Reservation;
use crate::reservation::parse_reservation;

#[test]
fn durations_are_whole_numbers_with_a_unit() {
    assert_eq!(parse_duration("50us"), Ok(Duration::from_micros(50)));
    assert_eq!(parse_duration(" 4ms "), Ok(Duration::from_millis(4)));
    assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
    assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
    assert_eq!(parse_duration("7ns"), Ok(Duration::from_nanos(7)));
}

#[test]
fn bad_durations_say_what_a_good_one_looks_like() {
    for text in [
        "",
        "5",
        "ms",
        "1.5ms",
        "-1ms",
        "5 ms",
        "5h",
        "99999999999999999s",
        "٣ms",
    ] {
        let error = parse_duration(text).expect_err(text);
        assert!(error.to_string().contains("as in 50us"), "{error}");
    }
}

#[test]
fn sizes_are_powers_of_1024() {
    assert_eq!(parse_bytes("512M"), Ok(512 << 20));
    assert_eq!(parse_bytes("1G"), Ok(1 << 30));
    assert_eq!(parse_bytes("1gib"), Ok(1 << 30));
    assert_eq!(parse_bytes("4096"), Ok(4096));
    for text in ["", "M", "1.5G", "-1M", "1X", "99999999T"] {
        let error = parse_bytes(text).expect_err(text);
        assert!(error.to_string().contains("as in 512M"), "{error}");
    }
}

#[test]
fn cpu_lists_are_sorted_and_without_repeats() {
    assert_eq!(parse_cpus("0-3"), Ok(vec![0, 1, 2, 3]));
    assert_eq!(parse_cpus("4,0-1,1"), Ok(vec![0, 1, 4]));
    assert_eq!(parse_cpus("0,2"), Ok(vec![0, 2]));
    for text in ["", "a", "3-1", "0-", "-1", "0,,1", "+1", "0-4294967295"] {
        let error = parse_cpus(text).expect_err(text);
        assert!(error.to_string().contains("as in 0-3"), "{error}");
    }
}

#[test]
fn what_is_written_reads_back_the_same() {
    for text in [
        "1ms/100ms,hard",
        "5ms/10ms/8ms,soft",
        "1500us/1s,hard",
        "70us/2m,soft",
    ] {
        let reservation = parse_reservation(text).expect(text);
        assert_eq!(reservation.to_string(), text);
    }
    for text in ["0", "0-3", "0,2", "0-1,4,6-7"] {
        assert_eq!(format_cpus(&parse_cpus(text).expect(text)), text);
    }
    for text in ["512M", "1G", "3K", "5", "0"] {
        assert_eq!(format_bytes(parse_bytes(text).expect(text)), text);
    }
    for text in ["50us", "4ms", "0ns", "61s", "1m", "1001ns"] {
        let ns = parse_duration(text).expect(text).as_nanos() as u64;
        assert_eq!(format_ns(ns), text);
    }
}

#[test]
fn reservations_default_to_hard_and_to_a_deadline_of_one_period() {
    let expected = Reservation {
        budget_ns: 5_000_000,
        period_ns: 10_000_000,
        deadline_ns: 10_000_000,
        hard: true,
    };
    assert_eq!(parse_reservation("5ms/10ms"), Ok(expected));
    assert_eq!(
        parse_reservation("5ms/10ms/8ms,soft"),
        Ok(Reservation {
            deadline_ns: 8_000_000,
            hard: false,
            ..expected
        })
    );
}

#[test]
fn reservations_that_cannot_be_kept_say_which_bound_of_the_policy_they_break() {
    for (text, part) in [
        ("0ms/10ms", "give at least 10us"),
        ("9us/10ms", "give at least 10us"),
        ("11ms/10ms", "make the budget shorter"),
        ("5ms/10ms/4ms", "make the budget shorter"),
        ("5ms/10ms/11ms", "no later than the period"),
        ("1ms/61m", "at most one hour"),
    ] {
        let error = parse_reservation(text).expect_err(text).to_string();
        assert!(error.contains(text) && error.contains(part), "{error}");
    }
    for text in ["10us/10ms", "1ms/60m"] {
        parse_reservation(text).expect(text);
    }
    for text in [
        "5ms",
        "",
        "1ms/2ms/3ms/4ms",
        "5ms/10ms,firm",
        "5ms/10ms,",
        "5/10",
    ] {
        parse_reservation(text).expect_err(text);
    }
}

#[test]
fn times_have_three_digits() {
    for (ns, text) in [
        (0, "0ns"),
        (999, "999ns"),
        (1_000, "1.00us"),
        (12_345, "12.3us"),
        (123_456_789, "123ms"),
        (1_234_567_890, "1.23s"),
        (100_000_000_000, "100s"),
    ] {
        assert_eq!(readable_ns(ns), text);
    }
}
