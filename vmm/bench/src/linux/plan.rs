//! Which guests are measured in each round.

use std::path::PathBuf;

use serde::Serialize;

use super::args::LinuxArgs;
use super::axes::{LinuxLoad, LinuxPolicy};
use super::kernels::{NamedKernel, PATCHED, STOCK};
use crate::error::BenchError;
use crate::flags::distinct;

/// One guest of each round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct LinuxCell {
    /// Name of its kernel.
    pub(super) kernel: String,
    pub(super) load: LinuxLoad,
    pub(super) policy: LinuxPolicy,
}

impl LinuxCell {
    /// The cell under `policy` with which this one is compared. The patched kernel is compared with the kernel of
    /// `--stock`, which has the same source and configuration.
    pub(super) fn under(&self, policy: LinuxPolicy) -> Self {
        let kernel = match self.policy {
            LinuxPolicy::BatonPatched => STOCK,
            _ => &self.kernel,
        };
        Self {
            kernel: kernel.to_owned(),
            load: self.load,
            policy,
        }
    }
}

/// The kernels, and the guests of each round in the order in which they run.
#[derive(Debug)]
pub(super) struct LinuxPlan {
    pub(super) kernels: Vec<NamedKernel>,
    pub(super) cells: Vec<LinuxCell>,
}

impl LinuxPlan {
    /// The plan for `args`.
    ///
    /// # Errors
    /// If two kernels have the same name, or a policy has no kernel.
    pub(super) fn new(args: &LinuxArgs) -> Result<Self, BenchError> {
        let kernels = kernels(args);
        for (i, kernel) in kernels.iter().enumerate() {
            if kernels[..i].iter().any(|other| other.name == kernel.name) {
                return Err(BenchError::KernelName(kernel.name.clone()));
            }
        }
        let policies = policies(args, &kernels)?;
        let mut cells = Vec::new();
        for &load in &args.loads {
            for kernel in &kernels {
                let own = policies.iter().filter(|policy| boots(**policy, kernel));
                cells.extend(own.map(|&policy| LinuxCell {
                    kernel: kernel.name.clone(),
                    load,
                    policy,
                }));
            }
        }
        Ok(Self { kernels, cells })
    }

    /// The kernel of `cell`.
    pub(super) fn kernel(&self, cell: &LinuxCell) -> Option<&NamedKernel> {
        self.kernels
            .iter()
            .find(|kernel| kernel.name == cell.kernel)
    }
}

/// All kernels, the patched one last.
fn kernels(args: &LinuxArgs) -> Vec<NamedKernel> {
    let named =
        |name, file: &Option<PathBuf>| file.as_ref().map(|file| NamedKernel::new(name, file));
    let mut kernels = Vec::from_iter(named(STOCK, &args.stock));
    kernels.extend(args.kernels.iter().cloned());
    kernels.extend(named(PATCHED, &args.patched));
    kernels
}

/// The policies of `args`, or else those for which there is a kernel.
fn policies(args: &LinuxArgs, kernels: &[NamedKernel]) -> Result<Vec<LinuxPolicy>, BenchError> {
    let has_kernel = |policy: &LinuxPolicy| kernels.iter().any(|kernel| boots(*policy, kernel));
    let unnamed = LinuxPolicy::ALL
        .into_iter()
        .filter(|policy| !policy.is_measured_if_named() && has_kernel(policy));
    let policies = distinct(&args.policies, &Vec::from_iter(unnamed));
    match policies.iter().find(|policy| !has_kernel(policy)) {
        Some(LinuxPolicy::BatonPatched) => Err(BenchError::NoPatchedKernel),
        Some(_) => Err(BenchError::NoUnpatchedKernel),
        None if policies.is_empty() => Err(BenchError::NoUnpatchedKernel),
        None => Ok(policies),
    }
}

/// Whether guests with `kernel` are measured under `policy`.
fn boots(policy: LinuxPolicy, kernel: &NamedKernel) -> bool {
    (policy == LinuxPolicy::BatonPatched) == (kernel.name == PATCHED)
}
