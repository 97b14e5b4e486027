//! Guests that start again after they have ended.
//!
//! A guest is started again as a new guest of the same configuration and name: the old one leaves the pool with its
//! account, and when the host has back what it had (its disks are locked until then), the new one is created and
//! joins. Other guests of the run do not take part in that. No guest joins the run otherwise, so the bandwidth of
//! its reservations cannot go to another one in between.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use baton_config::{GuestConfig, OnReboot, RestartPolicy};
use baton_host::executor::{JoinError, JoinErrorKind, PoolHandle};
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
use crate::run_end::{RunEnd, Stopped};

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
    pool: Option<PoolHandle>,
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
    pub(crate) fn begin(&mut self, pool: Option<PoolHandle>) {
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
        if !config.may_restart() || self.pool.is_none() {
            return self.end_input(number);
        }
        if starts_again(config, &end) {
            let wait = life.backoff.wait_after(life.began.elapsed());
            life.phase = Phase::Waits(Instant::now() + wait);
        } else {
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
                add(&mut life.earlier, account.vcpus);
                let console = life.record.console().count();
                let before = life.console_before.replace(console);
                life.console_dropped += before.map_or(0, |console| console.dropped());
                life.phase = Phase::Left(at);
                self.joined.retain(|joined| *joined != number);
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
            pool.join(ready)
                .map_err(|refused| RunError::Join(refused.error))?;
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
        self.joined.push(number);
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

/// Whether a guest of `config` that ended as `end` starts again.
fn starts_again(config: &GuestConfig, end: &GuestEnd) -> bool {
    if end.is_reset() && config.on_reboot == OnReboot::Restart {
        return true;
    }
    match config.restart {
        RestartPolicy::Never => false,
        RestartPolicy::OnFailure => !end.is_success(),
        RestartPolicy::Always => !end.is_by_request(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn after(on_reboot: OnReboot, restart: RestartPolicy) -> [bool; 5] {
        let config = GuestConfig {
            on_reboot,
            restart,
            ..GuestConfig::new("guest")
        };
        [
            GuestEnd::Reset,
            GuestEnd::TripleFault { vcpu: 0 },
            GuestEnd::Exited(1),
            GuestEnd::Exited(0),
            GuestEnd::PoweredOff,
        ]
        .map(|end| starts_again(&config, &end))
    }

    #[test]
    fn the_way_in_which_a_guest_ended_decides_whether_it_starts_again() {
        use OnReboot::{End, Restart};
        use RestartPolicy::{Always, Never, OnFailure};
        assert_eq!(after(End, Never), [false; 5]);
        assert_eq!(after(Restart, Never), [true, true, false, false, false]);
        assert_eq!(after(End, OnFailure), [false, true, true, false, false]);
        assert_eq!(after(Restart, OnFailure), [true, true, true, false, false]);
        assert_eq!(after(End, Always), [true, true, true, true, false]);
    }
}
