//! Which domain serves a pinning. vCPUs with equal pinnings share one; it is made for the first of them and goes
//! with the last, so there are never more than [`MAX_PINNINGS`].

use crate::classes::admission::AdmissionError;
use crate::classes::virtual_time::VirtualTime;
use crate::cpuset::CpuSet;
use crate::events::Events;
use crate::ids::{DomainId, MAX_PINNINGS, Ns};
use crate::scheduler::Scheduler;
use crate::state::domain::Domain;

impl<E: Events> Scheduler<E> {
    fn domain_of(&self, pinning: CpuSet) -> Option<DomainId> {
        let mut all = self.domains.ids();
        all.find(|&domain| self.domains[domain].pinning == pinning)
    }

    /// Checks that [`Scheduler::join_domain`] need not exceed the most pinnings.
    pub(crate) fn has_room_for_pinning(&self, pinning: CpuSet) -> Result<(), AdmissionError> {
        if self.domain_of(pinning).is_none() && self.domains.len() >= MAX_PINNINGS {
            return Err(AdmissionError::TooManyPinnings(MAX_PINNINGS));
        }
        Ok(())
    }

    /// The domain that serves exactly these CPUs gets one more user.
    pub(crate) fn join_domain(&mut self, pinning: CpuSet) -> DomainId {
        let domain = match self.domain_of(pinning) {
            Some(domain) => domain,
            None => {
                let cpus = self.served_by(pinning);
                // With an older virtual time than that of the queues beside it, its vCPUs would keep the CPUs
                // until they had caught up.
                let beside = self.domains.iter().filter(|d| !d.cpus.and(cpus).is_empty());
                let latest = beside.map(|d| d.virtual_time).max();
                let start = latest.unwrap_or(VirtualTime::ZERO);
                let places = self.vcpus.places();
                self.domains.add(Domain::new(pinning, cpus, places, start))
            }
        };
        self.domains[domain].users += 1;
        domain
    }

    /// The domain has one user less. Without any, it goes.
    pub(crate) fn leave_domain(&mut self, domain: DomainId, now: Ns) {
        let row = &mut self.domains[domain];
        row.users -= 1;
        if row.users > 0 {
            return;
        }
        // Scheduling contexts of other domains may be here for a holder that was pinned to these CPUs.
        while let Some((_, visitor)) = self.domains[domain].queue.first() {
            self.dequeue(visitor);
            self.requeue(visitor);
            self.kick_for(visitor, now);
        }
        self.domains.remove(domain);
    }
}
