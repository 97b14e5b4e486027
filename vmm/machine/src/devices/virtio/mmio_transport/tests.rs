use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use virtio_bindings::virtio_mmio as reg;
use vm_memory::GuestAddress;

use super::super::{Devices, Rings};
use super::*;

/// A device with a configuration of 5 bytes that does nothing.
struct Idle;

impl Device for Idle {
    fn kind(&self) -> u32 {
        2
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> usize {
        1
    }

    fn config(&self) -> Vec<u8> {
        vec![1, 2, 3, 4, 5]
    }

    fn serve(&mut self, _: usize, _: &mut Rings) {}
}

/// A window with its thread, and no virtual machine around it.
fn window() -> Window {
    window_of(Box::new(Idle))
}

fn window_of(device: Box<dyn Device>) -> Window {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("memory");
    let interrupt = Arc::new(Interrupt::unconnected().expect("a line"));
    let kicks = vec![EventFd::new(EFD_NONBLOCK).expect("an eventfd")];
    let line = Arc::clone(&interrupt);
    Window {
        place: Place::of_slot(0),
        memory: memory.clone(),
        registers: Mutex::new(Registers::new(2, 0, 1)),
        config: Idle.config(),
        interrupt,
        worker: Worker::spawn(0, device, kicks, memory, line).expect("a thread"),
    }
}

fn read<const N: usize>(window: &Window, offset: u64) -> [u8; N] {
    let mut data = [0xaa; N];
    window.read(offset, &mut data);
    data
}

#[test]
fn the_configuration_is_read_in_any_width_and_is_zero_beyond_its_end() {
    let window = window();
    assert_eq!(read(&window, CONFIG), [1]);
    assert_eq!(read(&window, CONFIG + 1), [2, 3, 4]);
    assert_eq!(read(&window, CONFIG), [1, 2, 3, 4, 5, 0, 0, 0]);
    assert_eq!(read(&window, LENGTH - 1), [0, 0, 0, 0]);
}

#[test]
fn registers_in_odd_widths_or_between_two_are_not_there() {
    let window = window();
    let magic = u64::from(reg::VIRTIO_MMIO_MAGIC_VALUE);
    assert_eq!(read(&window, magic), *b"virt");
    assert_eq!(read(&window, magic), [0xff; 2]);
    assert_eq!(read(&window, magic), [0xff; 8]);
    assert_eq!(read(&window, magic + 1), [0; 4]);
}

#[test]
fn writes_in_odd_widths_and_to_the_configuration_change_nothing() {
    let window = window();
    let status = u64::from(reg::VIRTIO_MMIO_STATUS);
    window.write(status, &[1]);
    window.write(status, &[1, 0, 0, 0, 0, 0, 0, 0]);
    window.write(status + 1, &[1, 0, 0, 0]);
    window.write(CONFIG, &[9; 4]);
    window.write(LENGTH - 1, &[9; 4]);
    assert_eq!(read(&window, status), [0; 4]);
    assert_eq!(read(&window, CONFIG), [1, 2, 3, 4]);
    window.write(status, &[1, 0, 0, 0]);
    assert_eq!(read(&window, status), [1, 0, 0, 0]);
}

/// A device that hangs when it is started, as on a disk of the host that does not answer.
struct Hung {
    begins: Sender<()>,
    answer: Receiver<()>,
}

impl Device for Hung {
    fn kind(&self) -> u32 {
        2
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> usize {
        1
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn serve(&mut self, _: usize, _: &mut Rings) {}

    fn restarted(&mut self, _: &Rings) {
        self.begins.send(()).expect("the test listens");
        // The end of the test is an answer too.
        let _ = self.answer.recv();
    }
}

#[test]
fn a_device_that_hangs_keeps_no_other_of_its_guest_from_ending() {
    let (begins, begun) = channel();
    let (go_on, answer) = channel();
    let hung = window_of(Box::new(Hung { begins, answer }));
    hung.worker.set_up(Setup::default());
    begun.recv().expect("it hangs");
    let (lives, gone) = channel();
    let (_, never) = channel();
    let other = window_of(Box::new(Hung {
        begins: lives,
        answer: never,
    }));
    let devices = Devices {
        windows: vec![hung, other],
    };
    let ends = thread::spawn(move || drop(devices));
    let gone = gone.recv_timeout(Duration::from_secs(60));
    assert_eq!(gone, Err(RecvTimeoutError::Disconnected));
    assert!(!ends.is_finished());
    go_on.send(()).expect("it waits");
    ends.join().expect("no panic");
}

fn write(window: &Window, register: u32, value: u32) {
    window.write(register.into(), &value.to_le_bytes());
}

fn word(window: &Window, register: u32) -> u32 {
    u32::from_le_bytes(read(window, register.into()))
}

#[test]
fn a_reset_is_complete_when_the_thread_touches_no_memory_and_leaves_no_interrupt() {
    let window = window();
    write(&window, reg::VIRTIO_MMIO_STATUS, 1);
    // What the device's thread does.
    let touched = window.worker.access().touch(0, || {
        write(&window, reg::VIRTIO_MMIO_STATUS, 0);
        assert_eq!(word(&window, reg::VIRTIO_MMIO_STATUS), 1);
        window.interrupt.queue_used();
    });
    assert!(touched.is_some());
    assert_eq!(word(&window, reg::VIRTIO_MMIO_STATUS), 0);
    assert_eq!(word(&window, reg::VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}
