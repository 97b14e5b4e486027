//! What a pool's handle does to guests that run.

mod common;

use baton_config::{DiskConfig, RunConfig, SchedMode, VcpuThreads};
use baton_host::executor::{GuestCallError, GuestState, JoinErrorKind, VcpuChange};
use baton_host::host_sched;
use baton_host::runner::NoPool;
use baton_machine::Guest;
use common::{TestPool, config, reserved, until};
use vcpu_sched::AdmissionError;

/// Both ways of running vCPUs.
const BOTH: [VcpuThreads; 2] = [VcpuThreads::Off, VcpuThreads::On];
const LOCKS: &str = "hints=on seconds=0";
/// Waiters sleep, so that vCPUs halt and wake all the time.
const MUTEX: &str = "lock=mutex hints=on seconds=0";

/// How often the vCPUs of `guest` have released a lock, modulo some power of two.
fn releases(guest: &Guest) -> u32 {
    let vcpus = 0..guest.vcpus();
    let releases = vcpus.map(|index| guest.hints.snapshot(index).releases);
    releases.fold(0, u32::wrapping_add)
}

/// Waits until `guest` has released locks `times` more.
fn until_progress(guest: &Guest, times: u32) {
    let before = releases(guest);
    until("the guest makes progress", || {
        releases(guest).wrapping_sub(before) >= times
    });
}

#[test]
fn a_paused_guest_makes_no_progress_until_it_is_resumed_and_others_go_on() {
    for (threads, cmdline) in BOTH.into_iter().flat_map(|on| [(on, LOCKS), (on, MUTEX)]) {
        let pool = TestPool::start(1, Vec::new(), threads);
        let paused = pool.join(config("paused", 2, cmdline));
        let other = pool.join(config("other", 2, cmdline));
        for _ in 0..20 {
            until_progress(&paused, 5);
            pool.handle.pause("paused").expect("it runs");
            let before = releases(&paused);
            until_progress(&other, 50);
            assert_eq!(releases(&paused), before, "{cmdline} {threads:?}");
            pool.handle.resume("paused").expect("it is paused");
        }
        until_progress(&paused, 5);
        pool.handle.pause("paused").expect("it runs");
        assert_eq!(pool.state("paused"), Some(GuestState::Paused));
        assert_eq!(
            pool.handle.pause("paused"),
            Err(GuestCallError::Paused("paused".to_owned()))
        );
        assert_eq!(
            pool.handle.resume("other"),
            Err(GuestCallError::NotPaused("other".to_owned()))
        );
        let account = pool
            .handle
            .leave("paused")
            .expect("paused guests can leave");
        assert!(
            account
                .vcpus
                .iter()
                .all(|vcpu| vcpu.counters.runtime_ns > 0)
        );
        pool.runner.stop();
    }
}

#[test]
fn a_guest_leaves_while_its_vcpus_wait_to_be_started_halt_or_run_on_the_budget_of_others() {
    for threads in BOTH {
        let pool = TestPool::start(1, Vec::new(), threads);
        let mut proxied = 0;
        for visit in 0..30 {
            // vCPU 1 is more urgent, and waits for a lock that vCPU 0 holds.
            let mut carried = config("carried", 2, "workload=carry hints=on seconds=0");
            carried.reservations[1] = Some("4ms/10ms".parse().expect("a reservation"));
            let guest = pool.join(carried);
            pool.join(config("unstarted", 4, "hints=on seconds=0"));
            pool.join(config("halted", 2, "workload=idle seconds=0"));
            until_progress(&guest, 1 + visit % 7);
            drop(guest);
            let account = pool.handle.leave("carried").expect("it is there");
            let vcpus = account.vcpus.iter();
            proxied += vcpus.map(|vcpu| vcpu.counters.proxied).sum::<u64>();
            for name in ["unstarted", "halted"] {
                let account = pool.handle.leave(name).expect("it is there");
                assert!(account.record.has_ended());
            }
            assert!(pool.handle.list().is_empty());
        }
        assert!(proxied > 0, "no vCPU ran on the budget of another");
        assert!(pool.runner.stop().vcpus.is_empty());
    }
}

