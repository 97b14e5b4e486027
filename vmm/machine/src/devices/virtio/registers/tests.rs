use virtio_bindings::virtio_config::{VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER};

use super::super::test_support::memory;
use super::*;

const FEATURE: u32 = 9;
const READY: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

struct Driver {
    registers: Registers,
    memory: GuestMemoryMmap,
    /// Queues whose memory the device's thread touches.
    touched: QueueSet,
}

impl Driver {
    fn new() -> Self {
        Self {
            registers: Registers::new(2, Features::of(&[FEATURE]), 2),
            touched: QueueSet::default(),
            memory: memory(),
        }
    }

    fn write(&mut self, register: u32, value: u32) -> RegisterEffect {
        self.registers.write(register.into(), value, &self.memory)
    }

    fn read(&self, register: u32) -> u32 {
        self.registers.read(register.into(), 0, self.touched)
    }

    fn accept(&mut self, features: Features) {
        self.write(reg::VIRTIO_MMIO_STATUS, READY);
        for (which, half) in [(0, Half::Low), (1, Half::High)] {
            self.write(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, which);
            self.write(reg::VIRTIO_MMIO_DRIVER_FEATURES, features.half(half));
        }
        self.write(reg::VIRTIO_MMIO_STATUS, READY | VIRTIO_CONFIG_S_FEATURES_OK);
    }

    fn accepted(&self) -> bool {
        self.read(reg::VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK != 0
    }

    fn describe(&mut self, size: u32, at: u64) {
        self.write(reg::VIRTIO_MMIO_QUEUE_SEL, 0);
        self.write(reg::VIRTIO_MMIO_QUEUE_NUM, size);
        for (low, high, offset) in [
            (
                reg::VIRTIO_MMIO_QUEUE_DESC_LOW,
                reg::VIRTIO_MMIO_QUEUE_DESC_HIGH,
                0,
            ),
            (
                reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW,
                reg::VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
                0x1000,
            ),
            (
                reg::VIRTIO_MMIO_QUEUE_USED_LOW,
                reg::VIRTIO_MMIO_QUEUE_USED_HIGH,
                0x2000,
            ),
        ] {
            self.write(low, (at + offset) as u32);
            self.write(high, ((at + offset) >> 32) as u32);
        }
        self.write(reg::VIRTIO_MMIO_QUEUE_READY, 1);
    }

    fn go(&mut self) -> RegisterEffect {
        let status = self.read(reg::VIRTIO_MMIO_STATUS);
        self.write(reg::VIRTIO_MMIO_STATUS, status | VIRTIO_CONFIG_S_DRIVER_OK)
    }
}

const VERSION_1: u32 = VIRTIO_F_VERSION_1;

#[test]
fn a_driver_that_keeps_the_sequence_starts_the_device() {
    let mut driver = Driver::new();
    assert_eq!(driver.read(reg::VIRTIO_MMIO_MAGIC_VALUE), MAGIC);
    driver.accept(Features::of(&[VERSION_1, FEATURE]));
    assert!(driver.accepted());
    driver.describe(8, 0x4000);
    let RegisterEffect::Start(DriverSetup { features, queues }) = driver.go() else {
        panic!("the device does not start");
    };
    assert_eq!(features, Features::of(&[VERSION_1, FEATURE]));
    assert_eq!((queues[0].size(), queues[0].desc_table()), (8, 0x4000));
    assert!(matches!(
        driver.write(reg::VIRTIO_MMIO_STATUS, 0),
        RegisterEffect::Reset
    ));
    assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 0);
}

#[test]
fn features_that_are_not_offered_or_a_legacy_driver_are_not_accepted() {
    for features in [&[VERSION_1, 3][..], &[FEATURE], &[]] {
        let mut driver = Driver::new();
        driver.accept(Features::of(features));
        assert!(!driver.accepted());
    }
}

#[test]
fn queues_that_cannot_work_do_not_start_and_the_driver_must_reset() {
    for (size, at) in [
        (0, 0x4000),
        (7, 0x4000),
        (512, 0x4000),
        (8, 1 << 40),
        (8, 1),
        (8, !0x2fff),
    ] {
        let mut driver = Driver::new();
        driver.accept(Features::of(&[VERSION_1]));
        driver.describe(size, at);
        assert!(
            matches!(driver.go(), RegisterEffect::None),
            "{size} {at:#x}"
        );
        let status = driver.read(reg::VIRTIO_MMIO_STATUS);
        assert_ne!(status & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    }
}

#[test]
fn a_queue_that_works_cannot_be_moved() {
    let mut driver = Driver::new();
    driver.accept(Features::of(&[VERSION_1]));
    driver.describe(8, 0x4000);
    driver.go();
    driver.describe(8, 0x8000);
    assert_eq!(driver.registers.queues[0].descriptor_table, 0x4000);
}

impl Driver {
    /// A driver whose queue 0 works.
    fn at_work() -> Self {
        let mut driver = Self::new();
        driver.accept(Features::of(&[VERSION_1]));
        driver.describe(8, 0x4000);
        assert!(matches!(driver.go(), RegisterEffect::Start(_)));
        driver
    }

    fn set_ready(&mut self, queue: u32, ready: u32) -> RegisterEffect {
        self.write(reg::VIRTIO_MMIO_QUEUE_SEL, queue);
        self.write(reg::VIRTIO_MMIO_QUEUE_READY, ready)
    }
}

#[test]
fn a_stopped_queue_reads_as_stopped_when_its_memory_is_the_drivers() {
    let mut driver = Driver::at_work();
    let RegisterEffect::ReplaceQueue(0, queue) = driver.set_ready(0, 0) else {
        panic!("the queue does not stop");
    };
    assert!(!queue.ready());
    driver.touched = QueueSet::only(0);
    assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 1);
    driver.touched = QueueSet::only(1);
    assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 0);
    // There is nothing more to stop, and the device goes on.
    assert!(matches!(driver.set_ready(0, 0), RegisterEffect::None));
    let working = READY | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;
    assert_eq!(driver.read(reg::VIRTIO_MMIO_STATUS), working);
}

