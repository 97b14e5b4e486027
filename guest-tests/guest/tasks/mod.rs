//! Tasks: several threads of control on one vCPU, each with a small stack.
//!
//! A task runs until it yields or sleeps, or, with `tick=`, until the timer preempts it
//! ([`preempt`]). Then the next ready task runs, round robin. A task never changes vCPUs, so a mutex
//! derives from its owner which vCPU must run before it can be released.
//!
//! A vCPU's run queue is a word with one bit per task. Any vCPU may set the bit of a task for which it
//! has work; only the task's own vCPU clears the bit, when the task begins to run. A bit that is set
//! while its task still runs, on the way into its sleep, is found after the task has switched away, so
//! no wake-up is lost. When the word is zero, the vCPU idles by the protocol of [`idle`], with the word
//! as the reason. A preempted task sets its own bit: its vCPU has work and waits for no other vCPU,
//! whichever other tasks sleep there.
//!
//! Both sides of a switch have preemption disabled exactly once: every entry into the scheduler
//! disables it, and the task enables it when it runs again.

mod switch;

use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize};

use crate::cpu::{Cpu, MAX_CPUS, MAX_TASKS};
use crate::{hints, idle, preempt};

/// Identifies a task: its vCPU's index times [`MAX_TASKS`], plus its number there, plus one.
pub type TaskId = u32;

/// No task.
pub const NO_TASK: TaskId = 0;

/// The code of a task, given its vCPU and its number there.
pub type Body = fn(&'static Cpu, u32);

/// What a task sleeps for, if it is known which vCPU must run before the sleep can end.
pub trait BlockedOn {
    /// Its name to the host, the hint page's `lock`.
    fn name(&self) -> u64;
    /// The vCPU that must run before `task`, which sleeps here, can go on; `None` if it is not known.
    fn ahead(&self, task: TaskId) -> Option<u32>;
}

/// A task: its saved context, and its place where it waits.
pub struct Task {
    /// Stack pointer while the task does not run.
    context: AtomicUsize,
    /// 1 from the moment at which the task queues somewhere, or sleeps there again, until it is woken.
    pub parked: AtomicU32,
    /// The next task in the wait queue; changed under the queue's lock.
    pub next: AtomicU32,
    /// The task that was last in the wait queue when this one queued.
    pub before: AtomicU32,
    /// What it sleeps for, if that names a vCPU that must run first; on the sleeping task's stack.
    blocked_on: AtomicPtr<&'static dyn BlockedOn>,
}

/// What one vCPU runs. Other vCPUs access only `ready`.
#[repr(align(64))]
struct RunQueue {
    ready: AtomicU32,
    /// Tasks that have not ended.
    alive: AtomicU32,
    /// Number of the task that runs.
    current: AtomicU32,
    /// Stack pointer of the vCPU's own context while a task runs.
    context: AtomicUsize,
    body: AtomicUsize,
    tasks: [Task; MAX_TASKS],
}

static QUEUES: [RunQueue; MAX_CPUS] = [const { RunQueue::new() }; MAX_CPUS];

impl RunQueue {
    const fn new() -> Self {
        Self {
            ready: AtomicU32::new(0),
            alive: AtomicU32::new(0),
            current: AtomicU32::new(0),
            context: AtomicUsize::new(0),
            body: AtomicUsize::new(0),
            tasks: [const { Task::new() }; MAX_TASKS],
        }
    }

    fn current(&self) -> &Task {
        &self.tasks[self.current.load(Relaxed) as usize]
    }

    /// Takes the next ready task after the one that ran last, in the order of their numbers.
    fn take_ready(&self) -> Option<u32> {
        let ready = self.ready.load(SeqCst);
        if ready == 0 {
            return None;
        }
        let first = (self.current.load(Relaxed) + 1) % MAX_TASKS as u32;
        let number = (first..MAX_TASKS as u32)
            .chain(0..first)
            .find(|&number| ready & 1 << number != 0)?;
        self.ready.fetch_and(!(1 << number), SeqCst);
        Some(number)
    }

    /// What an idle vCPU waits for: the first of its tasks that sleeps until a task of another vCPU
    /// has run, what that task sleeps for, and the other vCPU.
    fn waits_for(&self, cpu: &Cpu) -> Option<(TaskId, &dyn BlockedOn, u32)> {
        (0..).zip(&self.tasks).find_map(|(number, task)| {
            // SAFETY: null, or on the stack of the task, which goes on sleeping while this vCPU idles.
            let blocked_on = unsafe { task.blocked_on.load(Relaxed).as_ref() }?;
            let id = id(cpu, number);
            let ahead = blocked_on.ahead(id).filter(|&ahead| ahead != cpu.index())?;
            Some((id, *blocked_on, ahead))
        })
    }
}

impl Task {
    const fn new() -> Self {
        Self {
            context: AtomicUsize::new(0),
            parked: AtomicU32::new(0),
            next: AtomicU32::new(NO_TASK),
            before: AtomicU32::new(NO_TASK),
            blocked_on: AtomicPtr::new(core::ptr::null_mut()),
        }
    }
}

fn queue(cpu: &Cpu) -> &'static RunQueue {
    &QUEUES[cpu.index() as usize]
}

