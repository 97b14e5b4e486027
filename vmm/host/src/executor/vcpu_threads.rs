//! The second form of the seam: each vCPU has a thread, which an executor wakes and waits for.
//!
//! The vCPU still is a value that one thread owns: it goes to its thread with the request and comes
//! back with the answer. Its thread is pinned to the host CPU of the executor that asks, so the two
//! never run at the same time and the policy's choice of CPU holds.
//!
//! A halted vCPU sleeps on its own thread too, in a [`Bed`]: so it never changes threads, which
//! before Linux 6.13 costs an RCU grace period each time.

use std::collections::HashMap;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::{fmt, io};

use baton_machine::Vcpu;
use baton_os::sys;
use vcpu_sched::{CpuId, VcpuId};

use super::berths;
use super::handoff::Handoff;
use super::kick_target::Station;
use super::pins::Pinned;
use super::pool::{Berths, NewVcpu, Pool};
use super::run_loop::Lane;
use super::vcpu_runner::{Ran, Seam};
use crate::halt::nap::NapEnd;
use crate::halt::{Bed, Bedding, BerthError, ExitOnWake, Spent, prompt_for_now};

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
    bed: Arc<Bed>,
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
    pub fn start(pool: &Arc<Pool>, vcpus: &[NewVcpu]) -> Result<Self, BerthError> {
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
            let bed = Arc::new(Bed::new()?);
            let sleeps = Arc::clone(&bed);
            // The pool keeps the way to the threads, so they must not keep the pool.
            let pool = Arc::downgrade(pool);
            let cpus = host_cpus.clone();
            // Linux shows 15 characters.
            let name: String = format!("{index}:{guest_name}").chars().take(15).collect();
            let thread = thread::Builder::new()
                .name(name)
                .spawn(move || {
                    let equipped = Lane::for_this_thread()
                        .and_then(|lane| Ok((lane, Bedding::of_this_thread(ExitOnWake::Events)?)));
                    match equipped {
                        Ok((lane, bedding)) => {
                            let _ = ready.send(Ok(lane.sees_halts()));
                            let thread = Own {
                                id,
                                lane,
                                bed: sleeps,
                                bedding,
                                pool,
                                cpus,
                                pinned: Pinned::default(),
                                spent: Spent::from_now(),
                            };
                            thread.serve(&inbox);
                        }
                        Err(error) => drop(ready.send(Err(error))),
                    }
                })
                .map_err(BerthError::Thread)?;
            all.threads.push(VcpuThread {
                number: *guest,
                index: *index,
                work,
                bed,
                thread: Some(thread),
            });
            all.sees_halts &= started
                .recv()
                .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
                .map_err(BerthError::Leash)?;
        }
        Ok(all)
    }

    /// Whether halts end a run on all of them.
    pub(crate) fn see_halts(&self) -> bool {
        self.sees_halts
    }

    /// The way to let halted vCPUs sleep there. `None` where KVM cannot end a halt without
    /// delivering the interrupt.
    pub(crate) fn berths(&self, pool: &Arc<Pool>) -> Option<Arc<dyn Berths>> {
        berths::possible().then(|| {
            let bed = |thread: &VcpuThread| (thread.work.clone(), Arc::clone(&thread.bed));
            Arc::new(OwnBerths {
                beds: self.threads.iter().map(bed).collect(),
                pool: Arc::downgrade(pool),
            }) as Arc<dyn Berths>
        })
    }
}

/// Brings what sleeps on the threads back to the pool, and ends them.
impl Drop for VcpuThreads {
    fn drop(&mut self) {
        for VcpuThread {
            work, bed, thread, ..
        } in self.threads.drain(..)
        {
            bed.close();
            work.close();
            if let Some(thread) = thread {
                // A thread that panicked has said so on standard error.
                let _ = thread.join();
            }
        }
    }
}

/// The beds on the vCPUs' own threads, by policy name.
struct OwnBerths {
    beds: Vec<(Handoff<Work>, Arc<Bed>)>,
    pool: Weak<Pool>,
}

impl Berths for OwnBerths {
    fn put(&self, id: VcpuId, vcpu: Box<Vcpu>) {
        // Only a thread that has failed does not take it; the vCPU is not run again then.
        if let Err(Work::Sleep(vcpu)) = self.beds[id.index()].0.leave(Work::Sleep(vcpu))
            && let Some(pool) = self.pool.upgrade()
        {
            pool.comes_back(id, vcpu, 0);
        }
    }

    fn recall(&self, id: VcpuId) {
        self.beds[id.index()].1.recall();
    }
}

/// What a vCPU's thread has.
struct Own {
    id: VcpuId,
    lane: Lane,
    bed: Arc<Bed>,
    bedding: Bedding,
    pool: Weak<Pool>,
    /// The host CPUs where the vCPU may run.
    cpus: Vec<usize>,
    /// The one of them that the thread is pinned to.
    pinned: Pinned,
    /// Its CPU time; each report has the way to the one before and the wait for work too.
    spent: Spent,
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
        let elsewhere_ns = self.spent.report();
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
            let _prompt = prompt_for_now();
            self.bed.stay(&mut vcpu, &self.bedding)
        };
        let spent_ns = self.spent.report();
        berths::give_back(pool, self.id, vcpu, end, spent_ns);
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

    fn nap(&mut self, _: &mut Vcpu, _: Option<u64>, _: &Station) -> NapEnd {
        NapEnd::NotHere
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
