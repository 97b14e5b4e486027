//! Where a halted vCPU of another process is for the pool: on its thread, with the command to sleep.
//!
//! The process reports a wake through its wake file, and whoever receives that report checks all vCPUs of the guest that
//! sleep. An executor that has nothing to run waits for the answers themselves (`watched_sleepers.rs`), and checks those
//! vCPUs.
//!
//! | the slot | begin | interrupt | the vCPU has answered | close |
//! |---|---|---|---|---|
//! | empty | commands the sleep; asleep | interrupted | | closed |
//! | interrupted | the vCPU goes back to the pool; empty. The first time: commands the sleep and kicks; asleep | interrupted | | closed |
//! | asleep | | kicks the vCPU's thread; asleep | the vCPU goes back to the pool; empty | the same; closed |
//! | closed | the vCPU goes back to the pool; closed | closed | | closed |
//!
//! A vCPU whose guest has ended is not waited for: an interrupt takes it back to the pool at once. Its thread may
//! have the command to sleep still. That is stopped when it has answered, whatever is in the slot.

use std::sync::{Arc, Weak};

use baton_link::LinkError;
use baton_link::answer_watch::AnswerWatch;
use baton_link::command::Command;
use baton_link::join::VcpuKick;
use baton_link::pool_side::PoolSide;
use baton_os::sys;

use super::foreign_guest::ForeignGuest;
use super::foreign_vcpu::{ForeignSleep, ForeignVcpu};
use super::interrupt_sleep::InterruptSleep;
use super::owned_vcpu::OwnedVcpu;
use super::pool::Pool;
use crate::sync::Mutex;

/// Where one vCPU sleeps.
pub(super) struct ForeignSlot {
    guest: Arc<ForeignGuest>,
    kick: Arc<VcpuKick>,
    pool: Weak<Pool>,
    state: Mutex<SlotState>,
    /// The side of a vCPU that nothing runs any more, until its thread has answered the last command.
    stopping: Mutex<Option<PoolSide>>,
}

/// What is in a slot.
enum SlotState {
    Empty,
    /// The next sleep is to end at once.
    Interrupted,
    /// The vCPU sleeps.
    Asleep(Box<ForeignVcpu>),
    /// The guest leaves, or the pool ends.
    Closed,
}

impl SlotState {
    /// Takes the vCPU, if it sleeps.
    fn take(&mut self) -> Option<Box<ForeignVcpu>> {
        match std::mem::replace(self, Self::Empty) {
            Self::Asleep(vcpu) => Some(vcpu),
            other => {
                *self = other;
                None
            }
        }
    }
}

impl ForeignSlot {
    pub(super) fn new(guest: &Arc<ForeignGuest>, kick: &Arc<VcpuKick>, pool: Weak<Pool>) -> Self {
        Self {
            guest: Arc::clone(guest),
            kick: Arc::clone(kick),
            pool,
            state: Mutex::new(SlotState::Empty),
            stopping: Mutex::default(),
        }
    }

    /// Commands the thread of a vCPU that nothing runs to stop, if it has answered.
    fn check_stopping(&self) {
        let mut stopping = self.stopping.lock();
        let Some(side) = &mut *stopping else { return };
        if let Err(LinkError::Unanswered(_)) = side.give(&Command::Stop) {
            match side.take_answer() {
                Ok(None) => return,
                // A process that has failed or is gone needs no command.
                Ok(Some(_)) => drop(side.give(&Command::Stop)),
                Err(_) => {}
            }
        }
        *stopping = None;
    }

    /// The vCPU does not sleep any more. If it has failed, so has its guest.
    fn give_back(&self, mut vcpu: Box<ForeignVcpu>, result: Result<(), LinkError>) {
        if let Err(error) = result {
            self.guest.fail(&error);
        }
        let spent = vcpu.take_ran();
        if let Some(pool) = self.pool.upgrade() {
            pool.end_sleep(OwnedVcpu::Foreign(vcpu), spent);
        }
    }
}

impl InterruptSleep for ForeignSlot {
    fn interrupt_sleep(&self) {
        let mut state = self.state.lock();
        let has_ended = self.guest.record().has_ended();
        let taken = match &*state {
            SlotState::Asleep(_) if has_ended => state.take(),
            SlotState::Asleep(_) => None,
            SlotState::Empty => {
                *state = SlotState::Interrupted;
                return;
            }
            SlotState::Interrupted | SlotState::Closed => return,
        };
        drop(state);
        // A kick that comes late costs a needless exit.
        self.kick.kick(sys::monotonic_ns());
        if let Some(vcpu) = taken {
            self.give_back(vcpu, Ok(()));
        }
    }
}

impl ForeignSleep for ForeignSlot {
    fn begin_sleep(&self, mut vcpu: Box<ForeignVcpu>) {
        let mut state = self.state.lock();
        // One that has not answered yet may not be attended to by its thread, and no executor is to find that out.
        let is_first = !vcpu.has_answered();
        let sleeps = match *state {
            SlotState::Empty => true,
            SlotState::Interrupted => is_first,
            SlotState::Asleep(_) | SlotState::Closed => false,
        };
        let sleeps = sleeps && !vcpu.has_ended();
        let begun = match sleeps {
            true => vcpu.command_sleep().map(|()| true),
            false => Ok(false),
        };
        if let Ok(true) = begun {
            let before = std::mem::replace(&mut *state, SlotState::Asleep(vcpu));
            drop(state);
            if let SlotState::Interrupted = before {
                self.kick.kick(sys::monotonic_ns());
            }
            return;
        }
        if let SlotState::Interrupted = *state {
            *state = SlotState::Empty;
        }
        drop(state);
        self.give_back(vcpu, begun.map(drop));
    }

    fn watch(&self) -> Option<AnswerWatch> {
        match &*self.state.lock() {
            SlotState::Asleep(vcpu) => vcpu.watch(),
            _ => None,
        }
    }

    fn check_woken(&self) -> bool {
        self.check_stopping();
        let mut state = self.state.lock();
        let SlotState::Asleep(vcpu) = &mut *state else {
            return false;
        };
        let result = match vcpu.take_woken() {
            Ok(None) => return false,
            Ok(Some(_)) => Ok(()),
            Err(error) => Err(error),
        };
        let taken = state.take();
        drop(state);
        if let Some(vcpu) = taken {
            self.give_back(vcpu, result);
        }
        true
    }

    fn check_asleep(&self) {
        let mut state = self.state.lock();
        let SlotState::Asleep(vcpu) = &mut *state else {
            return;
        };
        let spent = vcpu.take_ran();
        let index = vcpu.index();
        let result = vcpu.check_ran(spent, 0, sys::monotonic_ns());
        let taken = match result {
            Ok(()) => None,
            Err(_) => state.take(),
        };
        drop(state);
        if let Some(pool) = self.pool.upgrade() {
            pool.charge_rest(self.guest.record(), index, spent);
        }
        if let Some(vcpu) = taken {
            self.give_back(vcpu, result);
        }
    }

    fn close(&self) {
        let closed = std::mem::replace(&mut *self.state.lock(), SlotState::Closed);
        if let SlotState::Asleep(vcpu) = closed {
            self.kick.kick(sys::monotonic_ns());
            self.give_back(vcpu, Ok(()));
        }
    }

    fn stop(&self, side: PoolSide) {
        *self.stopping.lock() = Some(side);
        self.check_stopping();
    }

    fn forget(&self) {
        self.close();
        *self.stopping.lock() = None;
    }
}