#[test]
fn a_guest_that_is_refused_leaves_all_as_before_and_joins_once_there_is_room() {
    let first = reserved("first", 1, LOCKS, "6ms/10ms");
    let pool = TestPool::start(1, vec![first], VcpuThreads::Auto);
    let refused = pool.guest(reserved("second", 2, LOCKS, "2ms/10ms"));
    let refused = pool.handle.join(refused).expect_err("too much");
    let JoinErrorKind::Admission { vcpu, source, .. } = &refused.error.kind else {
        panic!("{}", refused.error);
    };
    assert_eq!(*vcpu, 1, "there is room for vCPU 0");
    assert!(matches!(source, AdmissionError::NoBandwidth { .. }));
    assert!(
        refused
            .error
            .to_string()
            .starts_with("guest second, vCPU 1: ")
    );
    assert_eq!(pool.handle.list().len(), 1);

    let same_name = pool.guest(config("first", 1, LOCKS));
    let same_name = pool.handle.join(same_name).expect_err("taken");
    assert!(matches!(same_name.error.kind, JoinErrorKind::NameTaken));

    let less = VcpuChange::Reservation("1ms/10ms".parse().expect("a reservation"));
    pool.handle.set("first", None, &less).expect("it is less");
    // Until the old reservation is no longer in use the guest is refused, with the time of that.
    let mut again = Some(refused.guest);
    until("there is room", || {
        match pool.handle.join(again.take().expect("refused")) {
            Ok(()) => true,
            Err(refused) => {
                assert!(matches!(
                    refused.error.kind,
                    JoinErrorKind::Admission {
                        retry_at: Some(_),
                        ..
                    }
                ));
                again = Some(refused.guest);
                false
            }
        }
    });
    let report = pool.runner.stop();
    let vcpus: Vec<usize> = report.vcpus.iter().map(Vec::len).collect();
    assert_eq!(vcpus, [1, 2], "in the order in which they joined");
}

#[test]
fn a_guest_goes_on_with_another_reservation_weight_or_host_cpu_and_a_refused_change_changes_nothing()
 {
    let pool = TestPool::start(2, Vec::new(), VcpuThreads::Auto);
    let guest = pool.join(reserved("guest", 2, LOCKS, "2ms/10ms"));
    let of_vcpu = |vcpu, change: &VcpuChange| {
        let result = pool.handle.set("guest", vcpu, change);
        until_progress(&guest, 5);
        result
    };
    let reservation = |text: &str| VcpuChange::Reservation(text.parse().expect("valid"));
    of_vcpu(Some(1), &reservation("4ms/10ms")).expect("there is room");
    let last = common::host_cpus(2).pop();
    let on_last = VcpuChange::HostCpus(Some(last.into_iter().collect()));
    of_vcpu(None, &on_last).expect("there is room on one of them");
    let refused = of_vcpu(None, &reservation("5ms/10ms"));
    assert!(
        matches!(refused, Err(GuestCallError::Admission { vcpu: 1, .. })),
        "{refused:?}"
    );
    assert!(matches!(
        of_vcpu(Some(0), &VcpuChange::HostCpus(Some(Vec::new()))),
        Err(GuestCallError::Admission {
            source: AdmissionError::NoCpu,
            ..
        })
    ));
    let beyond = of_vcpu(Some(2), &VcpuChange::Weight(7));
    assert!(matches!(
        beyond,
        Err(GuestCallError::NoVcpu { last: 1, .. })
    ));
    of_vcpu(None, &VcpuChange::HostCpus(None)).expect("all of them");
    of_vcpu(None, &VcpuChange::Weight(7)).expect("weights always fit");
    of_vcpu(None, &reservation("9ms/10ms")).expect("nothing else is reserved");
    pool.runner.stop();
}

