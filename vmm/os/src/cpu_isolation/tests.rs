//! Isolations of both versions on a host in memory, of which any change may fail or be the last.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::change::Change;
use super::error::IsolationError;
use super::fake_host::{FakeHost, OWN, ROOT, Trouble};
use super::hierarchy::Hierarchy;
use super::isolation::{give_back, isolate, make, undo_recorded};
use super::record::{RECORD, Records};
use crate::directory::Directory;

const OTHERS: &str = "/cgroup/baton.others";
const ISOLATED: &str = "/cgroup/baton.isolated";
const CONTAINER: &str = "/cgroup/docker/1";
const SERVICE: &str = "/cgroup/system.slice";
/// More changes than an isolation makes.
const MANY: u32 = 200;

/// A host of three CPUs, of which each test isolates the last two.
fn v1() -> (FakeHost, Hierarchy) {
    let host = FakeHost::default();
    for group in [ROOT, "/cgroup/docker", CONTAINER] {
        host.group(group);
        host.file(format!("{group}/cpuset.cpus"), "0-2\n");
        host.file(format!("{group}/cpuset.mems"), "0\n");
    }
    host.task(1, ROOT, &[0, 1, 2], false);
    host.task(2, ROOT, &[2], true);
    host.task(3, ROOT, &[0], true);
    host.task(4, ROOT, &[0, 2], false);
    host.task(5, ROOT, &[2], false);
    host.task(50, CONTAINER, &[0, 1, 2], false);
    for task in OWN {
        host.task(task, ROOT, &[0, 1, 2], false);
    }
    (host, Hierarchy::V1(ROOT.into()))
}

fn v2() -> (FakeHost, Hierarchy) {
    let host = FakeHost::default();
    for group in [ROOT, SERVICE, "/cgroup/user.slice"] {
        host.group(group);
    }
    host.file(format!("{ROOT}/cpuset.cpus.effective"), "0-2\n");
    host.file(format!("{ROOT}/cgroup.subtree_control"), "");
    host.task(1, "/cgroup/user.slice", &[0, 1, 2], false);
    host.task(2, ROOT, &[2], true);
    host.task(4, ROOT, &[0, 2], false);
    host.task(5, "/cgroup/user.slice", &[1], false);
    for task in OWN {
        host.task(task, SERVICE, &[0, 1, 2], false);
    }
    let (root, own) = (ROOT.into(), SERVICE.into());
    (host, Hierarchy::V2 { root, own })
}

fn group_of(host: &FakeHost, task: i32) -> PathBuf {
    host.state().tasks[&task].group.clone()
}

#[test]
fn in_version_1_all_but_this_process_and_bound_threads_move_and_come_back_as_they_were() {
    let (host, hierarchy) = v1();
    let before = host.state();
    let (change, remaining) = isolate(&host, &host, hierarchy, &[1, 2]).expect("isolated");
    for task in [1, 4, 5] {
        assert_eq!(group_of(&host, task), PathBuf::from(OTHERS), "{task}");
        assert_eq!(host.state().tasks[&task].cpus, [0], "{task}");
    }
    for task in [2, 3, OWN[0], OWN[1]] {
        assert_eq!(group_of(&host, task), PathBuf::from(ROOT), "{task}");
    }
    assert_eq!(
        remaining.tasks, 1,
        "the thread of host CPU 0 disturbs nobody"
    );
    assert_eq!(remaining.groups, [PathBuf::from(CONTAINER)]);
    give_back(&host, &host, &change).expect("given back");
    assert_eq!(host.state(), before);
}

#[test]
fn tasks_that_are_created_while_others_move_are_moved_as_well_and_go_back() {
    let (host, hierarchy) = v1();
    *host.forks.borrow_mut() = 3;
    let (change, _) = isolate(&host, &host, hierarchy, &[1, 2]).expect("isolated");
    let in_group = |group: &str| {
        let group = std::path::Path::new(group);
        let state = host.state();
        let tasks = state.tasks.values();
        tasks.filter(|task| task.group.as_path() == group).count()
    };
    assert_eq!(in_group(OTHERS), 3 + 3);
    host.task(2_000, OTHERS, &[0], false);
    give_back(&host, &host, &change).expect("given back");
    assert_eq!(in_group(ROOT), 7 + 3 + 1);
    *host.forks.borrow_mut() = u32::MAX;
}

