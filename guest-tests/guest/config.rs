//! The guest's command line: `key=value` words.

use core::cell::UnsafeCell;

use crate::boot_params;
use crate::console;
use crate::cpu::MAX_TASKS;
use crate::exit;
use crate::step::Step;
use crate::testdev::EXIT_USAGE;

/// Which lock the lock workloads use.
#[derive(Clone, Copy, Debug)]
pub enum LockKind {
    Tas,
    Ticket,
    Mcs,
    /// Not a spinlock: its waiters sleep.
    Mutex,
}

/// What the guest does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Workload {
    Lock,
    ThrottledHolder,
    Chain,
    Deadlock,
    Devices,
    Queue,
    Hog,
    PingPong,
    Preempt,
    Roam,
    Carry,
    Halt,
    Idle,
    Liar,
    Stopped,
    Boot,
    TripleFault,
    Fault,
    DoorbellStorm,
    Hostile(Attack),
}

/// Attempts to take CPU time from other guests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Attack {
    EscapeInt,
    EscapeFault,
    EscapeIret,
    DeviceHog,
    IdleTimers,
    IpiStorm,
    WakeStorm,
    ApicTimers,
    LateHalts,
    SerialStrings,
}

/// What the guest publishes to the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Hints {
    Off,
    /// Which vCPUs hold locks and which wait.
    On,
    /// Nothing, as an unmodified kernel, which has no doorbells either: a vCPU idles by a halt.
    Stock,
}

/// How an idle vCPU gives its CPU back.
#[derive(Clone, Copy, Debug)]
pub enum IdleKind {
    /// The idle doorbell where there is one, else a halt.
    Auto,
    /// HLT, ended by an inter-processor interrupt.
    Halt,
    /// The vCPU keeps its CPU and spins.
    Pause,
}

/// The parsed command line. Durations are in nanoseconds; `guest-tests/src/lib.rs` describes the keys.
#[derive(Clone, Copy)]
pub struct Config {
    pub workload: Workload,
    pub lock: LockKind,
    pub hints: Hints,
    /// Waiters go idle after spinning for a while.
    pub park: bool,
    /// Spin iterations before a waiter goes idle; the default is that of Linux.
    pub spin: u32,
    /// Tasks of each vCPU in the workloads that have tasks.
    pub tasks: u32,
    /// How often the timer preempts a task, nanoseconds; 0 for never.
    pub tick: u32,
    pub hold: Option<u64>,
    pub outside: Option<u64>,
    /// How long the workload lasts; 0 for ever.
    pub seconds: u64,
    /// The workload ends after so many acquisitions (or rounds) per vCPU instead.
    pub acquisitions: Option<u64>,
    /// Report the times of critical sections.
    pub log: bool,
    /// Rounds of each part of `halt`; stops that `stopped` waits for.
    pub count: u64,
    /// The period of the workloads that have a timer.
    pub period: u64,
    /// Arm the timer through the TSC-deadline MSR.
    pub deadline_timer: bool,
    pub idle: IdleKind,
    pub seed: u64,
    pub cpus: Option<u64>,
    pub tsc_khz: Option<u64>,
}

/// The configuration, which all vCPUs read.
struct Global(UnsafeCell<Config>);

// SAFETY: written once by vCPU 0 before the other vCPUs start.
unsafe impl Sync for Global {}

static CONFIG: Global = Global(UnsafeCell::new(Config {
    workload: Workload::Lock,
    lock: LockKind::Ticket,
    hints: Hints::Off,
    park: false,
    spin: 1 << 15,
    tasks: 1,
    tick: 0,
    hold: None,
    outside: None,
    seconds: 1_000_000_000,
    acquisitions: None,
    log: false,
    count: 20,
    period: 1_000_000,
    deadline_timer: false,
    idle: IdleKind::Auto,
    seed: 1,
    cpus: None,
    tsc_khz: None,
}));

/// The command line; the defaults before [`init`].
pub fn get() -> &'static Config {
    // SAFETY: only `init` writes, while there are no references.
    unsafe { &*CONFIG.0.get() }
}

/// Parses the command line of the boot parameters; ends the guest if a word is unknown.
pub fn init() {
    let text = boot_params::command_line();
    let Ok(text) = str::from_utf8(text) else {
        console::line(format_args!("guest: the command line is not UTF-8"));
        exit::end(EXIT_USAGE);
    };
    let mut config = *get();
    for word in text.split_ascii_whitespace() {
        if parse(&mut config, word).is_none() {
            console::line(format_args!(
                "guest: cannot understand {word:?} on the command line"
            ));
            exit::end(EXIT_USAGE);
        }
    }
    // SAFETY: no other vCPU runs yet, and there are no references.
    unsafe { *CONFIG.0.get() = config };
}

/// The key of a step of the workload `devices`.
const STEP: &str = "do";

/// The steps on the command line, in order, each with its text.
pub fn steps() -> impl Iterator<Item = (&'static str, Step)> {
    let text = str::from_utf8(boot_params::command_line()).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|word| {
        let text = word.strip_prefix(STEP)?.strip_prefix('=')?;
        Some((text, Step::parse(text)?))
    })
}

