//! Random behaviour of a guest and programs.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

use super::super::super::device::VirtioDevice;
use super::super::credit::BUFFER;
use super::super::packet::{HEADER, PacketHeader};
use super::harness::{HOST_PORT, TestGuest, drain};

/// A pseudo-random generator (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn pick<T: Copy, const N: usize>(&mut self, from: [T; N]) -> T {
        from[self.roll(N as u64) as usize]
    }
}

/// A guest and programs of the host, which do random things.
struct RandomWalk {
    guest: TestGuest,
    listener: UnixListener,
    programs: Vec<UnixStream>,
    dice: Dice,
}

impl RandomWalk {
    fn new(seed: u64) -> Self {
        let guest = TestGuest::new();
        Self {
            listener: guest.listen(),
            guest,
            programs: Vec::new(),
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        }
    }

    fn step(&mut self) {
        match self.dice.roll(12) {
            0 => self.programs.push(self.guest.program(b"CONNECT 1\n")),
            1..=4 => self.program_step(),
            5 => {
                if let Ok((stream, _)) = self.listener.accept() {
                    stream.set_nonblocking(true).expect("does not wait");
                    self.programs.push(stream);
                }
            }
            6 | 7 => {
                self.guest.next();
            }
            8 if self.dice.roll(50) == 0 => self.guest.vsock.on_restart(&self.guest.queues),
            _ => self.send_packet(),
        }
    }

    /// One program closes its socket, reads, writes, or ends a direction.
    fn program_step(&mut self) {
        if self.programs.is_empty() {
            return;
        }
        let index = self.dice.roll(self.programs.len() as u64) as usize;
        match self.dice.roll(4) {
            0 => drop(self.programs.swap_remove(index)),
            1 => drop(drain(&self.programs[index])),
            2 => drop(self.programs[index].write(&[1; 5000])),
            _ => {
                let direction = self.dice.pick([Shutdown::Read, Shutdown::Write]);
                let _ = self.programs[index].shutdown(direction);
            }
        }
    }

    fn send_packet(&mut self) {
        let (dice, guest) = (&mut self.dice, &mut self.guest);
        let host = dice.pick([HOST_PORT, HOST_PORT, 1 << 30, (1 << 30) + 1, 9]);
        let any = dice.roll(100_000) as u32;
        guest.fwd_cnt = dice.pick([0, any, u32::MAX]);
        guest.buf_alloc = dice.pick([0, 1 << 20, u32::MAX]);
        let len = dice.pick([0, 10, 30_000, BUFFER, u32::MAX]);
        let header = PacketHeader {
            len,
            flags: dice.roll(8) as u32,
            ..guest.header(dice.roll(9) as u16, host, dice.roll(3) as u32)
        };
        let there = len.min(BUFFER + 10) as usize;
        guest.send_parts(&header.bytes(), &[HEADER, there]);
    }
}

#[test]
fn whatever_both_sides_do_all_bounds_hold() {
    for seed in 1..=20 {
        let mut walk = RandomWalk::new(seed);
        for _ in 0..3000 {
            walk.step();
            walk.guest.vsock.muxer.assert_bounds();
        }
        // Nothing keeps the thread awake.
        let mut guest = walk.guest;
        while guest.next().is_some() {}
        assert!(!guest.has_host_event());
    }
}
