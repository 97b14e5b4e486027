//! Guests that start again after they have ended.
//!
//! A guest is started again as a new guest of the same configuration and name: the old one leaves the pool with its
//! account, and when the host has back what it had (its disks are locked until then), the new one is created and
//! joins. Other guests of the run do not take part in that. No guest joins the run otherwise, so the bandwidth of
//! its reservations cannot go to another one in between. In a process of its own, a guest does not leave the pool at all:
//! the new one goes on where the old one was.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use baton_config::GuestConfig;
use baton_host::executor::{JoinError, JoinErrorKind};
use baton_host::runner::{ReadyGuest, VcpuAccount};
use baton_machine::console::ConsoleCount;
use baton_machine::stdin::StdinThread;
use baton_machine::{Guest, GuestEnd, GuestRecord};
use baton_os::abandon::Abandoned;
use baton_os::{say, sys};
use kvm_ioctls::Kvm;

use crate::backoff::Backoff;
use crate::error::RunError;
use crate::guests::GuestFactory;
use crate::restart_pool::RestartPool;
use crate::run_end::{RunEnd, Stopped};
use crate::starts_again::starts_again;

/// How often it is checked whether the host has back what a guest had.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// One guest of a run, through all of its starts.
struct Life {
    record: Arc<GuestRecord>,
    // Not what keeps the guest: one that has ended releases what it has of the host.
    guest: Weak<Guest>,
    /// What was counted for its vCPUs before the last start.
    earlier: Vec<VcpuAccount>,
    /// Bytes of its console that were dropped before the last two starts.
    console_dropped: u64,
    /// The console of the start before the last one, which may not have been written to its end.
    console_before: Option<ConsoleCount>,
    restarts: u32,
    /// When it started last.
    began: Instant,
    backoff: Backoff,
    phase: Phase,
}

/// What a guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It runs, or has ended, which has not been noticed here.
    Runs,
    /// It has ended, and starts again at this time.
    Waits(Instant),
    /// The same, and it has left the pool.
    Left(Instant),
    /// It has ended for good.
    Over,
}

impl Life {
    fn new(guest: &Arc<Guest>) -> Self {
        Self {
            record: Arc::clone(guest.record()),
            guest: Arc::downgrade(guest),
            earlier: Vec::new(),
            console_dropped: 0,
            console_before: None,
            restarts: 0,
            began: Instant::now(),
            backoff: Backoff::default(),
            phase: Phase::Runs,
        }
    }

    /// What is left, without the account in the pool.
    fn finish(self) -> (GuestLeft, ConsoleLeft) {
        let console = ConsoleLeft {
            dropped: self.console_dropped,
            before: self.console_before,
            last: self.record.console().count(),
        };
        let guest = GuestLeft {
            record: self.record,
            vcpus: self.earlier,
            restarts: self.restarts,
        };
        (guest, console)
    }
}

/// What is left of a guest at the end of a run.
pub(crate) struct GuestLeft {
    /// That of its last start.
    pub(crate) record: Arc<GuestRecord>,
    /// The numbers of its vCPUs, over all starts.
    pub(crate) vcpus: Vec<VcpuAccount>,
    pub(crate) restarts: u32,
}

/// What of a guest's console was not written, over all starts.
pub(crate) struct ConsoleLeft {
    dropped: u64,
    before: Option<ConsoleCount>,
    last: ConsoleCount,
}

impl ConsoleLeft {
    /// Bytes that have not been written.
    pub(crate) fn dropped(&self) -> u64 {
        let before = self.before.as_ref().map_or(0, ConsoleCount::dropped);
        self.dropped + before + self.last.dropped()
    }
}

/// The guests of a run.
pub(crate) struct Lives<'a> {
    factory: &'a GuestFactory<'a>,
    kvm: Arc<Kvm>,
    end: RunEnd,
    /// `None` where guests cannot join during a run.
    pool: Option<Box<dyn RestartPool>>,
    input: Option<StdinThread>,
    /// By the guests' numbers.
    lives: Vec<Life>,
    /// The numbers of the guests in the pool, in the order in which they joined.
    joined: Vec<usize>,
}