/// The index of a task's vCPU.
pub fn vcpu(task: TaskId) -> u32 {
    (task - 1) / MAX_TASKS as u32
}

/// A task, which must exist.
pub fn get(task: TaskId) -> &'static Task {
    &QUEUES[vcpu(task) as usize].tasks[(task - 1) as usize % MAX_TASKS]
}

/// The id of this vCPU's task with this number.
#[inline(always)]
fn id(cpu: &Cpu, number: u32) -> TaskId {
    cpu.index() * MAX_TASKS as u32 + number + 1
}

/// The task that runs on this vCPU.
#[inline(always)]
pub fn current(cpu: &Cpu) -> TaskId {
    id(cpu, queue(cpu).current.load(Relaxed))
}

/// Whether this vCPU has a task to run besides the one that runs.
#[inline(always)]
pub fn others_ready(cpu: &Cpu) -> bool {
    let queue = queue(cpu);
    queue.ready.load(Relaxed) & !(1 << queue.current.load(Relaxed)) != 0
}

/// Runs `count` tasks (at most [`MAX_TASKS`]) on this vCPU, all with this body, until all have ended.
/// Must not be called from a task.
pub fn run(cpu: &'static Cpu, count: u32, body: Body) {
    let queue = queue(cpu);
    preempt::begin(cpu, preempt_current);
    queue.body.store(body as usize, Relaxed);
    queue.alive.store(count, Relaxed);
    queue.ready.store(0, SeqCst);
    for number in 0..count {
        // SAFETY: the stack is this task's, which does not run yet.
        let context = unsafe { switch::prepare(cpu.task_stack(number as usize), begin) };
        queue.tasks[number as usize].context.store(context, Relaxed);
        queue.ready.fetch_or(1 << number, SeqCst);
    }
    while queue.alive.load(Relaxed) > 0 {
        match queue.take_ready() {
            Some(number) => {
                queue.current.store(number, Relaxed);
                preempt::start_timer(cpu);
                let task = queue.current().context.load(Relaxed);
                // SAFETY: a context of this vCPU that does not run.
                unsafe { switch::switch(queue.context.as_ptr(), task) };
            }
            None => idle(cpu, queue),
        }
    }
    preempt::end(cpu);
}

/// Idles until a task is ready, and publishes for which vCPU this one waits.
fn idle(cpu: &Cpu, queue: &RunQueue) {
    let wait = queue.waits_for(cpu);
    if hints::on()
        && let Some((_, blocked_on, ahead)) = wait
    {
        hints::sleeping(cpu, blocked_on.name(), ahead);
    }
    // The owner may have changed since. The record must be true when this vCPU idles. (The owner may
    // still change between this check and the doorbell. Then this vCPU's budget carries the former
    // owner until that stops, and the new owner is no worse off than without hints.)
    let unchanged = || {
        !hints::on()
            || wait.is_none_or(|(task, blocked_on, ahead)| blocked_on.ahead(task) == Some(ahead))
    };
    idle::sleep_while(cpu, || queue.ready.load(SeqCst) == 0 && unchanged(), 0);
    if hints::on() && wait.is_some() {
        hints::not_waiting(cpu);
    }
}

