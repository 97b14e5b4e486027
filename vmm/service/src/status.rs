//! The state of the pool and its guests, as the API shows it.

use baton_api::{Grant, Guest, GuestList, GuestState, HostCpu, PoolStatus, VERSION, Vcpu};
use baton_config::units::format_cpus;
use baton_host::executor::{GuestIdentity, GuestListed, GuestState as State, VcpuListed};
use baton_observe::control::snapshot::PoolSnapshot;
use baton_observe::counters::ControlKey;
use baton_os::peer::Peer;
use vcpu_sched::SchedParams;

use crate::failure::Failure;
use crate::grants::{GrantTerms, PPM, reserved_ppm};
use crate::service::Service;

const RAN: ControlKey = ControlKey::of("ran_ns");
const WAITED: ControlKey = ControlKey::of("waited_ns");
const MISSES: ControlKey = ControlKey::of("deadline_misses");

impl Service {
    /// The pool, for `peer`.
    ///
    /// # Errors
    /// If `peer` may not see it.
    pub fn pool_status(&self, peer: &Peer) -> Result<PoolStatus, Failure> {
        self.check_see(peer)?;
        let snapshot = self.reader.snapshot();
        let guests = self.handle.list();
        let reserved = guests.iter().map(|listed| {
            let terms = self.handle.terms(&listed.identity()).unwrap_or_default();
            sum_ppm(&terms)
        });
        Ok(PoolStatus {
            api: VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: snapshot.pid,
            proxy: snapshot.proxy,
            guests: guests.len(),
            reserved_cpus: cpus(reserved.sum()),
            host_cpus: snapshot.cpus.into_iter().map(host_cpu).collect(),
            you: self.rights(peer),
        })
    }

    /// All guests.
    ///
    /// # Errors
    /// If `peer` may not see them.
    pub fn guests(&self, peer: &Peer) -> Result<GuestList, Failure> {
        self.check_see(peer)?;
        let snapshot = self.reader.snapshot();
        // A guest that is about to join has no owner for a moment.
        let guests = self.one_at_a_time(|| {
            let guests = self.handle.list().into_iter();
            let listed = guests.map(|listed| self.guest_of(&listed, &snapshot));
            listed.collect()
        });
        Ok(GuestList { guests })
    }

    /// The guest `name`.
    ///
    /// # Errors
    /// If `peer` may not see it, or there is none.
    pub fn guest(&self, peer: &Peer, name: &str) -> Result<Guest, Failure> {
        self.check_see(peer)?;
        // Commands that wait for a guest ask for it often, so the others are not looked at.
        self.guest_with(&self.handle.find(name)?)
    }

    /// `guest`, for one who may see it.
    pub(crate) fn guest_with(&self, guest: &GuestIdentity) -> Result<Guest, Failure> {
        let snapshot = self.reader.snapshot();
        self.one_at_a_time(|| {
            let listed = self.handle.list().into_iter();
            let mut same = listed.filter(|listed| listed.identity() == *guest);
            let listed = same.next().ok_or_else(|| Failure::no_guest(guest.name()))?;
            Ok(self.guest_of(&listed, &snapshot))
        })
    }

    fn guest_of(&self, listed: &GuestListed, snapshot: &PoolSnapshot) -> Guest {
        let name = &listed.record.name;
        let record = &listed.record;
        let identity = listed.identity();
        let terms = self.handle.terms(&identity).unwrap_or_default();
        let mut guest = Guest {
            name: name.clone(),
            state: match listed.state {
                State::Running => GuestState::Running,
                State::Paused => GuestState::Paused,
                State::Ended => GuestState::Ended,
            },
            uid: None,
            pid: None,
            console: None,
            hints: String::new(),
            restarts: record.restarts(),
            reserved_cpus: cpus(sum_ppm(&terms)),
            vcpus: (0..)
                .zip(&terms)
                .map(|(index, terms)| vcpu(name, index, terms, snapshot))
                .collect(),
        };
        let of_process = self.processes.of(&identity, |of_process| {
            guest.uid = Some(of_process.uid);
            guest.pid = Some(of_process.pid);
            guest.console.clone_from(&of_process.console);
            guest.hints.clone_from(&of_process.hints);
            guest.restarts = of_process.restarts;
            if of_process.is_restarting && guest.state == GuestState::Running {
                guest.state = GuestState::Restarting;
            }
        });
        if of_process.is_none() {
            guest.hints = record.hints_in_force().to_string();
        }
        guest
    }
}

fn sum_ppm(terms: &[VcpuListed]) -> u64 {
    terms.iter().map(|vcpu| reserved_ppm(vcpu.params)).sum()
}

fn cpus(ppm: u64) -> f64 {
    ppm as f64 / PPM as f64
}

fn host_cpu(cpu: baton_observe::control::snapshot::CpuSnapshot) -> HostCpu {
    HostCpu {
        cpu: cpu.cpu,
        away: cpu.away,
        run: cpu.run,
        busy_ns: cpu.busy_ns,
    }
}

fn vcpu(guest: &str, index: u32, terms: &VcpuListed, snapshot: &PoolSnapshot) -> Vcpu {
    let mut all = snapshot.vcpus.iter();
    let seen = all.find(|vcpu| vcpu.guest == guest && vcpu.index == index);
    let count = |key| seen.map_or(0, |vcpu| vcpu.counters.get(key));
    let (reservation, weight) = match terms.params {
        SchedParams::Reserved(reservation) => (Some(reservation.to_string()), None),
        SchedParams::BestEffort { weight } => (None, Some(weight)),
    };
    Vcpu {
        index,
        // The guest has joined or left between the two looks.
        state: seen.map_or_else(|| "gone".to_owned(), |vcpu| vcpu.state.clone()),
        cpu: seen.and_then(|vcpu| vcpu.cpu),
        reservation,
        weight,
        host_cpus: terms.host_cpus.as_deref().map(format_cpus),
        ran_ns: count(RAN),
        waited_ns: count(WAITED),
        deadline_misses: count(MISSES),
    }
}

impl GrantTerms {
    /// As the API shows it.
    pub(crate) fn listed(&self) -> Grant {
        Grant {
            max_reservation: self.max_reservation.map(cpus),
            max_weight: self.max_weight,
            max_vcpus: self.max_vcpus,
            max_guests: self.max_guests,
            host_cpus: self.host_cpus.as_deref().map(format_cpus),
        }
    }
}
