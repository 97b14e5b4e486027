//! The messages on the control socket, as JSON. One packet is one message.
//!
//! ```text
//!   guest's process                          pool
//!   hello (protocol) ─────────────────────>
//!                    <───────────────────── welcome, or refused
//!   join, with the pages' memory file ────>
//!                    <───────────────────── admitted, with the file by which wakes are reported, or refused
//!   change ───────────────────────────────>
//!                    <───────────────────── changed, or refused
//!   hints, restarting, restarted ─────────>
//!                    <───────────────────── claims, paused
//!   leave ────────────────────────────────>
//!                    <───────────────────── counted
//!                    <───────────────────── order, or going away (at any time)
//! ```
//!
//! Types of this module only have the form of what was received. [`JoinRequest::check`] and
//! [`Change::check`] turn them into what the policy takes, or refuse them.

use serde::{Deserialize, Serialize};
use vcpu_sched::{Exhaustion, MAX_CPUS, Ns, Reservation, ReservationError, SchedParams};

use crate::counted::CountedVcpus;
use crate::pages::MAX_VCPUS;

/// The version of these messages.
pub const PROTOCOL: u32 = 2;
/// The longest name of a guest, bytes.
pub const MAX_NAME: usize = 64;
/// The longest text about the source of a guest's hints, bytes.
pub const MAX_HINTS: usize = 64;
/// The longest text about the end of a guest, bytes.
pub const MAX_END: usize = 1024;
/// The longest path, bytes.
pub const MAX_PATH: usize = 4096;
/// The largest weight of a guest.
pub const MAX_WEIGHT: u32 = 10_000;

/// What a guest's process sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum GuestMessage {
    /// The first message.
    Hello {
        /// [`PROTOCOL`] of the sender.
        protocol: u32,
    },
    /// The guest is to be run by the pool. The packet has the memory file with the pages.
    Join(JoinRequest),
    /// The guest is to get another share of the pool.
    Change(Change),
    /// Where the guest's hints come from has changed.
    Hints {
        /// The words of the summary and of the metrics, at most [`MAX_HINTS`] bytes.
        source: String,
    },
    /// The guest has ended, and is to start again in the same process. It stays in the pool, with all that it has
    /// there. Its vCPUs halt until then; those that are idle have to run once, so that their threads release them.
    Restarting(GuestEnded),
    /// The guest has started again.
    Restarted {
        /// How often so far.
        restarts: u32,
    },
    /// The guest has ended, and leaves. The pool answers all of its vCPUs' pages with a stop, and this by
    /// [`PoolMessage::Counted`].
    Leave(GuestEnded),
}

/// What the pool sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PoolMessage {
    /// The pool knows the protocol.
    Welcome {
        /// [`PROTOCOL`] of the pool.
        protocol: u32,
    },
    /// The guest is run from now on. The packet has the file by which its process reports wakes.
    Admitted {
        /// The guest's number in the pool.
        guest: u64,
    },
    /// On these host CPUs vCPUs have a priority while they have the command to run, from now on. An ordinary thread may
    /// have to wait there for a second, so the guest's other threads are better off elsewhere.
    Priority(Vec<usize>),
    /// The change is in force.
    Changed,
    /// The request was refused, and nothing has changed.
    Refused {
        /// One sentence with the cause.
        reason: String,
        /// What would be granted instead, as a sentence, if that is known.
        would_fit: Option<String>,
    },
    /// Somebody who may do so has changed what the guest has in the pool: the shares of its vCPUs, in their order.
    /// With these it joins again when the pool was gone.
    Claims(Vec<Share>),
    /// Somebody who may do so has paused the guest, or has resumed it. A guest that is paused when the pool goes does
    /// not run by itself, and joins again as a paused one.
    Paused(bool),
    /// Somebody who may do so has ordered this of the guest.
    Order(Order),
    /// The guest has left. What the pool has counted for its vCPUs since it joined.
    Counted(CountedVcpus),
    /// The pool ends. The guest goes on under the host's scheduler.
    GoingAway {
        /// Whether the pool starts again, so that the guest is to join again.
        restarts: bool,
    },
}

/// What a guest's process is ordered to do with its guest. It is not answered: its effect shows when the guest
/// leaves, or runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Press the guest's ACPI power button.
    PowerButton,
    /// End the guest as a power cut does.
    PowerOff,
    /// Reset the guest, which then boots anew in the same process and stays in the pool.
    Reset,
}