#[test]
fn a_task_that_requests_another_affinity_meanwhile_keeps_that() {
    let (host, hierarchy) = v1();
    host.task(6, ROOT, &[0, 1], false);
    let (change, _) = isolate(&host, &host, hierarchy, &[2]).expect("isolated");
    assert_eq!(host.state().tasks[&4].cpus, [0], "what is left of 0 and 2");
    assert_eq!(host.state().tasks[&5].cpus, [0, 1], "nothing is left of 2");
    give_back(&host, &host, &change).expect("given back");
    for (task, cpus) in [(4, vec![0, 2]), (5, vec![2]), (6, vec![0, 1])] {
        assert_eq!(host.state().tasks[&task].cpus, cpus);
    }
}

#[test]
fn in_version_2_this_process_has_the_host_cpus_as_a_partition_and_goes_back_where_it_was() {
    let (host, hierarchy) = v2();
    let before = host.state();
    let (change, _) = isolate(&host, &host, hierarchy, &[1, 2]).expect("isolated");
    for task in OWN {
        assert_eq!(group_of(&host, task), PathBuf::from(ISOLATED));
    }
    assert_ne!(group_of(&host, 1), PathBuf::from(ISOLATED));
    give_back(&host, &host, &change).expect("given back");
    assert_eq!(host.state(), before);
}

#[test]
fn the_controller_stays_enabled_where_it_was_or_where_others_use_it_now() {
    for was_enabled in [true, false] {
        let (host, hierarchy) = v2();
        let control = format!("{ROOT}/cgroup.subtree_control");
        if was_enabled {
            host.file(&control, "cpuset\n");
        }
        let (change, _) = isolate(&host, &host, hierarchy, &[1, 2]).expect("isolated");
        if !was_enabled {
            host.file("/cgroup/user.slice/cpuset.cpus", "0\n");
        }
        give_back(&host, &host, &change).expect("given back");
        assert_eq!(
            super::host::Host::read(&host, control.as_ref()).expect("read"),
            "cpuset\n"
        );
    }
}

#[test]
fn a_change_that_fails_leaves_all_as_it_was() {
    for version in [v1, v2] {
        let mut failures = 0;
        for number in 1..MANY {
            let (host, hierarchy) = version();
            let before = host.state();
            *host.trouble.borrow_mut() = Some(Trouble::Fails(number));
            let isolated = isolate(&host, &host, hierarchy, &[1, 2]);
            host.without_trouble();
            match isolated {
                Err(error) => {
                    failures += 1;
                    assert!(!error.to_string().contains('\n'), "{error}");
                }
                Ok((change, _)) => give_back(&host, &host, &change).expect("given back"),
            }
            assert_eq!(host.state(), before, "change {number}");
        }
        assert!(failures >= 5, "{failures}");
    }
}

#[test]
fn what_a_killed_process_left_is_undone_by_the_next_start() {
    for version in [v1, v2] {
        let total = {
            let (host, hierarchy) = version();
            let (change, _) = isolate(&host, &host, hierarchy, &[1, 2]).expect("isolated");
            give_back(&host, &host, &change).expect("given back");
            host.changes()
        };
        for (number, again) in
            (1..=total + 1).flat_map(|number| (1..=total).map(move |again| (number, again)))
        {
            let (host, hierarchy) = version();
            host.own_process_ends();
            let expected = host.state();
            let (host, _) = version();
            *host.trouble.borrow_mut() = Some(Trouble::Dies(number));
            if let Ok((change, _)) = isolate(&host, &host, hierarchy, &[1, 2]) {
                let _ = give_back(&host, &host, &change);
            }
            host.own_process_ends();
            // The next start is killed as well, and the one after that is not.
            host.without_trouble();
            *host.trouble.borrow_mut() = Some(Trouble::Dies(again));
            let _ = undo_recorded(&host, &host);
            host.without_trouble();
            undo_recorded(&host, &host).expect("undone");
            assert_eq!(host.state(), expected, "killed at {number} and at {again}");
        }
    }
}

