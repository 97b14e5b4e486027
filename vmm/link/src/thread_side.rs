//! The side of the vCPU's thread, in the guest's process.
//!
//! | the thread | command's number in the page | what it means | next |
//! |---|---|---|---|
//! | has answered command n | n | the pool has the vCPU | wait |
//! | has answered command n | n + 1, and the command makes sense | the vCPU is the thread's | does it, then [`ThreadSide::answer`] |
//! | has answered command n | n + 1, and the command makes no sense | the pool is broken | failed |
//! | has answered command n | any other | the pool is broken | failed |
//! | any | any, the control socket is closed | the pool is gone | run on under the host's scheduler |
//!
//! A pool that is gone is noticed at the next wait. The run that it commanded ends at its own time.

use crate::answer::Answer;
use crate::answer_watch;
use crate::command::{Command, CommandKind};
use crate::error::{LinkError, ProtocolError};
use crate::hangup::Hangup;
use crate::number::{CommandNumber, GONE};
use crate::pages::{GuestPages, PageRef};
use crate::sync::Arc;
use crate::sync::atomic::Ordering::Relaxed;
use crate::vcpu_index::VcpuIndex;

/// A vCPU whose pool is another process, for the vCPU's thread.
#[derive(Debug)]
pub struct ThreadSide {
    page: PageRef,
    place: VcpuIndex,
    pool: Arc<Hangup>,
    /// The last command that was read.
    number: CommandNumber,
    state: State,
    /// Whether an executor waited for the last answer.
    was_watched: bool,
}

/// A step of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerStep {
    /// The answer stands in the page, and the vCPU is the thread's still.
    Written,
    /// The vCPU is the pool's.
    Published,
    /// The executor that waits is awake.
    Notified,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The pool has the vCPU.
    Away,
    /// The thread has the vCPU, for this.
    Commanded(CommandKind),
    Failed(LinkError),
}

impl ThreadSide {
    fn new(page: PageRef, place: VcpuIndex, pool: Arc<Hangup>) -> Self {
        Self {
            page,
            place,
            pool,
            number: CommandNumber::default(),
            state: State::Away,
            was_watched: false,
        }
    }

    /// Waits for the next command.
    ///
    /// # Errors
    /// [`LinkError::Gone`] if the pool is gone, [`LinkError::Unanswered`] if the last command has not been
    /// answered. Others: the pool has broken the protocol.
    pub fn wait(&mut self) -> Result<Command, LinkError> {
        loop {
            if let Some(command) = self.take_command()? {
                return Ok(command);
            }
            // Without a time: the mark of a pool that is gone stays, unless the pool gives another command.
            let word = &self.page.command.number;
            word.wait(self.number.raw(), None);
        }
    }

    fn take_command(&mut self) -> Result<Option<Command>, LinkError> {
        match self.state {
            State::Away if self.pool.is_gone() => return Err(self.fail(LinkError::Gone)),
            State::Away => {}
            State::Commanded(kind) => return Err(LinkError::Unanswered(kind)),
            State::Failed(error) => return Err(error),
        }
        let found = self.page.command.number.load();
        if found == self.number.raw() {
            return Ok(None);
        }
        let next = self.number.next();
        if found & GONE != 0 {
            return Err(self.fail(LinkError::Gone));
        }
        if found != next.raw() {
            let (actual, expected) = (found, next.raw());
            let error = ProtocolError::Number { actual, expected };
            return Err(self.fail(error.into()));
        }
        match Command::read(&self.page.command, self.place.of) {
            Ok(command) => {
                self.number = next;
                self.state = State::Commanded(command.kind());
                Ok(Some(command))
            }
            Err(error) => Err(self.fail(ProtocolError::from(error).into())),
        }
    }

    /// Whether the command is to end early. To be checked after the kick signal was directed at the vCPU,
    /// before each entry into the guest.
    #[must_use]
    pub fn is_kicked(&self) -> bool {
        self.page.command.kicked.load(Relaxed) == self.number.raw()
    }

    /// Whether an executor waits for the vCPU at the moment.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        answer_watch::is_watched(&self.page.command.watched)
    }

    /// Whether an executor waited for the last answer. If not, that to a sleep has to be reported.
    #[must_use]
    pub fn was_watched(&self) -> bool {
        self.was_watched
    }

    /// Gives the vCPU back to the pool.
    ///
    /// # Errors
    /// [`LinkError::NoCommand`] if the pool has the vCPU.
    pub fn answer(&mut self, answer: &Answer) -> Result<(), LinkError> {
        self.answer_in_steps(answer, |_| {})
    }

    /// The same, with a call of `after` after each step, for tests in which the process ends there.
    pub(crate) fn answer_in_steps(
        &mut self,
        answer: &Answer,
        after: impl Fn(AnswerStep),
    ) -> Result<(), LinkError> {
        match self.state {
            State::Commanded(_) => {}
            State::Away => return Err(LinkError::NoCommand),
            State::Failed(error) => return Err(error),
        }
        answer.write(&self.page.answer);
        after(AnswerStep::Written);
        self.state = State::Away;
        self.page.answer.number.store(self.number.raw());
        after(AnswerStep::Published);
        // Before the executor is woken, which ends its watch at once.
        self.was_watched = self.is_watched();
        // All: an executor that watched this vCPU may not have left its wait yet when another one runs it.
        self.page.answer.number.wake_all();
        after(AnswerStep::Notified);
        Ok(())
    }

    fn fail(&mut self, error: LinkError) -> LinkError {
        self.state = State::Failed(error);
        error
    }
}

/// The guest's side of its pool: notices for all vCPUs' threads that the pool is gone.
#[derive(Debug)]
pub struct GuestPoolLink {
    pages: GuestPages,
    pool: Arc<Hangup>,
}

impl GuestPoolLink {
    /// The link of a guest with these `pages` to its pool.
    #[must_use]
    pub fn new(pages: GuestPages) -> Self {
        let pool = Arc::default();
        Self { pages, pool }
    }

    /// The sides of all vCPUs' threads, in their order. To be called once.
    #[must_use]
    pub fn vcpus(&self) -> Vec<ThreadSide> {
        let of = self.pages.count();
        let side = |(index, page): (u32, &PageRef)| {
            ThreadSide::new(
                page.clone(),
                VcpuIndex { index, of },
                Arc::clone(&self.pool),
            )
        };
        (0..).zip(self.pages.iter()).map(side).collect()
    }

    /// A number that changes about once a second as long as the pool works; 0: the pool does not show that.
    #[must_use]
    pub fn beats(&self) -> u32 {
        let first = self.pages.iter().next();
        first.map_or(0, |page| page.command.beats.load(Relaxed))
    }

    /// The control socket is closed: all threads that wait for a command get [`LinkError::Gone`].
    pub fn hang_up(&self) {
        self.pool
            .set(self.pages.iter().map(|page| &page.command.number));
    }
}
