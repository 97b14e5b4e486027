//! Kicks of one vCPU: which command they are to end early, and since when.
//!
//! ```text
//!   kicker                                      the vCPU's thread
//!   a. which command is in force? none: done    1. read the command and its number
//!   b. page: kicked = that number               2. direct the kick signal at this vCPU
//!   c. signal the thread                        3. kicked = number? answer without entering
//!                                               4. KVM_RUN; after each signal go to 3
//! ```
//!
//! A kick before step 3 is seen there; one after step 2 finds the vCPU that the signal's handler has to stop.
//! A signal that comes late, for a command that has been answered, costs one needless exit, because the
//! number in the page is not that of the next command. Steps a and b are one under the lock: a kicker that
//! was slow between them would write an old number over that of the next kick.

use vcpu_sched::Ns;

use crate::number::CommandNumber;
use crate::sync::Mutex;
use crate::sync::atomic::AtomicU32;
use crate::sync::atomic::Ordering::Relaxed;

/// A command in force, and when it was kicked first, ns.
#[derive(Clone, Copy, Debug)]
struct InForce {
    number: CommandNumber,
    kicked_at: Option<Ns>,
}

/// Which command of a vCPU is in force, in the pool's own memory.
#[derive(Debug, Default)]
pub(crate) struct KickRecord(Mutex<Option<InForce>>);

impl KickRecord {
    /// The command `number` is in force from now on.
    pub(crate) fn begin(&self, number: CommandNumber) {
        let kicked_at = None;
        *self.0.lock() = Some(InForce { number, kicked_at });
    }

    /// The command has been answered.
    pub(crate) fn end(&self) {
        *self.0.lock() = None;
    }

    /// Records a kick at the time `now`, ns, and writes the number of the command in force to `kicked`. False:
    /// there is no such command, or it has been kicked already.
    pub(crate) fn kick(&self, now: Ns, kicked: &AtomicU32) -> bool {
        let mut in_force = self.0.lock();
        match in_force.as_mut() {
            Some(command) if command.kicked_at.is_none() => {
                command.kicked_at = Some(now);
                kicked.store(command.number.raw(), Relaxed);
                true
            }
            _ => false,
        }
    }

    /// When the command in force was kicked first, ns.
    pub(crate) fn kicked_at(&self) -> Option<Ns> {
        self.0.lock().and_then(|command| command.kicked_at)
    }
}