#[test]
fn a_guest_that_has_ended_by_itself_can_only_leave_and_then_its_name_is_free() {
    let pool = TestPool::start(1, Vec::new(), VcpuThreads::Auto);
    for _ in 0..3 {
        pool.join(config("guest", 2, "acquisitions=1"));
        pool.until_ended("guest");
        let ended = Err(GuestCallError::Ended("guest".to_owned()));
        assert_eq!(pool.handle.pause("guest"), ended);
        assert_eq!(
            pool.handle.set("guest", None, &VcpuChange::Weight(1)),
            ended
        );
        let account = pool.handle.leave("guest").expect("it is there");
        assert!(account.vcpus[0].counters.runtime_ns > 0);
        let gone = pool.handle.leave("guest").expect_err("it has left");
        assert_eq!(gone, GuestCallError::NoGuest("guest".to_owned()));
    }
    pool.runner.stop();
}

#[test]
fn a_pool_that_has_stopped_takes_no_guest_and_a_run_under_the_hosts_scheduler_has_none() {
    let pool = TestPool::start(1, vec![config("guest", 1, LOCKS)], VcpuThreads::Auto);
    let late = pool.guest(config("late", 1, LOCKS));
    let handle = pool.handle.clone();
    assert_eq!(pool.runner.stop().vcpus.len(), 1);
    let late = handle.join(late).expect_err("stopped");
    assert!(matches!(late.error.kind, JoinErrorKind::Stopped));
    assert_eq!(handle.pause("guest"), Err(GuestCallError::Stopped));

    let run = RunConfig {
        sched: SchedMode::Host,
        ..RunConfig::default()
    };
    let runner = host_sched::start(&run, &common::host_cpus(1), Vec::new()).expect("nothing");
    assert_eq!(runner.pool().map(drop), Err(NoPool));
    runner.stop();
}

#[test]
fn a_guest_whose_disk_is_busy_is_paused_goes_on_and_leaves() {
    let path = std::env::temp_dir().join(format!("baton-busy-disk-{}", std::process::id()));
    let disk = std::fs::File::create(&path).expect("a file");
    disk.set_len(16 << 20).expect("room");
    let disk: DiskConfig = path.to_str().expect("a path").parse().expect("a disk");
    let pool = TestPool::start(1, Vec::new(), VcpuThreads::Auto);
    let mut devices_ns = 0;
    for _ in 0..10 {
        let mut busy = config("busy", 1, "workload=device-hog hints=on seconds=0");
        busy.memory = 64 << 20;
        busy.disks.push(disk.clone());
        let bystander = pool.join(config("bystander", 1, LOCKS));
        drop(pool.join(busy));
        for _ in 0..5 {
            until_progress(&bystander, 20);
            pool.handle.pause("busy").expect("it runs");
            pool.handle.resume("busy").expect("it is paused");
        }
        until_progress(&bystander, 200);
        let account = pool.handle.leave("busy").expect("it is there");
        devices_ns += account.vcpus[0].counters.devices_ns;
        pool.handle.leave("bystander").expect("it is there");
    }
    assert!(devices_ns > 0, "no disk was busy");
    pool.runner.stop();
    std::fs::remove_file(path).expect("the file");
}

#[test]
fn what_was_meant_for_a_guest_never_reaches_the_next_one_of_its_name() {
    let pool = TestPool::start(1, Vec::new(), VcpuThreads::On);
    pool.join(config("web", 1, LOCKS));
    let first = pool.handle.find("web").expect("it is there");
    pool.handle.leave("web").expect("it is there");
    let second = pool.join(config("web", 1, LOCKS));
    assert_ne!(pool.handle.find("web"), Ok(first.clone()));
    let gone = || GuestCallError::NoGuest("web".to_owned());
    assert_eq!(pool.handle.pause(&first), Err(gone()));
    assert_eq!(
        pool.handle.set(&first, None, &VcpuChange::Weight(1)),
        Err(gone())
    );
    assert_eq!(pool.handle.terms(&first).err(), Some(gone()));
    assert_eq!(pool.handle.leave(&first).err(), Some(gone()));
    until_progress(&second, 5);
    pool.handle.leave("web").expect("it is there");
    pool.runner.stop();
}
