//! Hints that the host infers of a guest that publishes none, on real KVM.

mod common;

use common::{assert_locks_held, number, run_baton, sum, vcpus};

/// A guest of four vCPUs with hints from `source`; `words` complete its command line.
fn guest(name: &str, source: &str, words: &str) -> String {
    format!(
        "[[guest]]\nname = \"{name}\"\ncpus = 4\nhints = \"{source}\"\n\
         cmdline = \"workload=lock {words}\"\n"
    )
}

/// Without hints, waiters of a queue lock burn slice after slice.
#[test]
fn waiters_of_an_unmodified_guest_carry_suspects_and_no_vcpu_rings() {
    for threads in ["off", "on"] {
        let guests = ["ticket", "mcs"]
            .map(|lock| {
                let words = format!("hints=stock wait=spin lock={lock} seconds=1");
                guest(lock, "inferred", &words)
            })
            .concat();
        let (code, summary) = run_baton(
            &format!("inferred-{threads}.toml"),
            &guests,
            &[
                "--vcpu-threads",
                threads,
                "--host-cpus",
                &common::first_cpu(),
            ],
        );
        assert_eq!(code, 0, "{summary}");
        for guest in summary["guests"].as_array().expect("guests") {
            assert_eq!(guest["workload"]["counter_ok"], true, "{guest}");
            assert_eq!(guest["hints"], "inferred (preempt count)", "{guest}");
            assert!(sum(guest, "proxied") > 0, "{guest}");
            for vcpu in vcpus(guest) {
                assert_eq!(number(&vcpu["exits"], "doorbells"), 0, "{vcpu}");
            }
        }
    }
}

#[test]
fn locks_hold_whatever_the_source_of_hints_is() {
    let mut guests = String::new();
    for source in ["auto", "page", "inferred", "inferred:any", "off"] {
        for words in [
            "hints=on lock=mutex tasks=3 tick=1ms",
            "hints=stock lock=mutex tasks=3 tick=1ms",
            "hints=stock lock=tas wait=halt spin=500",
        ] {
            let name = format!("{source}-{}", words.replace(['=', ' '], "-"));
            guests += &guest(&name, source, &format!("{words} acquisitions=50"));
        }
    }
    let (code, summary) = run_baton("inferred-sources.toml", &guests, &[]);
    assert_eq!(code, 0, "{summary}");
    assert_locks_held(&summary, 4 * 50);
    for guest in summary["guests"].as_array().expect("guests") {
        let name = guest["name"].as_str().expect("a name");
        let hints = guest["hints"].as_str().expect("a source");
        let (source, publishes) = (name.split('-').next(), name.contains("hints-on"));
        let expected: &[&str] = match (source, publishes) {
            (Some("off"), _) => &["off"],
            (Some("auto" | "page"), true) => &["page"],
            (Some("inferred:any"), _) => &["inferred (any guest)"],
            (Some("page"), false) => &["page (none registered)"],
            // A short run may end before the count is found.
            _ => &[
                "inferred (preempt count)",
                "inferred (looking for the count)",
            ],
        };
        assert!(expected.contains(&hints), "{name}: {hints}");
    }
}