/// The first function of a task, on its own stack.
extern "C" fn begin() -> ! {
    let cpu = Cpu::current();
    let queue = queue(cpu);
    // SAFETY: stored by `run` from a `Body`.
    let body: Body = unsafe { core::mem::transmute(queue.body.load(Relaxed)) };
    preempt::enable(cpu);
    body(cpu, queue.current.load(Relaxed));
    preempt::disable();
    queue.alive.store(queue.alive.load(Relaxed) - 1, Relaxed);
    loop {
        // A task that has ended is never ready again.
        switch_to_scheduler(cpu, queue);
    }
}

/// Switches to the vCPU's own context, which chooses the next task. Preemption must be disabled.
fn switch_to_scheduler(cpu: &Cpu, queue: &RunQueue) {
    assert!(
        preempt::is_disabled_once(cpu),
        "a task switches where it must not be preempted"
    );
    // SAFETY: the vCPU's own context waits in `run`; a task runs, since only tasks call this.
    unsafe {
        switch::switch(
            queue.current().context.as_ptr(),
            queue.context.load(Relaxed),
        );
    }
}

/// Lets the other tasks of this vCPU run.
pub fn yield_now(cpu: &Cpu) {
    if others_ready(cpu) {
        preempt::with_disabled(cpu, || requeue(cpu));
    }
}

/// Puts the current task back into the run queue and switches. Preemption must be disabled.
fn requeue(cpu: &Cpu) {
    let queue = queue(cpu);
    queue
        .ready
        .fetch_or(1 << queue.current.load(Relaxed), SeqCst);
    switch_to_scheduler(cpu, queue);
}

/// Handles a tick that is due, on the stack of the task that it interrupted, which may be anywhere
/// where preemption is enabled.
fn preempt_current(cpu: &Cpu) {
    // Not by `with_disabled`, whose end would call this function again. The loop handles a tick that
    // becomes due meanwhile.
    while preempt::needs_reschedule(cpu) {
        preempt::disable();
        if others_ready(cpu) {
            cpu.stats.task_preemptions.add(1);
            requeue(cpu);
        } else {
            preempt::start_timer(cpu);
        }
        preempt::enable_without_reschedule(cpu);
    }
}

/// Sleeps until the current task, which is in a wait queue, is woken. `blocked_on` is published to the
/// host while the whole vCPU idles.
pub fn sleep(cpu: &Cpu, blocked_on: Option<&dyn BlockedOn>) {
    let queue = queue(cpu);
    let task = queue.current();
    let published = blocked_on
        .as_ref()
        .map_or(core::ptr::null(), |blocked_on| &raw const *blocked_on)
        .cast::<&'static dyn BlockedOn>();
    // A task that was preempted between the check and the switch would lose a wake-up from that time,
    // because its bit is cleared when it runs again.
    preempt::with_disabled(cpu, || {
        task.blocked_on.store(published.cast_mut(), Relaxed);
        while task.parked.load(SeqCst) != 0 {
            switch_to_scheduler(cpu, queue);
        }
        task.blocked_on.store(core::ptr::null_mut(), Relaxed);
    });
}

/// Wakes a task that sleeps or is about to, and its vCPU if that sleeps. Only one vCPU may wake the
/// task.
pub fn wake(cpu: &Cpu, task: TaskId) {
    preempt::with_disabled(cpu, || {
        get(task).parked.store(0, SeqCst);
        let (vcpu, number) = (vcpu(task), (task - 1) % MAX_TASKS as u32);
        QUEUES[vcpu as usize].ready.fetch_or(1 << number, SeqCst);
        if vcpu != cpu.index() {
            idle::wake(vcpu);
        }
    });
}
