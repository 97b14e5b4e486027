//! The threads of a guest's process that are none of its vCPUs', and the host CPUs that they use.

use std::fs;

use baton_host::commanded::CommandedVcpus;
use baton_os::sys;

/// Keeps these threads off the host CPUs `taken`, as far as `all` has others. Without any in `taken` they may use all.
/// Threads that they start later do the same as they.
pub(super) fn keep_off(all: &[usize], taken: &[usize], vcpus: &CommandedVcpus) {
    let others = others(all, taken);
    let of_vcpus: Vec<i32> = vcpus.tids().collect();
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return;
    };
    let tasks = tasks.flatten();
    let tids = tasks.filter_map(|task| task.file_name().to_str()?.parse::<i32>().ok());
    for tid in tids.filter(|tid| !of_vcpus.contains(tid)) {
        // A thread may end at any time, and one that stays where it is is only slower.
        let _ = sys::set_affinity_of(tid, &others);
    }
}

/// `all` host CPUs but those that are `taken`; all if there are no others.
fn others(all: &[usize], taken: &[usize]) -> Vec<usize> {
    let others = all.iter().copied().filter(|cpu| !taken.contains(cpu));
    let others: Vec<usize> = others.collect();
    match others.is_empty() {
        true => all.to_vec(),
        false => others,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_use_the_cpus_that_are_left_or_all() {
        assert_eq!(others(&[0, 1, 2], &[1]), [0, 2]);
        assert_eq!(others(&[0, 1], &[]), [0, 1]);
        assert_eq!(others(&[0, 1], &[0, 1, 7]), [0, 1]);
    }
}