impl<'a> Lives<'a> {
    /// The guests of a run, before any of them has run.
    pub(crate) fn new(
        factory: &'a GuestFactory<'a>,
        kvm: Arc<Kvm>,
        end: RunEnd,
        guests: &[ReadyGuest],
    ) -> Result<Self, RunError> {
        let mut input = None;
        for (number, ready) in guests.iter().enumerate() {
            input = input.or(factory.start_input(number, &ready.guest)?);
        }
        Ok(Self {
            factory,
            kvm,
            end,
            pool: None,
            input,
            lives: guests.iter().map(|ready| Life::new(&ready.guest)).collect(),
            joined: (0..guests.len()).collect(),
        })
    }

    /// The guests run now, in this pool if it is one.
    pub(crate) fn begin(&mut self, pool: Option<Box<dyn RestartPool>>) {
        self.pool = pool;
        let now = Instant::now();
        self.lives.iter_mut().for_each(|life| life.began = now);
    }

    /// Starts the guests again for which it is time. Returns when to call this again, unless a guest ends before.
    ///
    /// # Errors
    /// If a signal has requested the end of the run meanwhile.
    pub(crate) fn tend(&mut self) -> Result<Option<Instant>, Stopped> {
        for number in 0..self.lives.len() {
            self.notice_end(number);
            self.check_restart(number);
            self.leave_if_due(number);
            self.start_if_due(number)?;
        }
        let dates = self.lives.iter().filter_map(|life| match life.phase {
            Phase::Waits(at) | Phase::Left(at) => Some(at),
            Phase::Runs | Phase::Over => None,
        });
        Ok(dates.min())
    }

    /// The guests that may still run.
    pub(crate) fn guests(&self) -> impl Iterator<Item = Arc<Guest>> {
        self.lives.iter().filter_map(|life| life.guest.upgrade())
    }

    /// What is left of the guests, and of their consoles, in the order of their numbers. `accounts` are those of the
    /// guests in the pool, in the order in which they joined.
    pub(crate) fn finish(
        self,
        accounts: Vec<Vec<VcpuAccount>>,
    ) -> (Vec<GuestLeft>, Vec<ConsoleLeft>) {
        drop(self.input);
        let left = self.lives.into_iter().map(Life::finish);
        let (mut guests, consoles): (Vec<_>, Vec<_>) = left.unzip();
        for (number, accounts) in self.joined.into_iter().zip(accounts) {
            add(&mut guests[number].vcpus, accounts);
        }
        (guests, consoles)
    }

