//! Guests' processes that join and are killed at any moment leave nothing behind. Nothing else runs in this process,
//! so that its threads and files can be counted.

mod processes;

use std::fs;

use processes::guest::{self, Behaviour};
use processes::pool::ServicePool;
use processes::until;

/// How many guests come and go.
const VISITS: u32 = 300;
/// Those that do as they are told.
const HONEST: [Behaviour; 4] = [
    Behaviour::Busy,
    Behaviour::Halts,
    Behaviour::Waits,
    Behaviour::Holds,
];

/// Not a test of its own: a guest's process.
#[test]
fn guest_process() {
    guest::become_guest();
}

fn entries(directory: &str) -> usize {
    fs::read_dir(directory).expect("of this process").count()
}

#[test]
fn processes_that_join_and_are_killed_at_random_leave_nothing_behind() {
    // Xorshift; the kernel's scheduling makes the moments random in any case.
    let mut random = 0x2545_f491_u32;
    let pool = ServicePool::start(2);
    let mut resident = pool.guest("resident", Behaviour::Halts, 1, Some("1ms/100ms"));
    resident.progress(8);
    let counted = || (entries("/proc/self/task"), entries("/proc/self/fd"));
    let (before, mut present) = (counted(), Vec::new());
    for visit in 0..VISITS {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let behaviour = HONEST[random as usize % HONEST.len()];
        let name = format!("visitor-{visit}");
        let mut visitor = pool.guest(&name, behaviour, 1 + random / 8 % 3, None);
        // A vCPU that computes alone gives no answers.
        let answers = matches!(behaviour, Behaviour::Halts | Behaviour::Waits);
        if answers && random % 64 < 32 {
            visitor.progress(u64::from(random / 64 % 3));
        }
        present.push(visitor);
        while present.len() > random as usize / 512 % 4 {
            let (_, gone) = present.remove(0).kill();
            assert!(gone.is_ok(), "{gone:?}");
        }
        if present.is_empty() {
            // An executor drops what it had of a guest a moment after the guest has left.
            until("threads and files are as before", || counted() == before);
        }
    }
    for visitor in present {
        visitor.kill().1.expect("it was there");
    }
    assert_eq!(pool.names(), ["resident"]);
    until("threads and files are as before", || counted() == before);
    resident.progress(8);
    let account = pool.handle.leave("resident").expect("it is there");
    assert_eq!(account.vcpus.len(), 1);
    assert!(resident.wait().0.success());
    assert!(pool.runner.stop().vcpus.is_empty());
}
