//! The names of host CPUs and vCPUs, in the order in which the policy numbers them.

/// A vCPU as traces, metrics and snapshots name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuName {
    /// Number of its guest.
    pub guest: usize,
    /// Name of its guest.
    pub guest_name: String,
    /// Its index within the guest.
    pub index: u32,
}

/// The host CPUs and vCPUs of a run, in the policy's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Numbers of the host CPUs.
    pub host_cpus: Vec<usize>,
    /// The vCPUs.
    pub vcpus: Vec<VcpuName>,
}

impl Names {
    /// Short names of the vCPUs: `v0`, preceded by the guest's name if the run has several guests.
    #[must_use]
    pub fn short(&self) -> Vec<String> {
        let several = self
            .vcpus
            .iter()
            .any(|vcpu| vcpu.guest != self.vcpus[0].guest);
        let short = |vcpu: &VcpuName| match several {
            true => format!("{}/v{}", vcpu.guest_name, vcpu.index),
            false => format!("v{}", vcpu.index),
        };
        self.vcpus.iter().map(short).collect()
    }
}
