use virtio_bindings::virtio_mmio as reg;

use super::super::features::Features;
use super::super::queues::Queues;
use super::super::test_support::transport_of;
use super::*;

/// A device with a configuration of 5 bytes that does nothing.
struct Idle;

impl VirtioDevice for Idle {
    fn device_id(&self) -> u32 {
        2
    }

    fn features(&self) -> Features {
        Features::default()
    }

    fn queue_count(&self) -> usize {
        1
    }

    fn config_space(&self) -> Vec<u8> {
        vec![1, 2, 3, 4, 5]
    }

    fn process_queue(&mut self, _: usize, _: &mut Queues) {}
}

fn transport() -> MmioTransport {
    transport_of(Box::new(Idle))
}

/// The last byte of the region.
fn last() -> u64 {
    MmioRegion::of_slot(0).length - 1
}

fn read<const N: usize>(transport: &MmioTransport, offset: u64) -> [u8; N] {
    let mut data = [0xaa; N];
    transport.read(offset, &mut data);
    data
}

#[test]
fn the_configuration_is_read_in_any_width_and_is_zero_beyond_its_end() {
    let transport = transport();
    assert_eq!(read(&transport, CONFIG_SPACE), [1]);
    assert_eq!(read(&transport, CONFIG_SPACE + 1), [2, 3, 4]);
    assert_eq!(read(&transport, CONFIG_SPACE), [1, 2, 3, 4, 5, 0, 0, 0]);
    assert_eq!(read(&transport, last()), [0, 0, 0, 0]);
}

#[test]
fn registers_exist_only_at_their_addresses_and_in_their_width() {
    let transport = transport();
    let magic = u64::from(reg::VIRTIO_MMIO_MAGIC_VALUE);
    assert_eq!(read(&transport, magic), *b"virt");
    assert_eq!(read(&transport, magic), [0xff; 2]);
    assert_eq!(read(&transport, magic), [0xff; 8]);
    assert_eq!(read(&transport, magic + 1), [0; 4]);
}

#[test]
fn writes_in_odd_widths_and_to_the_configuration_change_nothing() {
    let transport = transport();
    let status = u64::from(reg::VIRTIO_MMIO_STATUS);
    transport.write(status, &[1]);
    transport.write(status, &[1, 0, 0, 0, 0, 0, 0, 0]);
    transport.write(status + 1, &[1, 0, 0, 0]);
    transport.write(CONFIG_SPACE, &[9; 4]);
    transport.write(last(), &[9; 4]);
    assert_eq!(read(&transport, status), [0; 4]);
    assert_eq!(read(&transport, CONFIG_SPACE), [1, 2, 3, 4]);
    transport.write(status, &[1, 0, 0, 0]);
    assert_eq!(read(&transport, status), [1, 0, 0, 0]);
}

fn write(transport: &MmioTransport, register: u32, value: u32) {
    transport.write(register.into(), &value.to_le_bytes());
}

fn word(transport: &MmioTransport, register: u32) -> u32 {
    u32::from_le_bytes(read(transport, register.into()))
}

#[test]
fn a_reset_is_complete_when_the_thread_touches_no_memory_and_no_irq_is_pending() {
    let transport = transport();
    write(&transport, reg::VIRTIO_MMIO_STATUS, 1);
    // As on the device's thread.
    let touched = transport.worker.access().touch(0, || {
        write(&transport, reg::VIRTIO_MMIO_STATUS, 0);
        assert_eq!(word(&transport, reg::VIRTIO_MMIO_STATUS), 1);
        transport.irq.queue_used();
    });
    assert!(touched.is_some());
    assert_eq!(word(&transport, reg::VIRTIO_MMIO_STATUS), 0);
    assert_eq!(word(&transport, reg::VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}
