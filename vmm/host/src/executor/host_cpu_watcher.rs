//! Host CPUs of the pool that cannot be used any more, and those that can be used again.
//!
//! A CPU goes offline, leaves the cpuset of this process's cgroup, or somebody pins this process's threads
//! elsewhere (`taskset -a -p`). In each case the kernel lets the CPU's executor run somewhere else, and says
//! nothing. So a thread asks once a second where the executors may run, and at once when one finds itself
//! on another CPU than its own. Asking takes a system call for each executor, and disturbs none of them.
//!
//! | where the executor may run | what that means |
//! |---|---|
//! | on its CPU alone | all is well |
//! | on its CPU and others | its CPU is back: it is pinned there again |
//! | elsewhere | its CPU is away: the pool goes on without (`vcpu-sched/src/pool_cpus.rs`) |
//!
//! The pool gets no other CPUs than those it began with: which these are is its user's choice.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use baton_config::units::format_cpus;
use baton_observe::trace::{Names, VcpuName};
use baton_os::sys;
use vcpu_sched::{CpuId, CpuSet, Doing};

use super::pins::Since;
use super::pool::{After, Pool, State};
use crate::sync::Mutex;

/// How long it takes at most until an idle executor's CPU is found to be away, or one to be back.
const EVERY: Duration = Duration::from_secs(1);

/// How executors ask for a look, and what was seen.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    watcher: OnceLock<Thread>,
    /// Host CPUs that are away.
    away: Mutex<Vec<usize>>,
}

impl Watched {
    /// Makes the watcher look now.
    pub(super) fn look(&self) {
        if let Some(watcher) = self.watcher.get() {
            watcher.unpark();
        }
    }

    /// Whether it cannot be used. If it is the last one of the pool, its executor runs elsewhere.
    pub(super) fn is_away(&self, host_cpu: usize) -> bool {
        let away = self.away.lock();
        away.contains(&host_cpu)
    }

    /// Those of `host_cpus` that are not away; all of them if all are.
    pub(super) fn usable(&self, host_cpus: &[usize]) -> Vec<usize> {
        let away = self.away.lock();
        let usable = host_cpus.iter().copied().filter(|cpu| !away.contains(cpu));
        let usable: Vec<usize> = usable.collect();
        match usable.is_empty() {
            true => host_cpus.to_vec(),
            false => usable,
        }
    }
}

/// What an executor knows of the host CPU that it is pinned to.
#[derive(Debug, Default)]
pub(super) struct OwnCpu {
    /// It was found to be elsewhere at that moment, and the watcher was told.
    told: Option<Since>,
}

impl OwnCpu {
    /// Looks whether the calling thread, the executor of `cpu`, is where it was pinned to.
    pub(super) fn check(&mut self, cpu: CpuId, pool: &Pool) {
        let host_cpu = pool.host_cpus()[cpu.index()];
        if sys::current_cpu() == host_cpu {
            return;
        }
        // Once for each change: where the last CPU of a pool is away, this goes on.
        let now = pool.pins.since();
        if self.told.replace(now) != Some(now) {
            pool.watch.look();
        }
    }
}

/// The thread that looks; ends when dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Watches the host CPUs of `pool`, whose executors have started.
    ///
    /// # Errors
    /// If the host has no thread left.
    pub(super) fn start(pool: &Arc<Pool>, names: Names) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watched = Arc::downgrade(pool);
        let thread = thread::Builder::new()
            .name("host-cpus".into())
            .spawn(move || watch(&watched, &names, &stopped))?;
        // There is one watcher for a pool.
        let _ = pool.watch.watcher.set(thread.thread().clone());
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // One that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

fn watch(pool: &Weak<Pool>, names: &Names, stop: &AtomicBool) {
    let mut usable = CpuSet::first(names.host_cpus.len());
    while !stop.load(Ordering::Acquire) {
        thread::park_timeout(EVERY);
        let Some(pool) = pool.upgrade() else {
            return;
        };
        let (found, moved) = find(&pool, usable);
        let lines = match found == usable {
            true => Vec::new(),
            false => change(&pool, names, usable, found),
        };
        if moved || found != usable {
            // Not before it is known which CPUs are away.
            pool.pins.lost();
        }
        if !lines.is_empty() {
            // At once: a reader that is behind delays the end of the run by one wait, not by one a line.
            baton_os::say!("baton: {}", lines.join("\nbaton: "));
        }
        usable = found;
    }
}

