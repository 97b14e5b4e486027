//! Changes of the pool's host CPUs: all of a change is in force, or nothing.

use baton_api::EventKind;
use baton_config::units::{format_cpus, parse_cpus};
use baton_link::message::PoolMessage;
use baton_os::peer::Peer;

use crate::failure::{Failure, FailureKind};
use crate::grants::Action;
use crate::host_cpus::CpuChange;
use crate::service::Service;

impl Service {
    /// Makes `change` with the host CPUs of the list `cpus`, such as `2-3`: with all, or with none.
    ///
    /// # Errors
    /// If `peer` may not, the list makes no sense, another process owns one of them, or what is promised would not fit
    /// on those that are left.
    pub fn change_host_cpus(
        &self,
        peer: &Peer,
        change: CpuChange,
        cpus: &str,
    ) -> Result<(), Failure> {
        self.grants().check(peer, Action::ChangePool)?;
        let cpus = parse_cpus(cpus);
        let cpus = cpus.map_err(|error| Failure::new(FailureKind::Senseless, error))?;
        self.one_at_a_time(|| self.change_all(change, &cpus))?;
        for &cpu in &cpus {
            let changed = match change {
                CpuChange::Add => EventKind::CpuAdded { cpu },
                CpuChange::Remove => EventKind::CpuRemoved { cpu },
            };
            self.events.publish_of(peer.uid, changed);
        }
        Ok(())
    }

    fn change_all(&self, change: CpuChange, cpus: &[usize]) -> Result<(), Failure> {
        let back = match change {
            CpuChange::Add => CpuChange::Remove,
            CpuChange::Remove => CpuChange::Add,
        };
        for (done, &cpu) in cpus.iter().enumerate() {
            let Err(failure) = self.host_cpus.change(change, cpu) else {
                continue;
            };
            for &cpu in cpus[..done].iter().rev() {
                if let Err(error) = self.host_cpus.change(back, cpu) {
                    // A guest has joined in between and needs what was added, or the host has taken what was removed.
                    let now = format_cpus(&self.host_cpus.list());
                    let what = format!(
                        "{}; host CPU {cpu} could not be changed back ({}), so the pool has {now}",
                        failure.error.error, error.error.error
                    );
                    return Err(Failure::new(failure.kind, what));
                }
            }
            return Err(failure);
        }
        let with_priority = self.handle.cpus_with_priority();
        if !with_priority.is_empty() {
            let message = PoolMessage::Priority(with_priority);
            self.processes.send_all(&message);
        }
        Ok(())
    }
}