#[test]
fn an_end_that_fails_leaves_the_record_and_the_next_start_undoes_the_rest() {
    for version in [v1, v2] {
        for number in 1..MANY {
            let (host, hierarchy) = version();
            let before = host.state();
            let (change, _) = isolate(&host, &host, hierarchy, &[1, 2]).expect("isolated");
            host.without_trouble();
            *host.trouble.borrow_mut() = Some(Trouble::Fails(number));
            if give_back(&host, &host, &change).is_err() {
                host.without_trouble();
                assert!(undo_recorded(&host, &host).expect("undone"));
            }
            assert_eq!(host.state(), before, "change {number}");
        }
    }
}

#[test]
fn a_pool_of_all_host_cpus_is_refused_before_anything_is_changed() {
    for version in [v1, v2] {
        let (host, hierarchy) = version();
        let refused = isolate(&host, &host, hierarchy, &[0, 1, 2]).expect_err("refused");
        assert!(matches!(refused, IsolationError::NoneLeft(_)), "{refused}");
        assert!(refused.to_string().contains("host CPUs 0-2"), "{refused}");
        assert_eq!(host.changes(), 0);
    }
}

#[test]
fn a_partition_that_the_kernel_does_not_make_is_an_error_with_its_reason() {
    let (host, hierarchy) = v2();
    let before = host.state();
    *host.refuses_partitions.borrow_mut() = true;
    let refused = isolate(&host, &host, hierarchy, &[1]).expect_err("refused");
    assert!(refused.to_string().contains("not exclusive"), "{refused}");
    *host.refuses_partitions.borrow_mut() = false;
    assert_eq!(host.state(), before);
}

#[test]
fn a_group_of_another_directory_of_locks_is_left_alone() {
    for (version, group) in [(v1 as fn() -> _, OTHERS), (v2, ISOLATED)] {
        let (host, hierarchy) = version();
        host.group(group);
        let before = host.state();
        let refused = isolate(&host, &host, hierarchy, &[1]).expect_err("refused");
        assert!(
            matches!(refused, IsolationError::GroupExists(_)),
            "{refused}"
        );
        assert_eq!(host.state(), before);
    }
}

#[test]
fn a_group_that_another_process_creates_at_the_same_time_keeps_its_tasks() {
    for (version, group) in [(v1 as fn() -> _, OTHERS), (v2, ISOLATED)] {
        let (host, hierarchy) = version();
        let change = Change::plan(&host, hierarchy, &[1]).expect("a plan");
        host.group(group);
        host.task(7, group, &[0], false);
        let before = host.state();
        let refused = make(&host, &host, change, &[1]).expect_err("refused");
        assert!(
            matches!(refused, IsolationError::GroupExists(_)),
            "{refused}"
        );
        assert_eq!(host.state(), before);
    }
}

#[test]
fn a_record_that_is_cut_or_of_a_later_version_undoes_nothing_and_stays() {
    for text in [
        "",
        "version 1\nroot /cgroup\nall 0-2\n",
        "version 3\nroot /\nend of record\n",
    ] {
        let (host, _) = v1();
        Records::keep(&host, text).expect("kept");
        let error = undo_recorded(&host, &host).expect_err("refused");
        assert!(error.to_string().contains("by hand"), "{error}");
        assert!(host.kept().expect("read").is_some());
    }
}

#[test]
fn a_record_to_which_others_may_write_is_not_followed() {
    let path = std::env::temp_dir().join(format!("baton-isolation-{}", std::process::id()));
    fs::create_dir(&path).expect("a directory");
    let directory = Directory::open(&path).expect("opens");
    assert_eq!(directory.kept().expect("read"), None);
    Records::keep(&directory, "version 1\n").expect("kept");
    let file = path.join(RECORD);
    fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("a mode");
    assert_eq!(
        directory.kept().expect("read").as_deref(),
        Some("version 1\n")
    );
    fs::set_permissions(&file, Permissions::from_mode(0o666)).expect("a mode");
    assert_eq!(directory.kept().expect("read"), None);
    fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("a mode");
    fs::hard_link(&file, path.join("second")).expect("a hard link");
    assert_eq!(directory.kept().expect("read"), None);
    Records::remove(&directory).expect("removed");
    Records::remove(&directory).expect("removed already");
    fs::remove_dir_all(path).expect("removed");
}
