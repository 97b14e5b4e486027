//! What tests of several devices share: memory, queues, a clock, and a transport without a virtual machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use baton_config::rate::{BucketConfig, RateLimit};
use virtio_queue::Queue;
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::device::VirtioDevice;
use super::irq_trigger::IrqTrigger;
use super::mailbox::Mailbox;
use super::mmio_transport::MmioTransport;
use super::queues::Queues;
use super::rate_limiter::RateLimiter;

/// 1 MiB of guest memory.
pub(super) fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("memory")
}

/// The device's side of `queues`, with an IRQ that is connected to nothing.
pub(super) fn queues_of(memory: &GuestMemoryMmap, queues: Vec<Queue>) -> Queues {
    let irq = Arc::new(IrqTrigger::unconnected().expect("an eventfd"));
    let mailbox = Arc::new(Mailbox::new().expect("a mailbox"));
    let mut all = Queues::new(memory.clone(), irq, mailbox);
    all.setup.queues = queues;
    all
}

/// How many requests of a queue the device has used.
pub(super) fn used(mock: &MockSplitQueue<GuestMemoryMmap>) -> u16 {
    u16::from_le(mock.used().idx().load())
}

/// The transport of `device`, with its thread, and no virtual machine around it.
pub(crate) fn transport_of(device: Box<dyn VirtioDevice>) -> MmioTransport {
    MmioTransport::unconnected(device, &memory()).expect("a thread")
}

/// A clock that moves only when a test lets time pass.
#[derive(Clone, Default)]
pub(super) struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub(super) fn pass_ms(&self, ms: u64) {
        self.0.fetch_add(ms * 1_000_000, Ordering::Relaxed);
    }

    /// Applies `limit` by this clock.
    pub(super) fn rate_limiter(&self, limit: RateLimit) -> RateLimiter {
        let time = Arc::clone(&self.0);
        let now = Box::new(move || time.load(Ordering::Relaxed));
        RateLimiter::with_clock(&limit, now).expect("a timer")
    }
}

/// `size` tokens in each 100 ms.
pub(super) fn per_100ms(size: u64) -> Option<BucketConfig> {
    Some(BucketConfig {
        size,
        refill: Duration::from_millis(100),
        burst: 0,
    })
}
