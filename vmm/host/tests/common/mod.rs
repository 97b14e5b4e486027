//! A pool in this process, and guests for it.

// Each test program uses a part of this.
#![allow(dead_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use baton_abi::hints::{FEATURE_DEFER, FEATURE_PROXY, FEATURE_RUNNING};
use baton_config::{GuestConfig, LateHalts, RunConfig, VcpuThreads};
use baton_host::executor::{self, GuestState, PoolHandle};
use baton_host::runner::{ReadyGuest, Runner};
use baton_machine::guest::GuestWiring;
use baton_machine::reaper::ReaperThread;
use baton_machine::{Guest, kvm};
use kvm_ioctls::Kvm;

/// A pool whose executors run.
pub struct TestPool {
    pub runner: Box<dyn Runner>,
    pub handle: PoolHandle,
    guests: GuestMaker,
}

/// Makes guests.
struct GuestMaker {
    kvm: Kvm,
    reaper: ReaperThread,
    made: AtomicUsize,
}

impl GuestMaker {
    fn guest(&self, config: GuestConfig) -> ReadyGuest {
        let wiring = GuestWiring {
            builtin: guest_tests::GUEST_ELF,
            features: FEATURE_RUNNING | FEATURE_PROXY | FEATURE_DEFER,
            reaper: self.reaper.reaper(),
            ..GuestWiring::default()
        };
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let (guest, vcpus) =
            Guest::create_with(&self.kvm, number, &config, wiring).expect("a guest");
        ReadyGuest {
            guest,
            config,
            vcpus,
        }
    }
}

/// A guest of `cpus` vCPUs with 16 MiB.
pub fn config(name: &str, cpus: usize, cmdline: &str) -> GuestConfig {
    let mut config = GuestConfig::new(name).with_cpus(cpus);
    config.cmdline = cmdline.to_owned();
    config.memory = 16 << 20;
    config
}

/// The same with a reservation of each vCPU.
pub fn reserved(name: &str, cpus: usize, cmdline: &str, reservation: &str) -> GuestConfig {
    let mut config = config(name, cpus, cmdline);
    let reservation = reservation.parse().expect("a reservation");
    config.reservations.fill(Some(reservation));
    config
}

/// Host CPUs for a pool.
pub fn host_cpus(count: usize) -> Vec<usize> {
    let mut cpus = baton_os::sys::affinity().expect("the affinity of this process");
    cpus.truncate(count);
    cpus
}

impl TestPool {
    /// A pool of the first `count` host CPUs that starts with `guests`.
    pub fn start(count: usize, guests: Vec<GuestConfig>, threads: VcpuThreads) -> Self {
        let maker = GuestMaker {
            kvm: kvm::open().expect("KVM"),
            reaper: ReaperThread::spawn().expect("a thread"),
            made: AtomicUsize::new(0),
        };
        let run = RunConfig {
            guests: guests.clone(),
            late_halts: LateHalts::Allow,
            vcpu_threads: threads,
            quiet: true,
            ..RunConfig::default()
        };
        let guests = guests.into_iter().map(|guest| maker.guest(guest)).collect();
        let runner = executor::start(&run, &host_cpus(count), guests, None).expect("a pool");
        let handle = runner.pool().expect("executors have a pool");
        Self {
            runner,
            handle,
            guests: maker,
        }
    }

    /// A guest that has not joined.
    pub fn guest(&self, config: GuestConfig) -> ReadyGuest {
        self.guests.guest(config)
    }

    /// Has a guest join, which must succeed.
    pub fn join(&self, config: GuestConfig) -> Arc<Guest> {
        let ready = self.guest(config);
        let guest = Arc::clone(&ready.guest);
        if let Err(refused) = self.handle.join(ready) {
            panic!("{}", refused.error);
        }
        guest
    }

    /// What the guest `name` does; `None` if there is no such guest.
    pub fn state(&self, name: &str) -> Option<GuestState> {
        let list = self.handle.list();
        let guest = list.iter().find(|guest| guest.record.name == name)?;
        Some(guest.state)
    }

    /// Waits until the guest `name` has ended by itself.
    pub fn until_ended(&self, name: &str) {
        until("the guest ends", || {
            self.state(name) == Some(GuestState::Ended)
        });
    }
}

/// Waits until `is_so`, which `what` describes. Only what hangs takes minutes.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = baton_os::sys::monotonic_ns();
    while !is_so() {
        assert!(
            baton_os::sys::monotonic_ns() - began < 120_000_000_000,
            "this does not happen: {what}"
        );
        std::thread::yield_now();
    }
}
