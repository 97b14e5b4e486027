//! The built-in guest on real KVM when it behaves as an unmodified kernel does: nothing but its memory, its
//! registers and its halts show what it does.

mod common;

use common::{assert_locks_held, baton, file, number, run_baton, sum, vcpus};

/// A guest of four vCPUs; `words` complete its command line.
fn guest(name: &str, words: &str) -> String {
    format!(
        "[[guest]]\nname = \"{name}\"\ncpus = 4\n\
         cmdline = \"workload=lock hints=stock {words}\"\n"
    )
}

/// Guests with each spinlock. Those whose waiters only spin take the lock rarely, because without hints the host
/// takes the CPU from their holders.
fn spinlocks() -> String {
    ["tas", "ticket", "mcs"]
        .map(|lock| {
            guest(
                &format!("{lock}-spins"),
                &format!("lock={lock} wait=spin acquisitions=50"),
            ) + &guest(
                &format!("{lock}-halts"),
                &format!("lock={lock} wait=halt spin=500 acquisitions=50"),
            )
        })
        .concat()
}

#[test]
fn spinlocks_hold_when_executors_run_vcpus_themselves_or_vcpus_have_threads() {
    for threads in ["off", "on"] {
        let (code, summary) = run_baton(
            &format!("stock-spin-{threads}.toml"),
            &spinlocks(),
            &["--vcpu-threads", threads],
        );
        assert_eq!(code, 0, "{summary}");
        assert_locks_held(&summary, 4 * 50);
    }
}

#[test]
fn mutexes_hold_though_the_tick_preempts_their_owners() {
    let guests = guest("one", "lock=mutex acquisitions=300")
        + &guest("three", "lock=mutex tasks=3 tick=1ms acquisitions=300");
    for threads in ["off", "on"] {
        let (code, summary) = run_baton(
            &format!("stock-mutex-{threads}.toml"),
            &guests,
            &["--vcpu-threads", threads],
        );
        assert_eq!(code, 0, "{summary}");
        assert_locks_held(&summary, 4 * 300);
    }
}

#[test]
fn spinlocks_of_tasks_hold_though_the_tick_preempts_tasks() {
    let guests = ["tas", "ticket", "mcs"]
        .map(|lock| {
            guest(
                lock,
                &format!("lock={lock} tasks=3 tick=1ms wait=halt acquisitions=60"),
            )
        })
        .concat();
    let (code, summary) = run_baton("stock-tasks.toml", &guests, &[]);
    assert_eq!(code, 0, "{summary}");
    assert_locks_held(&summary, 4 * 60);
}

#[test]
fn locks_hold_under_the_scheduler_of_the_host() {
    let guests = spinlocks() + &guest("mutex", "lock=mutex tasks=2 tick=1ms acquisitions=50");
    let config = file("stock-host.toml", guests.as_bytes());
    let path = config.to_string_lossy();
    let ran = baton(&["run", &path, "--sched", "host", "--summary", "json"]);
    let summary = ran.summary();
    assert_eq!(ran.code, 0, "{summary}");
    for guest in summary["guests"].as_array().expect("guests") {
        assert_eq!(guest["workload"]["counter_ok"], true, "{guest}");
        assert_eq!(guest["workload"]["acquisitions"], 4 * 50, "{guest}");
    }
}

#[test]
fn guest_publishes_nothing_and_no_vcpu_rings() {
    let (code, summary) = run_baton(
        "stock-silent.toml",
        &guest("silent", "lock=mutex tasks=2 acquisitions=300"),
        &["--proxy", "on"],
    );
    assert_eq!(code, 0, "{summary}");
    let guest = &summary["guests"][0];
    assert_eq!((sum(guest, "proxied"), sum(guest, "donated_ns")), (0, 0));
    for vcpu in vcpus(guest) {
        for rings in ["doorbells", "nonsense"] {
            assert_eq!(number(&vcpu["exits"], rings), 0, "{vcpu}");
        }
    }
}
