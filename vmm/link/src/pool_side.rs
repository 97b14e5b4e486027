//! The pool's side of a vCPU whose thread is in another process.
//!
//! Who owns the vCPU follows from two numbers: after a command the thread owns it, after the answer with the
//! same number the pool does. The pool keeps both in its own memory, and believes the page only as far as
//! this table goes:
//!
//! | the pool | answer's number in the page | what it means | next |
//! |---|---|---|---|
//! | has the vCPU | not read | | [`PoolSide::give`] |
//! | has given command n | n - 1 | the thread runs or sleeps | wait |
//! | has given command n | n, and the answer makes sense | the thread is back | has the vCPU |
//! | has given command n | n, and the answer makes no sense | the process lied | failed |
//! | has given command n | any other | the process lied | failed |
//! | has given command n | any, the control socket is closed | the process is gone | failed |
//! | has given command n | n - 1, later than the bound | overdue: the process has to be stopped | wait for its end |
//! | failed | not read | | nothing: each call returns the error |
//!
//! An answer that is complete when the process dies is still taken.

use std::time::Duration;

use vcpu_sched::Ns;

use crate::answer::Answer;
use crate::answer_watch::AnswerWatch;
use crate::command::{Command, CommandKind};
use crate::error::{LinkError, ProtocolError};
use crate::hangup::Hangup;
use crate::kick_record::KickRecord;
use crate::number::{CommandNumber, GONE};
use crate::pages::{GuestPages, PageRef};
use crate::sync::Arc;
use crate::sync::atomic::AtomicU32;
use crate::sync::atomic::Ordering::Relaxed;
use crate::vcpu_index::VcpuIndex;

/// Wake-ups without an answer that one wait accepts. A signal causes one of them, too, and a process that
/// causes more only wastes the pool's time.
const MAX_WAKEUPS: u32 = 1_000;

/// How long the pool waits for a vCPU's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitLimits {
    /// The end of the run that was commanded, `CLOCK_MONOTONIC` ns.
    pub until: Option<Ns>,
    /// How much later than that, or than a kick, the thread may answer, ns.
    pub bound: Ns,
    /// How often the pool checks whether a kick has come or the process is gone, ns. The end of a process is
    /// noticed at once if the process has kept to the protocol.
    pub check_every: Ns,
}

/// A vCPU whose thread is in another process, for the one place in the pool that owns the vCPU.
#[derive(Debug)]
pub struct PoolSide {
    page: PageRef,
    place: VcpuIndex,
    peer: Arc<Hangup>,
    kicks: Arc<KickRecord>,
    /// The last command.
    number: CommandNumber,
    /// The last command that was answered.
    answered: CommandNumber,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The pool has the vCPU.
    Here,
    /// The thread has the vCPU, and does this.
    Given(CommandKind),
    Failed(LinkError),
}

impl PoolSide {
    fn new(page: PageRef, place: VcpuIndex, peer: Arc<Hangup>) -> Self {
        Self {
            page,
            place,
            peer,
            kicks: Arc::default(),
            number: CommandNumber::default(),
            answered: CommandNumber::default(),
            state: State::Here,
        }
    }

    /// Hands the vCPU to its thread, and wakes that thread.
    ///
    /// # Errors
    /// [`LinkError::Gone`] if the process is gone, [`LinkError::Unanswered`] if the thread has the vCPU, and
    /// the error by which an earlier call failed.
    pub fn give(&mut self, command: &Command) -> Result<(), LinkError> {
        match self.state {
            State::Here if self.peer.is_gone() => return Err(self.fail(LinkError::Gone)),
            State::Here => {}
            State::Given(kind) => return Err(LinkError::Unanswered(kind)),
            State::Failed(error) => return Err(error),
        }
        let number = self.number.next();
        command.write(&self.page.command);
        self.kicks.begin(number);
        self.number = number;
        self.state = State::Given(command.kind());
        self.page.command.number.store(number.raw());
        self.page.command.number.wake();
        Ok(())
    }

    /// Waits until the thread gives the vCPU back. `now` returns `CLOCK_MONOTONIC` ns.
    ///
    /// # Errors
    /// [`LinkError::Overdue`] if the thread is later than `limits` permit; the caller stops the process and
    /// waits again. Any other error is final.
    pub fn wait(&mut self, limits: &WaitLimits, now: impl Fn() -> Ns) -> Result<Answer, LinkError> {
        self.wait_and_check(limits, now, || {})
    }

    /// The same, with a call of `check` whenever the thread was waited for as long as
    /// [`WaitLimits::check_every`].
    ///
    /// # Errors
    /// As [`PoolSide::wait`].
    pub fn wait_and_check(
        &mut self,
        limits: &WaitLimits,
        now: impl Fn() -> Ns,
        mut check: impl FnMut(),
    ) -> Result<Answer, LinkError> {
        let mut wakeups = 0;
        loop {
            if let Some(answer) = self.take_answer()? {
                return Ok(answer);
            }
            let timeout = self.timeout(limits, now())?;
            let last = self.answered.raw();
            if self.page.answer.number.wait(last, Some(timeout)) {
                wakeups += 1;
            } else {
                check();
            }
            if wakeups > MAX_WAKEUPS && self.page.answer.number.load() == last {
                return Err(self.fail(ProtocolError::Wakeups(wakeups).into()));
            }
        }
    }