/// How a guest has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestEnded {
    /// Whether it ended well: it switched itself off, or was ordered to.
    pub ok: bool,
    /// The sentence of the summary, at most [`MAX_END`] bytes.
    pub text: String,
}

/// What a guest requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The guest's name.
    pub name: String,
    /// The socket of the guest's console, an absolute path of at most [`MAX_PATH`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<String>,
    /// Where the guest's hints come from, as in [`GuestMessage::Hints`].
    #[serde(default)]
    pub hints: String,
    /// The guest's weight in what reservations leave.
    pub weight: u32,
    /// The signal that makes a vCPU's thread leave the guest.
    pub kick_signal: i32,
    /// How often the guest has been started again.
    #[serde(default)]
    pub restarts: u32,
    /// Whether the guest is to be paused from the start, because it was when its last pool went.
    #[serde(default)]
    pub is_paused: bool,
    /// The vCPUs, in their order.
    pub vcpus: Vec<VcpuRequest>,
}

/// What a guest requests for one vCPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VcpuRequest {
    /// The vCPU's thread, as numbered in the pool's namespace of process ids.
    pub tid: i32,
    /// Its share.
    pub share: Share,
}

/// A share of the pool's host CPUs for one vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Its reservation. `None`: best effort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<ReservationRequest>,
    /// The host CPUs where it may run, as the host numbers them. `None`: all of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_cpus: Option<Vec<usize>>,
    /// Its weight in what reservations leave, if it has no reservation. `None`: that of the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// A reservation, all times in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReservationRequest {
    /// CPU time in each period.
    pub budget_ns: Ns,
    /// The period.
    pub period_ns: Ns,
    /// Deadline, from the start of the period.
    pub deadline_ns: Ns,
    /// Whether the vCPU gets no more than its budget.
    pub hard: bool,
}

/// Another share for a guest that has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The guest's new weight. `None`: as before.
    pub weight: Option<u32>,
    /// Index of a vCPU and its new share. `None`: as before.
    pub vcpu: Option<(u32, Share)>,
}

/// A [`Share`] in the terms of the policy, which may still refuse it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedShare {
    /// The reservation.
    pub reservation: Option<Reservation>,
    /// The host CPUs, ascending and each once.
    pub host_cpus: Option<Vec<usize>>,
    /// The weight.
    pub weight: Option<u32>,
}

/// A request makes no sense, whatever the pool has left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The name is empty, too long, or has characters that a terminal does not print.
    #[error("a guest's name has 1 to {MAX_NAME} printable characters of ASCII")]
    Name,
    /// A text about the guest is too long, or has characters that a terminal does not print.
    #[error("the {0} of a guest has to be short and printable")]
    Text(&'static str),
    /// The weight is out of its range.
    #[error("a weight of {0} is out of range; give 1 to {MAX_WEIGHT}")]
    Weight(u32),
    /// The guest has no vCPU or too many.
    #[error("a guest cannot have {0} vCPUs; give it 1 to {MAX_VCPUS}")]
    Vcpus(usize),
    /// Two vCPUs have the same thread.
    #[error("thread {0} cannot run two vCPUs; name another thread for each")]
    SameThread(i32),
    /// No host CPU is left.
    #[error("the list of host CPUs is empty; leave it out to permit all CPUs of the pool")]
    NoHostCpu,
    /// The list of host CPUs is longer than a pool can be.
    #[error("a list of {0} host CPUs is too long; a pool has at most {MAX_CPUS}")]
    HostCpus(usize),
    /// The reservation breaks a bound.
    #[error(transparent)]
    Reservation(#[from] ReservationError),
    /// The guest has no such vCPU.
    #[error("the guest has no vCPU {vcpu}; its vCPUs are 0 to {}", .of - 1)]
    NoVcpu {
        /// The index that was named.
        vcpu: u32,
        /// Number of the guest's vCPUs.
        of: u32,
    },
}

impl JoinRequest {
    /// Checks all that can be checked without the pool's state. Returns the vCPUs' shares in their order.
    ///
    /// # Errors
    /// What makes no sense.
    pub fn check(&self) -> Result<Vec<CheckedShare>, RequestError> {
        if self.name.is_empty() || !is_printable(&self.name, MAX_NAME) {
            return Err(RequestError::Name);
        }
        check_hints(&self.hints)?;
        if let Some(path) = &self.console
            && !(path.starts_with('/') && is_printable(path, MAX_PATH))
        {
            return Err(RequestError::Text("path of the console"));
        }
        check_weight(self.weight)?;
        if !(1..=MAX_VCPUS as usize).contains(&self.vcpus.len()) {
            return Err(RequestError::Vcpus(self.vcpus.len()));
        }
        let mut tids: Vec<i32> = self.vcpus.iter().map(|vcpu| vcpu.tid).collect();
        tids.sort_unstable();
        if let Some(same) = tids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(RequestError::SameThread(same[0]));
        }
        self.vcpus.iter().map(|vcpu| vcpu.share.check()).collect()
    }
}

