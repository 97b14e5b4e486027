use virtio_bindings::virtio_config::{VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER};

use super::*;

const FEATURE: u64 = 1 << 9;
const READY: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

struct Driver {
    registers: Registers,
    memory: GuestMemoryMmap,
}

impl Driver {
    fn new() -> Self {
        Self {
            registers: Registers::new(2, FEATURE, 1),
            memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("memory"),
        }
    }

    fn write(&mut self, register: u32, value: u32) -> Action {
        self.registers.write(register.into(), value, &self.memory)
    }

    fn read(&self, register: u32) -> u32 {
        self.registers.read(register.into(), 0)
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
    let Action::Start(queues) = driver.go() else {
        panic!("it does not start");
    };
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