#[test]
fn a_queue_that_was_stopped_or_never_worked_can_be_described_and_started() {
    let mut driver = Driver::at_work();
    driver.set_ready(0, 0);
    for index in [0, 1] {
        driver.write(reg::VIRTIO_MMIO_QUEUE_SEL, index);
        driver.write(reg::VIRTIO_MMIO_QUEUE_NUM, 16);
        driver.write(reg::VIRTIO_MMIO_QUEUE_DESC_LOW, 0x8000);
        driver.write(reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x9000);
        driver.write(reg::VIRTIO_MMIO_QUEUE_USED_LOW, 0xa000);
        let RegisterEffect::ReplaceQueue(at, queue) = driver.set_ready(index, 1) else {
            panic!("the device does not start");
        };
        assert_eq!(at, index as usize);
        assert!(queue.ready());
        assert_eq!((queue.size(), queue.desc_table()), (16, 0x8000));
        assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 1);
    }
}

#[test]
fn a_queue_that_cannot_work_is_not_started_again_and_the_driver_must_reset() {
    let mut driver = Driver::at_work();
    driver.set_ready(0, 0);
    driver.write(reg::VIRTIO_MMIO_QUEUE_NUM, 7);
    assert!(matches!(driver.set_ready(0, 1), RegisterEffect::None));
    assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 0);
    let status = driver.read(reg::VIRTIO_MMIO_STATUS);
    assert_ne!(status & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

#[test]
fn negotiated_features_do_not_change_while_the_device_works() {
    let mut driver = Driver::at_work();
    for which in [0, 1] {
        driver.write(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, which);
        driver.write(reg::VIRTIO_MMIO_DRIVER_FEATURES, u32::MAX);
    }
    assert_eq!(driver.registers.accepted, Features::of(&[VERSION_1]));
    let status = driver.read(reg::VIRTIO_MMIO_STATUS);
    // Bits are only added, and the device is not started twice.
    assert!(matches!(driver.go(), RegisterEffect::None));
    assert!(matches!(
        driver.write(reg::VIRTIO_MMIO_STATUS, 1),
        RegisterEffect::None
    ));
    assert_eq!(driver.read(reg::VIRTIO_MMIO_STATUS), status);
}

#[test]
fn a_reset_is_complete_when_no_memory_is_touched_any_more() {
    let mut driver = Driver::at_work();
    let before = driver.read(reg::VIRTIO_MMIO_STATUS);
    assert!(matches!(
        driver.write(reg::VIRTIO_MMIO_STATUS, 0),
        RegisterEffect::Reset
    ));
    assert!(!driver.registers.completes_reset(QueueSet::only(1)));
    assert_eq!(driver.read(reg::VIRTIO_MMIO_STATUS), before);
    // A second reset does not undo the first one, which is not complete.
    driver.write(reg::VIRTIO_MMIO_STATUS, 0);
    assert_eq!(driver.read(reg::VIRTIO_MMIO_STATUS), before);
    assert!(driver.registers.completes_reset(QueueSet::default()));
    assert!(!driver.registers.completes_reset(QueueSet::default()));
    assert_eq!(driver.read(reg::VIRTIO_MMIO_STATUS), 0);
}

#[test]
fn a_driver_that_does_not_wait_for_a_reset_goes_on_at_once() {
    let mut driver = Driver::at_work();
    driver.touched = QueueSet::only(0);
    driver.write(reg::VIRTIO_MMIO_STATUS, 0);
    assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 0);
    driver.write(reg::VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    assert_eq!(
        driver.read(reg::VIRTIO_MMIO_STATUS),
        VIRTIO_CONFIG_S_ACKNOWLEDGE
    );
}

#[test]
fn a_reset_takes_back_the_accepted_features_and_selects_the_first_queue() {
    let mut driver = Driver::at_work();
    driver.write(reg::VIRTIO_MMIO_QUEUE_SEL, 99);
    assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
    driver.write(reg::VIRTIO_MMIO_STATUS, 0);
    assert!(driver.registers.completes_reset(QueueSet::default()));
    assert_eq!(
        driver.read(reg::VIRTIO_MMIO_QUEUE_NUM_MAX),
        u32::from(MAX_QUEUE_SIZE)
    );
    driver.write(reg::VIRTIO_MMIO_STATUS, READY | VIRTIO_CONFIG_S_FEATURES_OK);
    assert!(!driver.accepted(), "it has not accepted VERSION_1 anew");
}
