//! A vCPU's hints as words of its page.

use baton_machine::hints::{HintSnapshot, PublishedWait};
use baton_os::nospec;
use vcpu_sched::WaitKind;

use crate::page::AnswerWords;
use crate::sync::atomic::Ordering::Relaxed;
use crate::vcpu_index::VcpuIndex;

/// The vCPU waits, and spins.
const SPINS: u32 = 1 << 0;
/// The vCPU waits, and sleeps.
const BLOCKS: u32 = 1 << 1;
/// The vCPU waits for a vCPU that is not known.
const WAITS: u32 = 1 << 2;
/// The guest's process has inferred this.
const GUESS: u32 = 1 << 3;
const ALL: u32 = SPINS | BLOCKS | WAITS | GUESS;
/// Release counts are modulo 2^24.
const RELEASES: u32 = (1 << 24) - 1;
/// The most locks that a hint page can count.
const MAX_DEPTH: u32 = (1 << 8) - 1;

/// Hints make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HintError {
    /// A flag is set that has no meaning, or two that exclude each other.
    #[error("hint flags {0:#x} make no sense")]
    Flags(u32),
    /// More locks than a vCPU can count.
    #[error("{0} locks are more than a hint page can count")]
    Depth(u32),
    /// A release count that its 24 bits cannot hold.
    #[error("release count {0:#x} has more than 24 bits")]
    Releases(u32),
    /// The vCPU waits for itself or for a vCPU that does not exist.
    #[error("vCPU {waiter} cannot wait for vCPU {holder} in a guest of {vcpus} vCPUs")]
    Holder {
        /// Index of the vCPU that waits.
        waiter: u32,
        /// The index that its hints name.
        holder: u32,
        /// Number of the guest's vCPUs.
        vcpus: u32,
    },
}

pub(crate) fn write(hints: &HintSnapshot, words: &AnswerWords) {
    let kind = hints.wait.map_or(0, |wait| match wait.kind {
        WaitKind::Spin => SPINS,
        WaitKind::Block => BLOCKS,
        // Only the policy draws suspicions; no vCPU publishes one.
        WaitKind::Suspect => 0,
    });
    let waits = if hints.waits { WAITS } else { 0 };
    let guess = if hints.is_guess { GUESS } else { 0 };
    words.hint_flags.store(kind | waits | guess, Relaxed);
    words.depth.store(hints.depth.min(MAX_DEPTH), Relaxed);
    words.releases.store(hints.releases & RELEASES, Relaxed);
    if let Some(wait) = hints.wait {
        words.wait_lock.store(wait.lock, Relaxed);
        words.holder.store(wait.holder, Relaxed);
        let releases = wait.holder_releases & RELEASES;
        words.holder_releases.store(releases, Relaxed);
    }
}

/// The hints of the vCPU at `place`.
pub(crate) fn read(words: &AnswerWords, place: VcpuIndex) -> Result<HintSnapshot, HintError> {
    let flags = words.hint_flags.load(Relaxed);
    let depth = words.depth.load(Relaxed);
    if depth > MAX_DEPTH {
        return Err(HintError::Depth(depth));
    }
    let kind = match flags & (SPINS | BLOCKS) {
        _ if flags & !ALL != 0 => return Err(HintError::Flags(flags)),
        0 => None,
        SPINS => Some(WaitKind::Spin),
        BLOCKS => Some(WaitKind::Block),
        _ => return Err(HintError::Flags(flags)),
    };
    Ok(HintSnapshot {
        depth,
        releases: releases(words.releases.load(Relaxed))?,
        wait: kind.map(|kind| read_wait(words, kind, place)).transpose()?,
        waits: flags & WAITS != 0,
        is_guess: flags & GUESS != 0,
    })
}

fn read_wait(
    words: &AnswerWords,
    kind: WaitKind,
    place: VcpuIndex,
) -> Result<PublishedWait, HintError> {
    let holder = words.holder.load(Relaxed);
    let other = nospec::below(holder as usize, place.of as usize).map(|index| index as u32);
    match other.filter(|&other| other != place.index) {
        Some(holder) => Ok(PublishedWait {
            kind,
            lock: words.wait_lock.load(Relaxed),
            holder,
            holder_releases: releases(words.holder_releases.load(Relaxed))?,
        }),
        None => Err(HintError::Holder {
            waiter: place.index,
            holder,
            vcpus: place.of,
        }),
    }
}

fn releases(count: u32) -> Result<u32, HintError> {
    match count > RELEASES {
        true => Err(HintError::Releases(count)),
        false => Ok(count),
    }
}
