use virtio_bindings::virtio_config::{VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER};

use super::*;

const FEATURE: u64 = 1 << 9;
const READY: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

struct Driver {
    registers: Registers,
    memory: GuestMemoryMmap,
    /// Queues whose memory the device's thread touches.
    touched: u32,
}

impl Driver {
    fn new() -> Self {
        Self {
            registers: Registers::new(2, FEATURE, 2),
            touched: 0,
            memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("memory"),
        }
    }

    fn write(&mut self, register: u32, value: u32) -> Action {
        self.registers.write(register.into(), value, &self.memory)
    }

    fn read(&self, register: u32) -> u32 {
        self.registers.read(register.into(), 0, self.touched)
    }

    fn accept(&mut self, features: u64) {
        self.write(reg::VIRTIO_MMIO_STATUS, READY);
        for which in [0, 1] {
            self.write(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, which);
            self.write(reg::VIRTIO_MMIO_DRIVER_FEATURES, half(features, which));
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

    fn go(&mut self) -> Action {
        let status = self.read(reg::VIRTIO_MMIO_STATUS);
        self.write(reg::VIRTIO_MMIO_STATUS, status | VIRTIO_CONFIG_S_DRIVER_OK)
    }
}

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;

#[test]
fn a_driver_that_keeps_the_order_starts_the_device() {
    let mut driver = Driver::new();
    assert_eq!(driver.read(reg::VIRTIO_MMIO_MAGIC_VALUE), MAGIC);
    driver.accept(VERSION_1 | FEATURE);
    assert!(driver.accepted());
    driver.describe(8, 0x4000);
    let Action::Start(Setup { features, queues }) = driver.go() else {
        panic!("it does not start");
    };
    assert_eq!(features, VERSION_1 | FEATURE);
    assert_eq!((queues[0].size(), queues[0].desc_table()), (8, 0x4000));
    assert!(matches!(
        driver.write(reg::VIRTIO_MMIO_STATUS, 0),
        Action::Stop
    ));
    assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 0);
}

#[test]
fn features_that_are_not_offered_or_a_legacy_driver_are_not_accepted() {
    for features in [VERSION_1 | 1 << 3, FEATURE, 0] {
        let mut driver = Driver::new();
        driver.accept(features);
        assert!(!driver.accepted());
    }
}

#[test]
fn queues_that_cannot_work_do_not_start_and_the_driver_is_told() {
    for (size, at) in [
        (0, 0x4000),
        (7, 0x4000),
        (512, 0x4000),
        (8, 1 << 40),
        (8, 1),
        (8, !0x2fff),
    ] {
        let mut driver = Driver::new();
        driver.accept(VERSION_1);
        driver.describe(size, at);
        assert!(matches!(driver.go(), Action::None), "{size} {at:#x}");
        let status = driver.read(reg::VIRTIO_MMIO_STATUS);
        assert_ne!(status & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    }
}

#[test]
fn a_queue_that_works_cannot_be_moved() {
    let mut driver = Driver::new();
    driver.accept(VERSION_1);
    driver.describe(8, 0x4000);
    driver.go();
    driver.describe(8, 0x8000);
    assert_eq!(driver.registers.queues[0].descriptors, 0x4000);
}

impl Driver {
    /// One whose queue 0 works.
    fn at_work() -> Self {
        let mut driver = Self::new();
        driver.accept(VERSION_1);
        driver.describe(8, 0x4000);
        assert!(matches!(driver.go(), Action::Start(_)));
        driver
    }

    fn set_ready(&mut self, queue: u32, ready: u32) -> Action {
        self.write(reg::VIRTIO_MMIO_QUEUE_SEL, queue);
        self.write(reg::VIRTIO_MMIO_QUEUE_READY, ready)
    }
}

#[test]
fn a_queue_that_works_can_be_stopped_and_reads_so_when_its_memory_is_the_drivers() {
    let mut driver = Driver::at_work();
    let Action::Change(0, queue) = driver.set_ready(0, 0) else {
        panic!("it does not stop");
    };
    assert!(!queue.ready());
    driver.touched = queue_access::bit(0);
    assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 1);
    driver.touched = queue_access::bit(1);
    assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 0);
    // Nothing more to stop, and the device goes on.
    assert!(matches!(driver.set_ready(0, 0), Action::None));
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
        let Action::Change(at, queue) = driver.set_ready(index, 1) else {
            panic!("it does not start");
        };
        assert_eq!(at, index as usize);
        assert!(queue.ready());
        assert_eq!((queue.size(), queue.desc_table()), (16, 0x8000));
        assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 1);
    }
}

#[test]
fn a_queue_that_cannot_work_is_not_started_again_and_the_driver_is_told() {
    let mut driver = Driver::at_work();
    driver.set_ready(0, 0);
    driver.write(reg::VIRTIO_MMIO_QUEUE_NUM, 7);
    assert!(matches!(driver.set_ready(0, 1), Action::None));
    assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 0);
    let status = driver.read(reg::VIRTIO_MMIO_STATUS);
    assert_ne!(status & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

#[test]
fn what_is_agreed_on_does_not_change_while_the_device_works() {
    let mut driver = Driver::at_work();
    for which in [0, 1] {
        driver.write(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, which);
        driver.write(reg::VIRTIO_MMIO_DRIVER_FEATURES, u32::MAX);
    }
    assert_eq!(driver.registers.accepted, VERSION_1);
    let status = driver.read(reg::VIRTIO_MMIO_STATUS);
    // Bits are only added, and the device is not started twice.
    assert!(matches!(driver.go(), Action::None));
    assert!(matches!(
        driver.write(reg::VIRTIO_MMIO_STATUS, 1),
        Action::None
    ));
    assert_eq!(driver.read(reg::VIRTIO_MMIO_STATUS), status);
}

#[test]
fn a_reset_is_complete_when_no_memory_is_touched_any_more() {
    let mut driver = Driver::at_work();
    let before = driver.read(reg::VIRTIO_MMIO_STATUS);
    assert!(matches!(
        driver.write(reg::VIRTIO_MMIO_STATUS, 0),
        Action::Stop
    ));
    assert!(!driver.registers.completes_reset(queue_access::bit(1)));
    assert_eq!(driver.read(reg::VIRTIO_MMIO_STATUS), before);
    // Not complete is not undone: a second one changes nothing.
    driver.write(reg::VIRTIO_MMIO_STATUS, 0);
    assert_eq!(driver.read(reg::VIRTIO_MMIO_STATUS), before);
    assert!(driver.registers.completes_reset(0));
    assert!(!driver.registers.completes_reset(0));
    assert_eq!(driver.read(reg::VIRTIO_MMIO_STATUS), 0);
}

#[test]
fn a_driver_that_does_not_wait_for_a_reset_goes_on_at_once() {
    let mut driver = Driver::at_work();
    driver.touched = queue_access::bit(0);
    driver.write(reg::VIRTIO_MMIO_STATUS, 0);
    assert_eq!(driver.read(reg::VIRTIO_MMIO_QUEUE_READY), 0);
    driver.write(reg::VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    assert_eq!(
        driver.read(reg::VIRTIO_MMIO_STATUS),
        VIRTIO_CONFIG_S_ACKNOWLEDGE
    );
}
