//! A guest as the policy sees it.

use crate::ids::VcpuId;
use crate::normal_form::Writer;
use crate::state::disturbance_credit::DisturbanceCredit;
use crate::state::guess_credit::GuessCredit;

/// A guest as the policy sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct GuestState {
    /// When it was added, among all guests that there have been.
    pub(crate) added_seq: u64,
    /// It is paused: no vCPU of it runs, and nothing is done for it.
    pub(crate) paused: bool,
    /// It is being removed.
    pub(crate) ending: bool,
    /// vCPUs that are not halted: they divide the guest's weight.
    pub(crate) runnable: u32,
    /// vCPUs whose hints were a guess of the host when they last stopped. Without any, none is a suspect.
    pub(crate) guessed: u32,
    /// Holders that have run before vCPUs that hold nothing since vCPUs were last seen to spin for each other.
    pub(crate) unneeded: u32,
    /// Whether it pays to suspect a vCPU that holds nothing.
    pub(crate) free_suspects: GuessCredit,
    /// All its vCPUs, those that have ended too.
    pub(crate) vcpus: Vec<VcpuId>,
    /// The place in `vcpus` of the first that is tried as the donor of a worker.
    pub(crate) next_donor: usize,
    /// What its wake-ups may take from other guests.
    pub(crate) disturbance: DisturbanceCredit,
}

impl GuestState {
    /// Writes its normal form in a pool of so many guests. When it was added shows in the order of the guests, for
    /// which the pool sees.
    pub(crate) fn normalise(&self, guests: u64, to: &mut Writer) {
        let Self {
            added_seq: _,
            paused,
            ending,
            runnable,
            guessed,
            unneeded,
            free_suspects,
            vcpus,
            next_donor,
            disturbance,
        } = self;
        to.flag(*paused);
        to.flag(*ending);
        to.number(*runnable);
        to.number(*guessed);
        to.number(*unneeded);
        to.part(free_suspects);
        to.list(vcpus.iter().copied(), Writer::vcpu);
        to.size(*next_donor);
        disturbance.normalise(guests, to);
    }
}
