//! `baton sim`: a scenario in the simulator, drawn as text. It needs no KVM, and the same scenario and seed give
//! the same picture on every host.

use std::io;

use baton_config::units::readable_ns;
use baton_observe::timeline;
use vcpu_sched::sim::{Costs, LockId, LockKind, Outcome, Script, Simulation, SplitMix64, Step};
use vcpu_sched::{
    AdmissionError, Config, Event, GuestId, Ns, PolicyKind, Reservation, ReservationError,
    SchedParams, VcpuId,
};

const US: Ns = 1_000;
const MS: Ns = 1_000_000;

/// The scenarios, each with what it shows.
pub const SCENARIOS: [(&str, &str); 4] = [
    (
        "preemption",
        "5 vCPUs contend for a ticket lock on 2 host CPUs: the next in the queue is often not running",
    ),
    (
        "throttled-holder",
        "a vCPU with 1ms/100ms holds the lock that a vCPU with 5ms/10ms waits for",
    ),
    (
        "inversion",
        "a vCPU with a long period holds a mutex, one with a middle period computes, one with a short period waits",
    ),
    (
        "random",
        "two guests with random reservations, locks and scripts, by the seed",
    ),
];

/// The simulation failed.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// There is no scenario of this name.
    #[error("there is no scenario {0:?}; take one of {known}", known = names())]
    NoScenario(String),
    /// A seed was given for a scenario without random choices.
    #[error("the scenario {0} is always the same: leave --seed out, or take the scenario random")]
    NoSeed(String),
    /// A reservation of the scenario is not valid.
    #[error("the scenario gives a wrong reservation: {0}")]
    Reservation(#[from] ReservationError),
    /// The reservations of the scenario are not admitted.
    #[error("the scenario does not fit its host CPUs: {0}")]
    Admission(#[from] AdmissionError),
    /// The text could not be written.
    #[error("the picture could not be written: {0}")]
    Output(#[from] io::Error),
}

fn names() -> String {
    SCENARIOS.map(|(name, _)| name).join(", ")
}

/// Runs `scenario` and writes a picture of it to `out`. Only `random` takes a `seed`; its default is 1.
///
/// # Errors
/// If there is no such scenario, the scenario takes no seed, or `out` cannot be written.
pub fn run(
    scenario: &str,
    seed: Option<u64>,
    options: Options,
    out: &mut dyn io::Write,
) -> Result<(), SimError> {
    let about = SCENARIOS.iter().find(|(name, _)| *name == scenario);
    let Some((_, about)) = about else {
        return Err(SimError::NoScenario(scenario.to_owned()));
    };
    if seed.is_some() && scenario != "random" {
        return Err(SimError::NoSeed(scenario.to_owned()));
    }
    let stage = match scenario {
        "preemption" => preemption(options),
        "throttled-holder" => throttled_holder(options),
        "inversion" => inversion(options),
        _ => random(seed.unwrap_or(1), options),
    }?;
    let Stage {
        sim,
        names,
        picture,
        end,
        ..
    } = stage;
    let outcome = sim.run(end);
    let proxying = if options.proxy { "on" } else { "off" };
    let how = match options.policy {
        PolicyKind::Deadline => format!("proxying {proxying}"),
        PolicyKind::RoundRobin => "round robin, without reservations".to_owned(),
    };
    writeln!(out, "{scenario}: {about}; {how}\n")?;
    let name = |vcpu: VcpuId| names.get(vcpu.index()).cloned().unwrap_or_default();
    let (from, to) = picture;
    write!(out, "{}", timeline::render(&outcome.events, from, to, name))?;
    writeln!(out, "\nIn {} altogether:", readable_ns(outcome.end))?;
    table(&outcome, &names, out)
}

/// One line for each vCPU.
fn table(
    outcome: &Outcome<Vec<(Ns, Event)>>,
    names: &[String],
    out: &mut dyn io::Write,
) -> Result<(), SimError> {
    writeln!(
        out,
        "{:24} {:>10} {:>10} {:>10} {:>10} {:>10} {:>9} {:>10} {:>7} {:>6}",
        "vCPU",
        "ran",
        "charged",
        "donated",
        "received",
        "throttled",
        "lock took",
        "max wait",
        "proxied",
        "missed"
    )?;
    for (vcpu, name) in outcome.vcpus.iter().zip(names) {
        let c = vcpu.counters;
        let [ran, charged, donated, received, throttled, wait] = [
            c.runtime_ns,
            c.charged_ns,
            c.donated_ns,
            c.received_ns,
            c.throttled_ns,
            vcpu.wait_max_ns,
        ]
        .map(readable_ns);
        writeln!(
            out,
            "{name:24} {ran:>10} {charged:>10} {donated:>10} {received:>10} {throttled:>10} \
             {:>9} {wait:>10} {:>7} {:>6}",
            vcpu.acquisitions, c.proxied, c.deadline_misses
        )?;
    }
    Ok(())
}

/// How a scenario is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The policy. [`PolicyKind::RoundRobin`] runs the scenario without its reservations.
    pub policy: PolicyKind,
    /// Whether waiters' budgets carry holders.
    pub proxy: bool,
}

/// A scenario, ready to run.
struct Stage {
    sim: Simulation,
    policy: PolicyKind,
    /// The name of each vCPU.
    names: Vec<String>,
    /// Start and end of the time that is drawn, nanoseconds.
    picture: (Ns, Ns),
    end: Ns,
}

impl Stage {
    fn new(cpus: usize, options: Options, picture: (Ns, Ns), end: Ns) -> Self {
        let Options { policy, proxy } = options;
        let config = Config {
            proxy,
            // Deferral would prevent most of the preemptions that the picture is about.
            defer_ns: None,
            ..Config::new(cpus)
        };
        Self {
            sim: Simulation::of_policy(policy.pool(config, Vec::new()), Costs::typical()),
            policy,
            names: Vec::new(),
            picture,
            end,
        }
    }

    fn vcpu(
        &mut self,
        name: impl Into<String>,
        guest: GuestId,
        params: SchedParams,
        script: Script,
    ) -> Result<(), SimError> {
        let params = match self.policy {
            PolicyKind::Deadline => params,
            PolicyKind::RoundRobin => SchedParams::BestEffort { weight: 100 },
        };
        self.sim.vcpu(guest, params, script)?;
        self.names.push(name.into());
        Ok(())
    }
}

fn hard(budget: Ns, period: Ns) -> Result<SchedParams, ReservationError> {
    Ok(SchedParams::Reserved(Reservation::hard(budget, period)?))
}

fn preemption(options: Options) -> Result<Stage, SimError> {
    let mut stage = Stage::new(2, options, (100 * MS, 124 * MS), 1_000 * MS);
    let guest = stage.sim.guest();
    let lock = stage.sim.lock(guest, LockKind::Ticket);
    for index in 0..5 {
        let script = Script::forever([
            Step::Lock(lock),
            Step::Compute(20 * US + 7 * index),
            Step::Unlock(lock),
            Step::Compute(20 * US + 11 * index),
        ]);
        let params = SchedParams::BestEffort { weight: 100 };
        stage.vcpu(format!("fighter {index}"), guest, params, script)?;
    }
    Ok(stage)
}

fn throttled_holder(options: Options) -> Result<Stage, SimError> {
    let mut stage = Stage::new(1, options, (0, 120 * MS), 1_000 * MS);
    let guest = stage.sim.guest();
    let lock = stage.sim.lock(guest, LockKind::Ticket);
    let holder = Script::forever([
        Step::Compute(300 * US),
        Step::Lock(lock),
        Step::Compute(3 * MS),
        Step::Unlock(lock),
        Step::Sleep(20 * MS),
    ]);
    let waiter = Script::forever([
        Step::Sleep(3 * MS),
        Step::Lock(lock),
        Step::Compute(200 * US),
        Step::Unlock(lock),
    ]);
    stage.vcpu("holder 1ms/100ms", guest, hard(MS, 100 * MS)?, holder)?;
    stage.vcpu("waiter 5ms/10ms", guest, hard(5 * MS, 10 * MS)?, waiter)?;
    let stranger = stage.sim.guest();
    let params = SchedParams::BestEffort { weight: 100 };
    stage.vcpu("hog of another guest", stranger, params, Script::hog())?;
    Ok(stage)
}

fn inversion(options: Options) -> Result<Stage, SimError> {
    let mut stage = Stage::new(1, options, (0, 32 * MS), 100 * MS);
    let guest = stage.sim.guest();
    let lock = stage.sim.lock(guest, LockKind::Mutex);
    let section = |time| [Step::Lock(lock), Step::Compute(time), Step::Unlock(lock)];
    let after = |sleep, steps: &[Step]| {
        let mut all = vec![Step::Sleep(sleep)];
        all.extend_from_slice(steps);
        Script::once(all)
    };
    let low = Script::once(section(3 * MS));
    let middle = after(500 * US, &[Step::Compute(20 * MS)]);
    let high = after(MS, &section(MS));
    stage.vcpu("low 5ms/200ms", guest, hard(5 * MS, 200 * MS)?, low)?;
    stage.vcpu("middle 25ms/100ms", guest, hard(25 * MS, 100 * MS)?, middle)?;
    stage.vcpu("high 5ms/10ms", guest, hard(5 * MS, 10 * MS)?, high)?;
    Ok(stage)
}

fn random(seed: u64, options: Options) -> Result<Stage, SimError> {
    let mut random = SplitMix64::new(seed);
    let cpus = random.within(1, 3) as usize;
    let mut stage = Stage::new(cpus, options, (0, 40 * MS), 1_000 * MS);
    for guest_index in 0..2 {
        let guest = stage.sim.guest();
        let kinds = [LockKind::Ticket, LockKind::TestAndSet, LockKind::Mutex];
        let kind = kinds[random.below(3) as usize];
        let lock = stage.sim.lock(guest, kind);
        for index in 0..random.within(2, 4) {
            let period = random.within(5, 50) * MS;
            let budget = period / random.within(6, 20);
            let (params, what) = if random.one_in(3) {
                (
                    SchedParams::BestEffort { weight: 100 },
                    "best effort".to_owned(),
                )
            } else {
                let what = format!("{}/{}", readable_ns(budget), readable_ns(period));
                (hard(budget, period)?, what)
            };
            let script = random_script(&mut random, lock);
            stage.vcpu(
                format!("g{guest_index}.{index} {what}"),
                guest,
                params,
                script,
            )?;
        }
    }
    Ok(stage)
}

fn random_script(random: &mut SplitMix64, lock: LockId) -> Script {
    let mut steps = vec![
        Step::Compute(random.within(50, 2_000) * US),
        Step::Lock(lock),
        Step::Compute(random.within(20, 1_000) * US),
        Step::Unlock(lock),
    ];
    if random.one_in(2) {
        steps.push(Step::Sleep(random.within(100, 5_000) * US));
    }
    Script::forever(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadline(proxy: bool) -> Options {
        Options {
            policy: PolicyKind::Deadline,
            proxy,
        }
    }

    fn text(scenario: &str, seed: Option<u64>, proxy: bool) -> String {
        let mut out = Vec::new();
        run(scenario, seed, deadline(proxy), &mut out).expect("a scenario");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn every_scenario_runs_and_is_deterministic() {
        for (name, _) in SCENARIOS {
            for proxy in [false, true] {
                assert_eq!(text(name, None, proxy), text(name, None, proxy));
            }
        }
    }

    #[test]
    fn every_seed_of_the_random_scenario_fits_its_host() {
        for seed in 0..50 {
            assert!(text("random", Some(seed), true).contains("altogether"));
        }
    }

    #[test]
    fn a_carried_holder_shows_in_the_picture_only_when_proxying() {
        let lanes = |proxy| -> String {
            let text = text("throttled-holder", None, proxy);
            text.lines()
                .filter_map(|line| line.split('|').nth(1))
                .collect()
        };
        assert!(lanes(true).contains('@'));
        assert!(!lanes(false).contains('@'));
    }

    #[test]
    fn every_scenario_runs_without_its_reservations_under_round_robin() {
        for (name, _) in SCENARIOS {
            let options = Options {
                policy: PolicyKind::RoundRobin,
                proxy: true,
            };
            let mut out = Vec::new();
            run(name, None, options, &mut out).expect("a scenario");
            let text = String::from_utf8(out).expect("text");
            assert!(text.contains("round robin, without reservations"), "{text}");
            let picture: String = text
                .lines()
                .filter_map(|line| line.split('|').nth(1))
                .collect();
            assert!(
                picture.contains('#') && !picture.contains(['@', '$', '-']),
                "{text}"
            );
        }
    }

    #[test]
    fn an_unknown_scenario_is_refused_with_the_known_ones() {
        let error =
            run("nonsense", None, deadline(true), &mut Vec::new()).expect_err("no scenario");
        assert!(error.to_string().contains("throttled-holder"), "{error}");
    }

    #[test]
    fn a_seed_is_refused_where_it_would_change_nothing() {
        let error =
            run("inversion", Some(2), deadline(true), &mut Vec::new()).expect_err("not random");
        assert!(error.to_string().contains("leave --seed out"), "{error}");
        assert_eq!(text("random", None, true), text("random", Some(1), true));
    }
}