/// The CPUs whose executors may run there, and whether one of these had to be pinned again.
fn find(pool: &Pool, before: CpuSet) -> (CpuSet, bool) {
    let mut moved = false;
    let mut found = CpuSet::EMPTY;
    for (cpu, &host_cpu) in (0..).map(CpuId).zip(pool.host_cpus()) {
        let executor = pool.station(cpu).executor();
        let usable = match executor.map(sys::affinity_of) {
            Some(Ok(may)) if may == [host_cpu] => true,
            Some(Ok(may)) if may.contains(&host_cpu) => {
                moved = true;
                executor.is_some_and(|it| sys::set_affinity_of(it, &[host_cpu]).is_ok())
            }
            Some(Ok(_)) => false,
            // It has not begun, or has failed, which it has said: this is not about its CPU.
            None | Some(Err(_)) => before.contains(cpu),
        };
        if usable {
            found.insert(cpu);
        }
    }
    (found, moved)
}

/// Tells the policy, and says what that means.
fn change(pool: &Pool, names: &Names, before: CpuSet, now: CpuSet) -> Vec<String> {
    let host_cpus = |cpus: CpuSet| -> Vec<usize> {
        let cpus = cpus.iter().map(|cpu| names.host_cpus[cpu.index()]);
        cpus.collect()
    };
    let all = CpuSet::first(names.host_cpus.len());
    *pool.watch.away.lock() = host_cpus(all.minus(now));
    let (after, vcpus) = {
        let mut state = pool.lock();
        let after = state.set_present(all, now);
        (after, look(&state, names))
    };
    pool.finish(after);
    let (gone, back) = (before.minus(now), now.minus(before));
    let mut lines = Vec::new();
    if !gone.is_empty() {
        lines.push(went(&host_cpus(gone), &host_cpus(now)));
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

/// What the pool's present CPUs mean for one vCPU.
#[derive(Clone, Debug, PartialEq)]
struct Seen<'a> {
    name: &'a VcpuName,
    reserved: bool,
    /// The part of its reservation that is in force, if not all is.
    part: Option<f64>,
    displaced: bool,
}

fn look<'a>(state: &State, names: &'a Names) -> Vec<Seen<'a>> {
    let views = (0..).map(vcpu_sched::VcpuId).zip(&names.vcpus);
    let seen = views.filter_map(|(id, name)| {
        let view = state.sched.view(id)?;
        let share = |r: &vcpu_sched::Reservation| r.budget() as f64 / r.deadline() as f64;
        let promised = view.reserved.map(|(promised, ..)| share(&promised));
        let part = view.reduced.map(|(reduced, _)| share(&reduced));
        (view.doing != Doing::Gone).then(|| Seen {
            name,
            reserved: promised.is_some(),
            part: promised.zip(part).map(|(promised, part)| part / promised),
            displaced: view.displaced,
        })
    });
    seen.collect()
}

fn name_cpus(host_cpus: &[usize]) -> String {
    let plural = if host_cpus.len() == 1 { "" } else { "s" };
    format!("host CPU{plural} {}", format_cpus(host_cpus))
}

fn cpus_are(host_cpus: &[usize]) -> String {
    let verb = if host_cpus.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", name_cpus(host_cpus))
}

/// These have gone, and those are left.
fn went(gone: &[usize], left: &[usize]) -> String {
    let offline = |cpu: &usize| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/online");
        fs::read_to_string(path).is_ok_and(|online| online.trim() == "0")
    };
    let why = match gone.iter().all(offline) {
        true => "offline",
        false => "not to be used any more (by the cpuset or the affinity of this process)",
    };
    let goes_on = match left {
        [] => "no CPU of the pool is left: guests run where the host's kernel lets them, and no \
               reservation can be relied on"
            .to_owned(),
        left => format!("the pool goes on with {}", name_cpus(left)),
    };
    format!("{} {why}; {goes_on}", cpus_are(gone))
}