    /// The answer, if the thread has given the vCPU back. Does not wait.
    ///
    /// # Errors
    /// If the process is gone or has broken the protocol.
    pub fn take_answer(&mut self) -> Result<Option<Answer>, LinkError> {
        let kind = match self.state {
            State::Given(kind) => kind,
            State::Here => return Err(LinkError::NoCommand),
            State::Failed(error) => return Err(error),
        };
        let found = self.page.answer.number.load();
        let (actual, expected) = (found & !GONE, self.number.raw());
        if actual == expected {
            return match Answer::read(&self.page.answer, kind, self.place) {
                Ok(answer) => {
                    self.kicks.end();
                    self.answered = self.number;
                    self.state = State::Here;
                    Ok(Some(answer))
                }
                Err(error) => Err(self.fail(ProtocolError::from(error).into())),
            };
        }
        if self.peer.is_gone() {
            return Err(self.fail(LinkError::Gone));
        }
        // Only this process sets the bit, and it sets the flag before.
        if found != self.answered.raw() {
            let error = ProtocolError::Number { actual, expected };
            return Err(self.fail(error.into()));
        }
        Ok(None)
    }

    /// Waits for the answer of a vCPU that sleeps, together with other vCPUs. `None`: it does not sleep.
    #[must_use]
    pub fn watch(&self) -> Option<AnswerWatch> {
        let sleeps = matches!(self.state, State::Given(CommandKind::Sleep));
        sleeps.then(|| AnswerWatch::begin(self.page.clone(), self.answered))
    }

    /// The way by which other threads kick this vCPU.
    #[must_use]
    pub fn kicker(&self) -> VcpuKicker {
        VcpuKicker {
            page: self.page.clone(),
            kicks: Arc::clone(&self.kicks),
        }
    }

    /// How long to sleep at the time `now`.
    fn timeout(&self, limits: &WaitLimits, now: Ns) -> Result<Duration, LinkError> {
        let times = [limits.until, self.kicks.kicked_at()];
        let due = times.into_iter().flatten().min();
        let Some(due) = due.map(|due| due.saturating_add(limits.bound)) else {
            return Ok(Duration::from_nanos(limits.check_every));
        };
        if now >= due {
            let late_ns = now - due;
            return Err(LinkError::Overdue { late_ns });
        }
        Ok(Duration::from_nanos((due - now).min(limits.check_every)))
    }

    fn fail(&mut self, error: LinkError) -> LinkError {
        self.kicks.end();
        self.state = State::Failed(error);
        error
    }
}

/// Ends the command of a vCPU early.
#[derive(Clone, Debug)]
pub struct VcpuKicker {
    page: PageRef,
    kicks: Arc<KickRecord>,
}

impl VcpuKicker {
    /// Records a kick at the time `now`, `CLOCK_MONOTONIC` ns. True: the caller has to signal the thread.
    /// False: there is nothing to end, or another kick does that.
    #[must_use]
    pub fn kick(&self, now: Ns) -> bool {
        self.kicks.kick(now, &self.page.command.kicked)
    }
}

/// The pool's side of a guest: notices for all of its vCPUs that its process is gone.
#[derive(Debug)]
pub struct PoolGuestLink {
    pages: GuestPages,
    peer: Arc<Hangup>,
    beats: AtomicU32,
}

impl PoolGuestLink {
    /// The link to a guest with these `pages`.
    #[must_use]
    pub fn new(pages: GuestPages) -> Self {
        Self {
            pages,
            peer: Arc::default(),
            beats: AtomicU32::default(),
        }
    }

    /// Shows the guest's process that the pool works. Once this has been called, it is to be called about once a
    /// second.
    pub fn beat(&self) {
        // Counted in the pool's own memory, because the process can write the word.
        let beats = self.beats.fetch_add(1, Relaxed).wrapping_add(1).max(1);
        if let Some(first) = self.pages.iter().next() {
            first.command.beats.store(beats, Relaxed);
        }
    }

    /// The pool's sides of all vCPUs, in their order. To be called once.
    #[must_use]
    pub fn vcpus(&self) -> Vec<PoolSide> {
        let of = self.pages.count();
        let side = |(index, page): (u32, &PageRef)| {
            PoolSide::new(
                page.clone(),
                VcpuIndex { index, of },
                Arc::clone(&self.peer),
            )
        };
        (0..).zip(self.pages.iter()).map(side).collect()
    }

    /// The control socket is closed: all who wait for a vCPU of the guest get [`LinkError::Gone`].
    pub fn hang_up(&self) {
        self.peer
            .set(self.pages.iter().map(|page| &page.answer.number));
    }
}
