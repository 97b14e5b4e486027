//! Many guests.

use std::thread;
use std::time::Instant;

use super::pool::{EVERY, GuestProcess, ServicePool, number_of};

/// How many guests start at once. A user may have so many that have not joined, and one to spare.
const AT_ONCE: usize = 7;

#[test]
fn many_guests_start_run_and_stop() {
    let count = number_of("BATON_GUESTS", 20) as usize;
    let pool = ServicePool::start("many");
    let mut guests: Vec<GuestProcess> = Vec::new();
    let start = Instant::now();
    while guests.len() < count {
        let joined = pool.names().len();
        for _ in guests.len()..count.min(joined + AT_ONCE) {
            let name = format!("guest-{:03}", guests.len());
            guests.push(pool.vm(&name, &["--cmdline", "workload=hog seconds=0"]));
        }
        for guest in &mut guests {
            guest.process.assert_alive("all guests have joined");
        }
        thread::sleep(EVERY);
    }
    let all = |pool: &ServicePool| (pool.names().len() == count).then_some(());
    pool.until("all guests have joined", all);
    let started = start.elapsed();
    pool.until("each has had CPU time", |pool| {
        let guests = pool.guests();
        let ran = |guest: &baton_api::Guest| guest.vcpus.iter().all(|vcpu| vcpu.ran_ns > 0);
        guests.iter().all(ran).then_some(())
    });
    let ran = start.elapsed();
    let stop = Instant::now();
    let client = pool.client();
    for guest in &guests {
        let order = client.order(&guest.name, "power-off");
        order.expect("the order is given");
    }
    pool.until_listed(&[]);
    for guest in guests {
        guest.finish_well();
    }
    let stopped = stop.elapsed();
    println!(
        "{count} guests: joined after {started:?}, all have run after {ran:?}; stopped in {stopped:?}"
    );
}
