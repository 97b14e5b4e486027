//! Which vCPU of which guest a page belongs to.

/// A vCPU within its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuIndex {
    /// Index of the vCPU.
    pub index: u32,
    /// Number of the guest's vCPUs.
    pub of: u32,
}
