//! What the policy was given for the vCPUs of a guest, for those who list it.

use vcpu_sched::SchedParams;

use super::guest_error::GuestCallError;
use super::guest_key::GuestKey;
use super::pool_guest::VcpuTerms;
use super::pool_handle::PoolHandle;

/// What the policy was given for one vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuListed {
    /// Its reservation or its weight.
    pub params: SchedParams,
    /// The host CPUs to which it is pinned, ascending; `None`: all of the pool.
    pub host_cpus: Option<Vec<usize>>,
}

impl PoolHandle {
    /// The terms of the vCPUs of `guest`, in their order.
    ///
    /// # Errors
    /// If there is no such guest, or the pool has stopped.
    pub fn terms<'a>(
        &self,
        guest: impl Into<GuestKey<'a>>,
    ) -> Result<Vec<VcpuListed>, GuestCallError> {
        let key = guest.into();
        let terms = self
            .pool
            .change(|state, _| state.joined(key).map(|guest| guest.terms.clone()))?;
        Ok(terms.iter().map(VcpuTerms::listed).collect())
    }
}

impl VcpuTerms {
    fn listed(&self) -> VcpuListed {
        VcpuListed {
            params: self.params,
            host_cpus: self.allowed.map(|_| self.host_cpus.get().to_vec()),
        }
    }
}
