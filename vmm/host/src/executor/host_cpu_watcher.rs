//! Finds the host CPUs of the pool that cannot be used any more, and those that can be used again.
//!
//! A CPU goes offline, leaves the cpuset of this process's cgroup, or a user pins this process's threads
//! elsewhere (`taskset -a -p`). In each case the kernel lets the CPU's executor run somewhere else, without
//! notice. So a thread reads once a second where the executors may run, and at once when one finds itself
//! on another CPU than its own. That takes a system call for each executor, and disturbs none of them.
//!
//! | where the executor may run | what that means |
//! |---|---|
//! | on its CPU alone | all is well |
//! | on its CPU and others | its CPU can be used again: the executor is pinned there again |
//! | elsewhere | its CPU is away: the pool goes on without it |
//!
//! The pool gets no other CPUs than those that it began with, which are the user's choice.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use baton_os::sys;
use vcpu_sched::{CpuId, CpuSet};

use super::foreign_check;
use super::host_cpu_report::{consequences, cpus_are, cpus_went, effects, name_cpus};
use super::pool::Pool;

/// How long it takes at most until an idle executor's CPU is found to be away, or to be back.
const EVERY: Duration = Duration::from_secs(1);

/// The thread that watches the host CPUs; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct HostCpuWatcher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl HostCpuWatcher {
    /// Watches the host CPUs of `pool`, whose executors have started.
    ///
    /// # Errors
    /// If the host has no thread left.
    pub(super) fn start(pool: &Arc<Pool>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watched = Arc::downgrade(pool);
        let thread = thread::Builder::new()
            .name("host-cpus".into())
            .spawn(move || watch(&watched, &stopped))?;
        pool.usable_cpus.set_watcher(thread.thread());
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for HostCpuWatcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A thread that panicked has reported that on standard error.
            let _ = thread.join();
        }
    }
}

fn watch(pool: &Weak<Pool>, stop: &AtomicBool) {
    let Some(mut members) = pool.upgrade().map(|pool| pool.members()) else {
        return;
    };
    let mut usable = members;
    while !stop.load(Ordering::Acquire) {
        thread::park_timeout(EVERY);
        let Some(pool) = pool.upgrade() else {
            return;
        };
        foreign_check::check(&pool);
        let before = std::mem::replace(&mut members, pool.members());
        // What the pool has got since can be used until it is found that it cannot.
        usable = members.minus(before.minus(usable));
        let (found, moved) = find(&pool, members, usable);
        let lines = match found == usable {
            true => Vec::new(),
            false => apply(&pool, members, usable, found),
        };
        if moved || found != usable {
            // After it is known which CPUs are away.
            pool.pins.lost();
        }
        if !lines.is_empty() {
            // In one piece: a reader that is behind delays the end of the run by one wait, not by one for each line.
            baton_os::say!("baton: {}", lines.join("\nbaton: "));
        }
        usable = found;
    }
}

/// The CPUs among those of the pool, `members`, on which their executors may run, and whether one of these had to be
/// pinned again.
fn find(pool: &Pool, members: CpuSet, before: CpuSet) -> (CpuSet, bool) {
    let mut moved = false;
    let mut found = CpuSet::EMPTY;
    let all = (0..).map(CpuId).zip(pool.host_cpus().iter());
    for (cpu, &host_cpu) in all.filter(|&(cpu, _)| members.contains(cpu)) {
        let executor = pool.kick_target(cpu).executor();
        let usable = match executor.map(sys::affinity_of) {
            Some(Ok(may)) if may == [host_cpu] => true,
            Some(Ok(may)) if may.contains(&host_cpu) => {
                moved = true;
                executor.is_some_and(|tid| sys::set_affinity_of(tid, &[host_cpu]).is_ok())
            }
            Some(Ok(_)) => false,
            // The executor has not begun, or has failed and reported that; its CPU is as before.
            None | Some(Err(_)) => before.contains(cpu),
        };
        if usable {
            found.insert(cpu);
        }
    }
    (found, moved)
}

/// Reports the CPUs `now` of the pool's `all`, after `before`, to the policy. Returns sentences for the user.
fn apply(pool: &Pool, all: CpuSet, before: CpuSet, now: CpuSet) -> Vec<String> {
    let host_cpus = |cpus: CpuSet| -> Vec<usize> {
        let cpus = cpus.iter().map(|cpu| pool.host_cpus()[cpu.index()]);
        cpus.collect()
    };
    pool.usable_cpus.set_away(host_cpus(all.minus(now)));
    let (after, vcpus) = {
        let _not_preempted = pool.priority.not_preempted();
        let mut state = pool.lock();
        let after = state.set_present(all, now);
        (after, effects(&state))
    };
    pool.finish(after);
    let vcpus = vcpus.named();
    let (gone, back) = (before.minus(now), now.minus(before));
    let mut lines = Vec::new();
    if !gone.is_empty() {
        lines.push(cpus_went(&host_cpus(gone), &host_cpus(now)));
    }
    if !back.is_empty() {
        lines.push(format!(
            "{} back: the pool has {}",
            cpus_are(&host_cpus(back)),
            name_cpus(&host_cpus(now))
        ));
    }
    lines.extend(consequences(&vcpus, now == all));
    lines
}
