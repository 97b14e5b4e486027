//! Why a vCPU left the guest, and how often.

use serde::{Deserialize, Serialize};

use crate::doorbell::Doorbell;

/// Why [`Vcpu::run`](crate::Vcpu::run) returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Exit {
    /// A device access, which is done: run the vCPU again.
    Handled,
    /// A signal or `immediate_exit`: a kick, the timer, a halt signal. Also when a vCPU that waits to be
    /// started changes its state (`EAGAIN`).
    Interrupted,
    /// The guest rang; the access is done.
    Doorbell(Doorbell),
    /// `KVM_EXIT_DEBUG`.
    Debug,
    /// `KVM_EXIT_HLT`; only without KVM's interrupt controller.
    Halted,
    /// The guest has ended ([`GuestRecord::ended`](crate::GuestRecord::ended)). Its vCPUs must not run
    /// again.
    Ended,
}

/// How often a vCPU left the guest, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitCounts {
    /// Port reads.
    pub port_in: u64,
    /// Port writes other than doorbells.
    pub port_out: u64,
    /// Accesses to addresses without memory.
    pub mmio: u64,
    /// Doorbells that made sense.
    pub doorbells: u64,
    /// Doorbells, hint pages and accesses to Baton's ports that made no sense and changed nothing.
    pub nonsense: u64,
    /// Halts that reached user space.
    pub halts: u64,
    /// Signals and `immediate_exit`.
    pub interrupted: u64,
    /// Part of `interrupted`: looks at a vCPU that publishes no hints.
    pub looks: u64,
    /// Debug exits.
    pub debug: u64,
    /// All others.
    pub other: u64,
}

impl ExitCounts {
    /// Adds `more`.
    pub fn add(&mut self, more: &Self) {
        let Self {
            port_in,
            port_out,
            mmio,
            doorbells,
            nonsense,
            halts,
            interrupted,
            looks,
            debug,
            other,
        } = more;
        self.port_in += port_in;
        self.port_out += port_out;
        self.mmio += mmio;
        self.doorbells += doorbells;
        self.nonsense += nonsense;
        self.halts += halts;
        self.interrupted += interrupted;
        self.looks += looks;
        self.debug += debug;
        self.other += other;
    }

    /// All exits.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.port_in
            + self.port_out
            + self.mmio
            + self.doorbells
            + self.nonsense
            + self.halts
            + self.interrupted
            + self.debug
            + self.other
    }
}