fn parse(config: &mut Config, word: &str) -> Option<()> {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    match key {
        "workload" => config.workload = workload(value)?,
        "lock" => config.lock = lock_kind(value)?,
        "hints" => config.hints = hints(value)?,
        "log" => config.log = one_of(value, "off", "on")?,
        "wait" => config.park = one_of(value, "spin", "halt")?,
        "timer" => config.deadline_timer = one_of(value, "oneshot", "deadline")?,
        "idle" => config.idle = idle_kind(value)?,
        "spin" => config.spin = value.parse().ok()?,
        "tasks" => config.tasks = tasks(value)?,
        "tick" => config.tick = tick(value)?,
        "hold" => config.hold = Some(duration(value)?),
        "outside" => config.outside = Some(duration(value)?),
        "period" => config.period = duration(value)?,
        "seconds" => config.seconds = fixed_point(value, 1_000_000_000)?,
        "acquisitions" => config.acquisitions = Some(value.parse().ok()?),
        "count" => config.count = value.parse().ok()?,
        "seed" => config.seed = value.parse().ok()?,
        "cpus" => config.cpus = Some(value.parse().ok()?),
        "tsc_khz" => config.tsc_khz = Some(value.parse().ok()?),
        STEP if Step::parse(value).is_some() => {}
        "console" if value.starts_with("ttyS0") => console::use_port(console::PORT_SERIAL),
        _ if for_linux(key) => {}
        _ => return None,
    }
    Some(())
}

fn lock_kind(name: &str) -> Option<LockKind> {
    Some(match name {
        "tas" => LockKind::Tas,
        "ticket" => LockKind::Ticket,
        "mcs" => LockKind::Mcs,
        "mutex" => LockKind::Mutex,
        _ => return None,
    })
}

fn hints(name: &str) -> Option<Hints> {
    Some(match name {
        "off" => Hints::Off,
        "on" => Hints::On,
        "stock" => Hints::Stock,
        _ => return None,
    })
}

fn idle_kind(name: &str) -> Option<IdleKind> {
    Some(match name {
        "auto" => IdleKind::Auto,
        "hlt" => IdleKind::Halt,
        "pause" => IdleKind::Pause,
        _ => return None,
    })
}

fn tasks(value: &str) -> Option<u32> {
    let tasks = value.parse().ok()?;
    (1..=MAX_TASKS as u32).contains(&tasks).then_some(tasks)
}

/// Words for Linux, which some VMMs add to every command line.
fn for_linux(key: &str) -> bool {
    key.contains('.')
        || matches!(
            key,
            "console" | "earlycon" | "reboot" | "panic" | "pci" | "acpi" | "root"
        )
        || matches!(
            key,
            "rw" | "ro" | "quiet" | "nomodule" | "rootfstype" | "init"
        )
}

fn workload(name: &str) -> Option<Workload> {
    Some(match name {
        "lock" => Workload::Lock,
        "throttled-holder" => Workload::ThrottledHolder,
        "chain" => Workload::Chain,
        "deadlock" => Workload::Deadlock,
        "devices" => Workload::Devices,
        "queue" => Workload::Queue,
        "hog" => Workload::Hog,
        "pingpong" => Workload::PingPong,
        "preempt" => Workload::Preempt,
        "roam" => Workload::Roam,
        "carry" => Workload::Carry,
        "halt" => Workload::Halt,
        "idle" => Workload::Idle,
        "liar" => Workload::Liar,
        "stopped" => Workload::Stopped,
        "boot" => Workload::Boot,
        "triplefault" => Workload::TripleFault,
        "fault" => Workload::Fault,
        "doorbell-storm" => Workload::DoorbellStorm,
        _ => return attack(name).map(Workload::Hostile),
    })
}

fn attack(name: &str) -> Option<Attack> {
    Some(match name {
        "escape-int" => Attack::EscapeInt,
        "escape-fault" => Attack::EscapeFault,
        "escape-iret" => Attack::EscapeIret,
        "device-hog" => Attack::DeviceHog,
        "idle-timers" => Attack::IdleTimers,
        "ipi-storm" => Attack::IpiStorm,
        "wake-storm" => Attack::WakeStorm,
        "apic-timers" => Attack::ApicTimers,
        "late-halts" => Attack::LateHalts,
        "serial-strings" => Attack::SerialStrings,
        _ => return None,
    })
}

/// The shortest tick, nanoseconds. On a slow host a shorter one would be due again before a task has
/// run.
const TICK_MIN: u32 = 200_000;

fn tick(value: &str) -> Option<u32> {
    if value == "off" {
        return Some(0);
    }
    let ns = u32::try_from(duration(value)?).ok()?;
    (ns >= TICK_MIN).then_some(ns)
}

fn one_of(value: &str, no: &str, yes: &str) -> Option<bool> {
    if value == yes {
        Some(true)
    } else {
        (value == no).then_some(false)
    }
}

/// A number with a unit, as nanoseconds: `500ns`, `1.5us`, `2ms`, `3s`.
fn duration(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 4] = [
        ("ns", 1),
        ("us", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
    ];
    let (number, unit) = UNITS
        .iter()
        .find_map(|&(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))?;
    fixed_point(number, unit)
}

/// A decimal number, in units of 1 / `one`; digits below that are dropped.
fn fixed_point(text: &str, one: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut value = whole.parse::<u64>().ok()?.checked_mul(one)?;
    let mut place = one;
    for digit in fraction.chars() {
        place /= 10;
        value = value.checked_add(u64::from(digit.to_digit(10)?) * place)?;
    }
    Some(value)
}
