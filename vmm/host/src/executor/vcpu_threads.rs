//! The second form of the seam: each vCPU has a thread, which an executor wakes and waits for.
//!
//! The vCPU still is a value that one thread owns: it goes to its thread with the request and comes
//! back with the answer. Its thread is pinned to the host CPU of the executor that asks, so the two
//! never run at the same time and the policy's choice of CPU holds.
//!
//! A halted vCPU sleeps on its own thread too, in a [`VcpuSleep`]: so it never changes threads, which
//! before Linux 6.13 costs an RCU grace period each time.

use std::collections::HashMap;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::{fmt, io};

use baton_machine::Vcpu;
use baton_os::sys;
use vcpu_sched::{CpuId, VcpuId};

use super::halt_threads;
use super::handoff::Handoff;
use super::kick_target::Station;
use super::pins::Pinned;
use super::pool::{HaltThreads, NewVcpu, Pool};
use super::run_loop::Lane;
use super::vcpu_runner::{Ran, Seam};
use crate::halt::{
    CpuMeter, ExitOnWake, HaltSetup, HaltThreadError, InPlaceEnd, ShortSlice, VcpuSleep,
};

/// What a vCPU's thread can be asked for. The vCPU comes with it, so it is asked for one thing at a
/// time.
enum Work {
    Run(Request),
    /// Sleep, and give it back to the pool.
    Sleep(Box<Vcpu>),
}

/// A vCPU to run, and for whom.
struct Request {
    vcpu: Box<Vcpu>,
    until: Option<u64>,
    cpu: CpuId,
    host_cpu: usize,
    answer: Answer,
}

/// Where the vCPU comes back; says so when it does not.
struct Answer(Option<Handoff<Ran>>);

impl Answer {
    fn give(mut self, ran: Ran) {
        if let Some(place) = self.0.take() {
            // Without a taker the executor is gone, and the run with it.
            let _ = place.leave(ran);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(place) = self.0.take() {
            place.close();
        }
    }
}

/// What a vCPU's thread takes its work from; nobody may leave any when the thread has ended.
struct Inbox(Handoff<Work>);

impl Drop for Inbox {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The thread of one vCPU.
struct VcpuThread {
    number: usize,
    index: u32,
    work: Handoff<Work>,
    vcpu_sleep: Arc<VcpuSleep>,
    thread: Option<JoinHandle<()>>,
}

/// The threads of all vCPUs of a pool, in the policy's order.
pub(crate) struct VcpuThreads {
    threads: Vec<VcpuThread>,
    sees_halts: bool,
}

impl fmt::Debug for VcpuThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VcpuThreads")
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

impl VcpuThreads {
    /// Starts a thread for each of `vcpus`.
    ///
    /// # Errors
    /// If the host has no thread or timer left.
    pub fn start(pool: &Arc<Pool>, vcpus: &[NewVcpu]) -> Result<Self, HaltThreadError> {
        // Made first, so that an error on the way ends those that were started.
        let mut all = Self {
            threads: Vec::new(),
            sees_halts: true,
        };
        for (id, vcpu) in (0..).map(VcpuId).zip(vcpus) {
            let NewVcpu {
                guest,
                guest_name,
                index,
                host_cpus,
            } = vcpu;
            let work = Handoff::new();
            let inbox = Inbox(work.clone());
            let (ready, started) = sync_channel(1);
            let vcpu_sleep = Arc::new(VcpuSleep::new()?);
            let sleeps = Arc::clone(&vcpu_sleep);
            // The pool keeps the way to the threads, so they must not keep the pool.
            let pool = Arc::downgrade(pool);
            let cpus = host_cpus.clone();
            // Linux shows 15 characters.
            let name: String = format!("{index}:{guest_name}").chars().take(15).collect();
            let thread = thread::Builder::new()
                .name(name)
                .spawn(move || {
                    let equipped = Lane::for_this_thread().and_then(|lane| {
                        Ok((lane, HaltSetup::for_this_thread(ExitOnWake::Events)?))
                    });
                    match equipped {
                        Ok((lane, halt_setup)) => {
                            let _ = ready.send(Ok(lane.sees_halts()));
                            let thread = Own {
                                id,
                                lane,
                                vcpu_sleep: sleeps,
                                halt_setup,
                                pool,
                                cpus,
                                pinned: Pinned::default(),
                                cpu_meter: CpuMeter::start(),
                            };
                            thread.serve(&inbox);
                        }
                        Err(error) => drop(ready.send(Err(error))),
                    }
                })
                .map_err(HaltThreadError::Thread)?;
            all.threads.push(VcpuThread {
                number: *guest,
                index: *index,
                work,
                vcpu_sleep,
                thread: Some(thread),
            });
            all.sees_halts &= started
                .recv()
                .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
                .map_err(HaltThreadError::SetUp)?;
        }
        Ok(all)
    }

    /// Whether halts end a run on all of them.
    pub(crate) fn see_halts(&self) -> bool {
        self.sees_halts
    }