/// What it means for guests: one sentence for each that is concerned.
fn consequences(vcpus: &[Seen], all_present: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for guest in vcpus.chunk_by(|a, b| a.name.guest == b.name.guest) {
        let name = &guest[0].name.guest_name;
        let parts = guest.iter().filter_map(|vcpu| vcpu.part);
        if let Some(least) = parts.min_by(f64::total_cmp) {
            lines.push(format!(
                "guest {name} cannot keep its reservations on the host CPUs that are left: they are \
                 reduced to {:.1} % until more are back",
                least * 100.0
            ));
        }
        let displaced = guest.iter().filter(|vcpu| vcpu.displaced);
        let displaced: Vec<usize> = displaced.map(|vcpu| vcpu.name.index as usize).collect();
        if !displaced.is_empty() {
            let (plural, verb, runs) = match displaced.len() {
                1 => ("", "is", "runs"),
                _ => ("s", "are", "run"),
            };
            lines.push(format!(
                "guest {name}: vCPU{plural} {} {verb} pinned to host CPUs that are away, and {runs} \
                 elsewhere until one is back",
                format_cpus(&displaced)
            ));
        }
    }
    let reserved = vcpus.iter().any(|vcpu| vcpu.reserved);
    let reduced = vcpus.iter().any(|vcpu| vcpu.part.is_some());
    if reserved && !reduced {
        let where_ = if all_present {
            ""
        } else {
            " on the host CPUs that are left"
        };
        lines.push(format!("all reservations are kept{where_}"));
    }
    lines
}

impl State {
    /// The CPUs `now` of the pool can be used; without any, the last one stays.
    fn set_present(&mut self, all: CpuSet, now: CpuSet) -> After {
        let at = sys::monotonic_ns();
        // First those that are back, so that one of these can be the last.
        for cpu in now.iter() {
            self.sched.cpu_online(cpu, at);
        }
        for cpu in all.minus(now).iter() {
            self.sched.cpu_offline(cpu, at);
        }
        self.after()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(guest: usize, index: u32) -> VcpuName {
        VcpuName {
            guest,
            guest_name: ["db", "web"][guest].to_owned(),
            index,
        }
    }

    fn seen(name: &VcpuName, part: Option<f64>, displaced: bool) -> Seen<'_> {
        Seen {
            name,
            reserved: true,
            part,
            displaced,
        }
    }

    #[test]
    fn each_guest_whose_reservations_are_reduced_is_named_with_what_is_left_of_them() {
        let names = [name(0, 0), name(1, 0), name(1, 1)];
        let vcpus = [
            seen(&names[0], None, false),
            seen(&names[1], Some(0.2375), false),
            seen(&names[2], Some(0.5), true),
        ];
        let lines = consequences(&vcpus, false);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("guest web") && lines[0].contains("23.8 %"));
        assert!(
            lines[1].contains("guest web: vCPU 1 is pinned"),
            "{lines:?}"
        );
    }

    #[test]
    fn when_nothing_is_reduced_that_is_said_and_without_reservations_nothing() {
        let names = [name(0, 0)];
        let mut vcpus = [seen(&names[0], None, false)];
        assert_eq!(consequences(&vcpus, true), ["all reservations are kept"]);
        vcpus[0].reserved = false;
        assert!(consequences(&vcpus, true).is_empty());
    }

    #[test]
    fn a_pool_without_a_cpu_is_said_to_promise_nothing() {
        assert!(went(&[1, 2], &[0]).ends_with("the pool goes on with host CPU 0"));
        let none = went(&[0], &[]);
        assert!(none.contains("no reservation can be relied on"), "{none}");
    }

    #[test]
    fn threads_sleep_where_their_vcpu_may_run_unless_all_that_is_away() {
        let watched = Watched::default();
        *watched.away.lock() = vec![1, 3];
        assert_eq!(watched.usable(&[0, 1, 2, 3]), [0, 2]);
        assert_eq!(watched.usable(&[1, 3]), [1, 3]);
    }
}
