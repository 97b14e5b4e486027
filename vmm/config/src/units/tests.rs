use super::*;

#[test]
fn a_duration_is_a_whole_number_with_a_unit() {
    assert_eq!(parse_duration("50us"), Ok(Duration::from_micros(50)));
    let error = parse_duration("5").expect_err("no unit");
    assert!(error.to_string().contains("as in 50us"), "{error}");
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
fn a_written_quantity_reads_back_the_same() {
    for text in ["0", "0-3", "0,2", "0-1,4,6-7"] {
        assert_eq!(format_cpus(&parse_cpus(text).expect(text)), text);
    }
    for text in ["512M", "1G", "3K", "5", "0"] {
        assert_eq!(format_bytes(parse_bytes(text).expect(text)), text);
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