impl Change {
    /// Checks all that can be checked without the pool's state, for a guest with this number of `vcpus`.
    ///
    /// # Errors
    /// What makes no sense.
    pub fn check(&self, vcpus: u32) -> Result<Option<(u32, CheckedShare)>, RequestError> {
        self.weight.map(check_weight).transpose()?;
        let Some((vcpu, share)) = &self.vcpu else {
            return Ok(None);
        };
        if *vcpu >= vcpus {
            let (vcpu, of) = (*vcpu, vcpus);
            return Err(RequestError::NoVcpu { vcpu, of });
        }
        Ok(Some((*vcpu, share.check()?)))
    }
}

/// Checks the words of [`GuestMessage::Hints`].
///
/// # Errors
/// [`RequestError::Text`] if they cannot be shown.
pub fn check_hints(source: &str) -> Result<(), RequestError> {
    match is_printable(source, MAX_HINTS) {
        true => Ok(()),
        false => Err(RequestError::Text("source of the hints")),
    }
}

impl GuestEnded {
    /// Checks that the text can be shown.
    ///
    /// # Errors
    /// [`RequestError::Text`] if not.
    pub fn check(&self) -> Result<(), RequestError> {
        match is_printable(&self.text, MAX_END) {
            true => Ok(()),
            false => Err(RequestError::Text("end")),
        }
    }
}

/// Whether a terminal shows `text` as it is, and it has at most `max` bytes.
fn is_printable(text: &str, max: usize) -> bool {
    text.len() <= max && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn check_weight(weight: u32) -> Result<(), RequestError> {
    match (1..=MAX_WEIGHT).contains(&weight) {
        true => Ok(()),
        false => Err(RequestError::Weight(weight)),
    }
}

impl Share {
    /// The share of a vCPU with these parameters, on these host CPUs.
    #[must_use]
    pub fn of(params: SchedParams, host_cpus: Option<Vec<usize>>) -> Self {
        let (reservation, weight) = match params {
            SchedParams::Reserved(reservation) => (Some(reservation.into()), None),
            SchedParams::BestEffort { weight } => (None, Some(weight)),
        };
        Self {
            reservation,
            host_cpus,
            weight,
        }
    }

    fn check(&self) -> Result<CheckedShare, RequestError> {
        self.weight.map(check_weight).transpose()?;
        let reservation = self
            .reservation
            .map(ReservationRequest::check)
            .transpose()?;
        let mut host_cpus = self.host_cpus.clone();
        if let Some(cpus) = &mut host_cpus {
            if cpus.len() > MAX_CPUS {
                return Err(RequestError::HostCpus(cpus.len()));
            }
            cpus.sort_unstable();
            cpus.dedup();
            if cpus.is_empty() {
                return Err(RequestError::NoHostCpu);
            }
        }
        Ok(CheckedShare {
            reservation,
            host_cpus,
            weight: self.weight,
        })
    }
}

impl CheckedShare {
    /// What the policy is to admit for the vCPU, in a guest with this `weight`.
    #[must_use]
    pub fn params(&self, weight: u32) -> SchedParams {
        match self.reservation {
            Some(reservation) => SchedParams::Reserved(reservation),
            None => SchedParams::BestEffort {
                weight: self.weight.unwrap_or(weight),
            },
        }
    }
}

impl From<Reservation> for ReservationRequest {
    fn from(reservation: Reservation) -> Self {
        Self {
            budget_ns: reservation.budget(),
            period_ns: reservation.period(),
            deadline_ns: reservation.deadline(),
            hard: reservation.exhaustion() == Exhaustion::Hard,
        }
    }
}

impl ReservationRequest {
    fn check(self) -> Result<Reservation, ReservationError> {
        let exhaustion = match self.hard {
            true => Exhaustion::Hard,
            false => Exhaustion::Soft,
        };
        Reservation::new(self.budget_ns, self.period_ns, self.deadline_ns, exhaustion)
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests;
