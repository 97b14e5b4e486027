//! The locks of the guest, compiled for the host: what a lock costs for which no vCPU waits.
//!
//! The test stands for the host of the guest: it counts each access to a port, as that would be an exit, and each store
//! to the hint page, which it keeps write-protected.

#![allow(dead_code, unused_imports, missing_docs)] // The locks are the guest's, and use a part of what stands here for the guest.
#![allow(clippy::unwrap_used)] // A test may panic.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};

use cpu::Cpu;
use lock::{Hinted, Lock, Plain};
use locks::{Mcs, Tas, Ticket};

#[path = "../../vmm/abi/src/hints.rs"]
mod abi;
#[path = "../guest/hints.rs"]
mod hints;
#[path = "../guest/lock.rs"]
mod lock;
#[path = "../guest/locks/mod.rs"]
mod locks;

mod cpu {
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;

    pub const MAX_CPUS: usize = 4;

    #[derive(Default)]
    pub struct Count(AtomicU64);

    impl Count {
        pub fn add(&self, more: u64) {
            self.0.fetch_add(more, Relaxed);
        }
    }

    #[derive(Default)]
    pub struct Stats {
        pub skipped: Count,
        pub wait_rings: Count,
        pub release_rings: Count,
    }

    #[derive(Default)]
    pub struct Cpu {
        pub stats: Stats,
    }

    impl Cpu {
        pub fn index(&self) -> u32 {
            0
        }
    }
}

mod config {
    #[derive(PartialEq, Eq)]
    pub enum Hints {
        On,
        Stock,
    }

    pub struct Config {
        pub hints: Hints,
        pub spin: u32,
    }

    pub fn get() -> Config {
        Config {
            hints: Hints::On,
            spin: 100,
        }
    }
}

mod idle {
    use crate::cpu::Cpu;

    pub fn wake(_: u32) {
        unreachable!("no vCPU sleeps");
    }

    pub fn asleep(_: u32) -> bool {
        false
    }

    pub fn sleep_while(_: &Cpu, _: impl Fn() -> bool, _: u64) {
        unreachable!("no vCPU sleeps");
    }
}

mod preempt {
    pub fn disable() {}
    pub fn enable(_: &crate::cpu::Cpu) {}
}

/// A host with hint pages and doorbells.
mod port {
    use std::sync::atomic::Ordering::Relaxed;

    use crate::abi;

    pub fn out32(port: u16, value: u32) {
        if port == abi::PORT_HINT_PAGE {
            crate::PAGE_NUMBER.store(value, Relaxed);
        }
        crate::EXITS.fetch_add(1, Relaxed);
    }

    pub fn in32(port: u16) -> Option<u32> {
        match port {
            abi::PORT_MAGIC => Some(abi::MAGIC),
            abi::PORT_FEATURES => Some(abi::FEATURE_RUNNING << 16 | abi::VERSION),
            _ => None,
        }
    }
}

/// Accesses to ports.
static EXITS: AtomicU64 = AtomicU64::new(0);
/// The number of the vCPU's hint page, as the guest has registered it: its low 32 bits.
static PAGE_NUMBER: AtomicU32 = AtomicU32::new(0);
/// The address of the page.
static PAGE: AtomicUsize = AtomicUsize::new(0);
/// Stores to the page.
static STORES: AtomicU64 = AtomicU64::new(0);

const PAGE_SIZE: usize = 4096;
/// RFLAGS.TF: the next instruction ends with a trap.
const SINGLE_STEP: i64 = 1 << 8;

fn protect(access: i32) {
    let page = PAGE.load(Relaxed) as *mut c_void;
    // SAFETY: the page is that of the guest's static, whose alignment and size are those of a page.
    let result = unsafe { libc::mprotect(page, PAGE_SIZE, access) };
    assert_eq!(result, 0);
}

/// A store to the page: is counted, and carried out by itself.
extern "C" fn on_store(_: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid record of the signal.
    let address = unsafe { (*info).si_addr() } as usize;
    if address & !(PAGE_SIZE - 1) != PAGE.load(Relaxed) {
        // SAFETY: the store is carried out again, and ends the process as it would have without this test.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        return;
    }
    STORES.fetch_add(1, Relaxed);
    protect(libc::PROT_READ | libc::PROT_WRITE);
    set_single_step(context, true);
}

/// The store has been carried out.
extern "C" fn after_store(_: i32, _: *mut libc::siginfo_t, context: *mut c_void) {
    protect(libc::PROT_READ);
    set_single_step(context, false);
}

fn set_single_step(context: *mut c_void, on: bool) {
    // SAFETY: the kernel passes a valid context, and nothing else refers to it.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let flags = &mut context.uc_mcontext.gregs[libc::REG_EFL as usize];
    *flags = if on {
        *flags | SINGLE_STEP
    } else {
        *flags & !SINGLE_STEP
    };
}

fn handle(signal: i32, handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void)) {
    // SAFETY: zeroes are a value of this structure, and the handlers call only what a handler may call.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(signal, &raw const action, null_mut())
    };
    assert_eq!(result, 0);
}

/// Registers the hint page and protects it. Returns the vCPU.
fn begin() -> Cpu {
    let cpu = Cpu::default();
    hints::init();
    assert!(hints::on());
    hints::register(&cpu);
    // The guest's addresses have 44 bits. Here the bits above are those of any other static.
    let high = &raw const EXITS as usize >> 44 << 44;
    PAGE.store(high | (PAGE_NUMBER.load(Relaxed) as usize) << 12, Relaxed);
    handle(libc::SIGSEGV, on_store);
    handle(libc::SIGTRAP, after_store);
    protect(libc::PROT_READ);
    cpu
}

/// Exits and stores to the hint page so far.
fn counts() -> (u64, u64) {
    (EXITS.load(Relaxed), STORES.load(Relaxed))
}

/// Takes and releases `lock`, and checks that this costs no exit and stores only `at_lock`, `at_unlock` times.
fn costs(name: &str, lock: &impl Lock, cpu: &Cpu, at_lock: u64, at_unlock: u64) {
    for _ in 0..3 {
        let (exits, stores) = counts();
        lock.lock::<Hinted>(cpu);
        assert_eq!(counts(), (exits, stores + at_lock), "{name}: at lock");
        lock.unlock::<Hinted>(cpu);
        let all = stores + at_lock + at_unlock;
        assert_eq!(counts(), (exits, all), "{name}: at unlock");
        lock.lock::<Plain>(cpu);
        lock.unlock::<Plain>(cpu);
        assert_eq!(counts(), (exits, all), "{name}: without hints");
    }
}

/// One test, as it has the signals of the process.
#[test]
fn a_lock_without_waiters_takes_no_exit_and_one_store_at_lock_and_one_at_unlock() {
    let cpu = begin();
    let (exits, stores) = counts();
    assert!(
        exits > 0 && stores == 0,
        "the page was registered by an exit"
    );
    costs("tas", &Tas::new(), &cpu, 1, 1);
    costs("ticket", &Ticket::new(), &cpu, 1, 1);
    costs("mcs", &Mcs::new(), &cpu, 1, 1);
    // The count works: a record is several stores.
    let before = counts().1;
    hints::not_waiting(&cpu);
    assert!(counts().1 > before + 2, "a record is several stores");
}