    fn config(&self, number: usize) -> &'a GuestConfig {
        &self.factory.config.guests[number]
    }

    /// If the guest has ended, decides whether it starts again, and when.
    fn notice_end(&mut self, number: usize) {
        let config = self.config(number);
        let life = &mut self.lives[number];
        let Some(end) = life.record.ended() else {
            return;
        };
        if life.phase != Phase::Runs {
            return;
        }
        let may_restart = self.factory.may_restart(config);
        let Some(pool) = self.pool.as_ref().filter(|_| may_restart) else {
            return self.end_input(number);
        };
        if starts_again(config, &end) && pool.can_restart() {
            pool.ended(&life.record, &end);
            let wait = match end {
                // Somebody waits for it.
                GuestEnd::ResetByRequest => Duration::ZERO,
                _ => life.backoff.wait_after(life.began.elapsed()),
            };
            life.phase = Phase::Waits(Instant::now() + wait);
        } else {
            self.end_input(number);
            self.give_up(number);
        }
    }

    /// A guest that waits for its next start may not start any more.
    fn check_restart(&mut self, number: usize) {
        let waits = matches!(self.lives[number].phase, Phase::Waits(_) | Phase::Left(_));
        if waits && self.pool.as_ref().is_some_and(|pool| !pool.can_restart()) {
            self.give_up(number);
        }
    }

    /// Ends the thread of standard input if it is that of guest `number`: it has a reference to the guest.
    fn end_input(&mut self, number: usize) {
        if self.factory.has_stdin(number) {
            self.input = None;
        }
    }

    fn leave_if_due(&mut self, number: usize) {
        let life = &mut self.lives[number];
        let (Phase::Waits(at), Some(pool)) = (life.phase, &self.pool) else {
            return;
        };
        if at > Instant::now() {
            return;
        }
        match pool.leave(&life.record.name) {
            Ok(account) => {
                if let Some(vcpus) = account {
                    add(&mut life.earlier, vcpus);
                    self.joined.retain(|joined| *joined != number);
                }
                let console = life.record.console().count();
                let before = life.console_before.replace(console);
                life.console_dropped += before.map_or(0, |console| console.dropped());
                life.phase = Phase::Left(at);
                self.end_input(number);
            }
            Err(error) => {
                say!("baton: {error}");
                self.give_up(number);
            }
        }
    }

    fn start_if_due(&mut self, number: usize) -> Result<(), Stopped> {
        let life = &mut self.lives[number];
        let now = Instant::now();
        match life.phase {
            Phase::Left(at) if at <= now => {}
            _ => return Ok(()),
        }
        if !life.record.is_released() {
            life.phase = Phase::Left(now + CHECK_INTERVAL);
            return Ok(());
        }
        let error = match self.start(number) {
            Ok(()) => return Ok(()),
            Err(RunError::Abandoned(Abandoned::Stopped)) => return Err(Stopped),
            Err(error) => error,
        };
        let life = &mut self.lives[number];
        let next = free_at(&error).unwrap_or_else(|| {
            say!(
                "baton: {} does not start again yet: {error}",
                life.record.name
            );
            Instant::now() + life.backoff.wait_after(Duration::ZERO)
        });
        life.phase = Phase::Left(next);
        Ok(())
    }

    /// Creates the guest anew, and has it join.
    fn start(&mut self, number: usize) -> Result<(), RunError> {
        let restarts = self.lives[number].restarts + 1;
        let ready = self
            .factory
            .create_one(&self.kvm, number, restarts, &self.end)?;
        let (record, guest) = (
            Arc::clone(ready.guest.record()),
            Arc::downgrade(&ready.guest),
        );
        let input = self.factory.start_input(number, &ready.guest)?;
        if let Some(pool) = &self.pool {
            pool.join(ready)?;
        }
        if input.is_some() {
            self.input = input;
        }
        let life = &mut self.lives[number];
        life.record = record;
        life.guest = guest;
        life.restarts = restarts;
        life.began = Instant::now();
        life.phase = Phase::Runs;
        if !self.joined.contains(&number) {
            self.joined.push(number);
        }
        Ok(())
    }

    /// The guest does not start again.
    fn give_up(&mut self, number: usize) {
        self.lives[number].phase = Phase::Over;
        if self
            .factory
            .config
            .awaited()
            .any(|awaited| awaited == number)
        {
            self.end.count();
        }
    }
}

/// When the bandwidth for which a guest could not join is free. That of its own reservations is in use for a moment
/// after it has ended, so that it gets no burst.
fn free_at(error: &RunError) -> Option<Instant> {
    let RunError::Join(JoinError { kind, .. }) = error else {
        return None;
    };
    let JoinErrorKind::Admission { retry_at, .. } = kind else {
        return None;
    };
    let wait = (*retry_at)?.saturating_sub(sys::monotonic_ns());
    Some(Instant::now() + Duration::from_nanos(wait).max(CHECK_INTERVAL))
}

/// Adds to `sum` what was counted for the same vCPUs.
fn add(sum: &mut Vec<VcpuAccount>, more: Vec<VcpuAccount>) {
    if sum.is_empty() {
        *sum = more;
        return;
    }
    for (sum, more) in sum.iter_mut().zip(more) {
        sum.add(&more);
    }
}