    /// The way to let halted vCPUs sleep there. `None` where KVM cannot end a halt without
    /// delivering the interrupt.
    pub(crate) fn berths(&self, pool: &Arc<Pool>) -> Option<Arc<dyn HaltThreads>> {
        halt_threads::possible().then(|| {
            let sleeps =
                |thread: &VcpuThread| (thread.work.clone(), Arc::clone(&thread.vcpu_sleep));
            Arc::new(OwnHaltThreads {
                sleeps: self.threads.iter().map(sleeps).collect(),
                pool: Arc::downgrade(pool),
            }) as Arc<dyn HaltThreads>
        })
    }
}

/// Brings what sleeps on the threads back to the pool, and ends them.
impl Drop for VcpuThreads {
    fn drop(&mut self) {
        for VcpuThread {
            work,
            vcpu_sleep,
            thread,
            ..
        } in self.threads.drain(..)
        {
            vcpu_sleep.close();
            work.close();
            if let Some(thread) = thread {
                // A thread that panicked has said so on standard error.
                let _ = thread.join();
            }
        }
    }
}

/// The sleeps on the vCPUs' own threads, by policy name.
struct OwnHaltThreads {
    sleeps: Vec<(Handoff<Work>, Arc<VcpuSleep>)>,
    pool: Weak<Pool>,
}

impl HaltThreads for OwnHaltThreads {
    fn begin_sleep(&self, id: VcpuId, vcpu: Box<Vcpu>) {
        // Only a thread that has failed does not take it; the vCPU is not run again then.
        if let Err(Work::Sleep(vcpu)) = self.sleeps[id.index()].0.leave(Work::Sleep(vcpu))
            && let Some(pool) = self.pool.upgrade()
        {
            pool.comes_back(id, vcpu, 0);
        }
    }

    fn interrupt_sleep(&self, id: VcpuId) {
        self.sleeps[id.index()].1.interrupt();
    }
}

/// What a vCPU's thread has.
struct Own {
    id: VcpuId,
    lane: Lane,
    vcpu_sleep: Arc<VcpuSleep>,
    halt_setup: HaltSetup,
    pool: Weak<Pool>,
    /// The host CPUs where the vCPU may run.
    cpus: Vec<usize>,
    /// The one of them that the thread is pinned to.
    pinned: Pinned,
    /// Its CPU time; each report has the way to the one before and the wait for work too.
    cpu_meter: CpuMeter,
}

impl Own {
    fn serve(mut self, inbox: &Inbox) {
        sys::set_exact_timers();
        while let Some(work) = inbox.0.take() {
            let Some(pool) = self.pool.upgrade() else {
                return;
            };
            match work {
                Work::Run(request) => self.run(request, &pool),
                Work::Sleep(vcpu) => self.sleep(vcpu, &pool),
            }
        }
    }

    fn run(&mut self, request: Request, pool: &Pool) {
        let Request {
            mut vcpu,
            until,
            cpu,
            host_cpu,
            answer,
        } = request;
        // The executor is pinned there, so the kernel grants it unless that is moved, too.
        self.pinned.go(host_cpu, &pool.pins);
        super::signal::forget_missed();
        let exit = self.lane.run(&mut vcpu, until, pool.station(cpu));
        let elsewhere_ns = self.cpu_meter.take_ns();
        answer.give(Ran {
            vcpu,
            exit,
            elsewhere_ns,
        });
    }

    fn sleep(&mut self, mut vcpu: Box<Vcpu>, pool: &Pool) {
        // Where it halted another vCPU runs by now; it may wake wherever there is room.
        if sys::set_affinity(&pool.watch.usable(&self.cpus)).is_ok() {
            self.pinned.forget();
        }
        let end = {
            let _short_slice = ShortSlice::enter();
            self.vcpu_sleep.sleep(&mut vcpu, &self.halt_setup)
        };
        let spent_ns = self.cpu_meter.take_ns();
        halt_threads::give_back(pool, self.id, vcpu, end, spent_ns);
    }
}

/// An executor's way to the vCPUs' threads.
pub(crate) struct ByThread {
    threads: HashMap<(usize, u32), Handoff<Work>>,
    cpu: CpuId,
    host_cpu: usize,
    answers: Handoff<Ran>,
    sees_halts: bool,
}

impl ByThread {
    pub(crate) fn new(threads: &VcpuThreads, cpu: CpuId, host_cpu: usize) -> Self {
        let all = threads
            .threads
            .iter()
            .map(|thread| ((thread.number, thread.index), thread.work.clone()));
        Self {
            threads: all.collect(),
            cpu,
            host_cpu,
            answers: Handoff::new(),
            sees_halts: threads.sees_halts,
        }
    }
}

impl Seam for ByThread {
    fn run(&mut self, vcpu: Box<Vcpu>, until: Option<u64>, _: &Station) -> Option<Ran> {
        let thread = self.threads.get(&(vcpu.guest.number, vcpu.index))?;
        let answer = Answer(Some(self.answers.clone()));
        let request = Request {
            vcpu,
            until,
            cpu: self.cpu,
            host_cpu: self.host_cpu,
            answer,
        };
        let ran = thread
            .leave(Work::Run(request))
            .ok()
            .and_then(|()| self.answers.take());
        if ran.is_none() {
            // Closed for the vCPU that is lost, not for the others.
            self.answers = Handoff::new();
        }
        ran
    }

    fn sees_halts(&self) -> bool {
        self.sees_halts
    }

    // It sleeps on its own thread, which the executor would have to wake in any case. Tried, for it need
    // not go by the pool then: that gained a tenth of a wake-up, and where two vCPUs were idle, of which
    // one could nap, the other's took 1.7 times as long, because the nap had to end first.
    fn naps(&self) -> bool {
        false
    }

    fn nap(&mut self, _: &mut Vcpu, _: Option<u64>, _: &Station) -> InPlaceEnd {
        InPlaceEnd::NeedsHaltThread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_the_answer_of_a_thread_that_has_failed() {
        let place = Handoff::new();
        let thread = thread::spawn({
            let answer = Answer(Some(place.clone()));
            move || drop(answer)
        });
        assert!(place.take().is_none());
        assert!(thread.join().is_ok());
    }
}
