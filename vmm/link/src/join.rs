//! How a guest joins: what its process requests, and what the pool makes of that.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use vcpu_sched::Ns;

use crate::connection::{Connection, ConnectionError, ForeignFile, Patience};
use crate::foreign_clock::ForeignThreadClock;
use crate::foreign_error::ForeignError;
use crate::foreign_process::ForeignProcess;
use crate::kick_signal::KickSignal;
use crate::message::{
    CheckedShare, GuestMessage, JoinRequest, PROTOCOL, PoolMessage, RequestError,
};
use crate::pages::{GuestPages, PagesError};
use crate::pool_side::{PoolGuestLink, PoolSide, VcpuKicker};
use crate::wake_file::WakeReport;

/// A guest cannot join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The request makes no sense.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The packet had no file with the pages, or another file.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The pages cannot be used.
    #[error(transparent)]
    Pages(#[from] PagesError),
    /// A vCPU's thread cannot be watched.
    #[error(transparent)]
    Foreign(#[from] ForeignError),
    /// The pool refused.
    #[error("the pool refused the guest: {reason}{}", would_fit_text(.would_fit))]
    Refused {
        /// The pool's sentence.
        reason: String,
        /// What the pool would grant.
        would_fit: Option<String>,
    },
    /// The pool speaks another version, or answered something else than was requested.
    #[error(
        "the pool did not answer as protocol {PROTOCOL} has it; use the same version of `baton` for both"
    )]
    Protocol,
}

fn would_fit_text(would_fit: &Option<String>) -> String {
    would_fit
        .as_ref()
        .map_or_else(String::new, |text| format!("; {text}"))
}

/// The ways to a vCPU of a guest that has joined.
#[derive(Debug)]
pub struct JoinedVcpu {
    /// Its page.
    pub side: PoolSide,
    /// CPU time of its thread.
    pub clock: ForeignThreadClock,
    /// The way for others to kick it.
    pub kick: Arc<VcpuKick>,
    /// What was requested for it.
    pub share: CheckedShare,
}

/// Kicks a vCPU in another process.
#[derive(Debug)]
pub struct VcpuKick {
    kicker: VcpuKicker,
    signal: KickSignal,
}

impl VcpuKick {
    /// Makes the thread give the vCPU back, if the thread has it. `now` is `CLOCK_MONOTONIC`, ns.
    pub fn kick(&self, now: Ns) {
        if self.kicker.kick(now) {
            // A thread that has ended is noticed by the one that waits for it.
            let _ = self.signal.send();
        }
    }
}

/// A guest whose request makes sense, before the policy has admitted it.
#[derive(Debug)]
pub struct JoinedGuest {
    /// To be hung up when the control socket closes.
    pub link: PoolGuestLink,
    /// Its vCPUs, in their order.
    pub vcpus: Vec<JoinedVcpu>,
}

/// The pool's part: checks what `process` has sent, and takes the ways to its vCPUs.
///
/// # Errors
/// What makes no sense, or cannot be used. Nothing of it stays behind.
pub fn accept(
    process: &ForeignProcess,
    request: &JoinRequest,
    file: Option<ForeignFile>,
) -> Result<JoinedGuest, JoinError> {
    let shares = request.check()?;
    let file = file.ok_or(ConnectionError::Files)?.into_memory_file()?;
    let pages = GuestPages::accept(&file, shares.len() as u32)?;
    let link = PoolGuestLink::new(pages);
    let mut vcpus = Vec::with_capacity(shares.len());
    let sides = link.vcpus().into_iter();
    for ((side, share), vcpu) in sides.zip(shares).zip(&request.vcpus) {
        let thread = process.thread(vcpu.tid, request.kick_signal)?;
        let kicker = side.kicker();
        let signal = thread.kick;
        vcpus.push(JoinedVcpu {
            side,
            clock: thread.clock,
            kick: Arc::new(VcpuKick { kicker, signal }),
            share,
        });
    }
    Ok(JoinedGuest { link, vcpus })
}

/// What a guest gets from the pool that has admitted it.
#[derive(Debug)]
pub struct Admission {
    /// The guest's number in the pool.
    pub guest: u64,
    /// The way to report wakes.
    pub wakes: WakeReport,
}

/// The guest's part: requests that the pool runs the guest whose pages are in the memory file `pages`. Waits
/// for the pool's answers.
///
/// # Errors
/// If the pool refuses, is gone, or has another version.
pub fn request(
    pool: &Connection,
    request: JoinRequest,
    pages: &OwnedFd,
) -> Result<Admission, JoinError> {
    pool.send(&GuestMessage::Hello { protocol: PROTOCOL }, None)?;
    match pool.receive(Patience::Wait)?.without_file()? {
        PoolMessage::Welcome { protocol: PROTOCOL } => {}
        other => return Err(refused(other)),
    }
    pool.send(&GuestMessage::Join(request), Some(pages.as_fd()))?;
    let answer = pool.receive(Patience::Wait)?;
    match (answer.message, answer.file) {
        (PoolMessage::Admitted { guest }, Some(file)) => {
            let file = file.into_trusted().ok_or(JoinError::Protocol)?;
            let wakes = WakeReport::new(file);
            Ok(Admission { guest, wakes })
        }
        (other, _) => Err(refused(other)),
    }
}

fn refused(answer: PoolMessage) -> JoinError {
    match answer {
        PoolMessage::Refused { reason, would_fit } => JoinError::Refused { reason, would_fit },
        _ => JoinError::Protocol,
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests;
