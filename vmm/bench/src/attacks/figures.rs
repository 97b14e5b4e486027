//! What a run came to: the kernel's account of its process, and its summary.

use serde_json::Value;

use super::attack::{ATTACKER, BUDGET, PERIOD, VICTIM};

/// Figures of one run. Times are CPU time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// What all threads of the process used: while the executors ran, where the summary tells, else from
    /// the start of the process to its end.
    pub process_ns: u64,
    /// Whether it is that while the executors ran.
    pub is_exact: bool,
    /// What all guests were charged.
    pub charged_ns: u64,
    /// What the summary says to belong to no guest and names; not the rest, which may be anybody's.
    pub unassigned_ns: u64,
    /// What the attacker was charged.
    pub attacker_charged_ns: u64,
    /// What it was charged for work outside of its vCPUs, where the summary tells.
    pub attacker_elsewhere_ns: Option<u64>,
    /// How it ended, if that was not well.
    pub attacker_failure: Option<String>,
    /// What the victim was charged.
    pub victim_charged_ns: u64,
    /// What it was promised in the time of the run.
    pub victim_promised_ns: u64,
    /// Its deadlines that were missed.
    pub victim_misses: u64,
    /// Its exits.
    pub victim_exits: u64,
    /// What it computed, iterations.
    pub victim_work: u64,
    /// Whether it ended by itself and well.
    pub victim_ok: bool,
    /// Wall time of the run, nanoseconds.
    pub elapsed_ns: u64,
}

impl Figures {
    /// From the summary of a run and what its process used; none if the summary lacks one.
    #[must_use]
    pub fn of(summary: &Value, process_ns: u64) -> Option<Self> {
        let guests = summary.get("guests")?.as_array()?;
        let named = |name| guests.iter().find(|guest| guest["name"] == name);
        let (attacker, victim) = (named(ATTACKER)?, named(VICTIM)?);
        let elapsed_ns = summary["elapsed_ns"].as_u64()?;
        let periods = u128::from(elapsed_ns) * BUDGET.as_nanos() / PERIOD.as_nanos();
        let of_vcpus: u64 = guests.iter().map(|guest| sum(guest, "charged_ns")).sum();
        let cpu = &summary["cpu"];
        let exact = cpu["process_ns"].as_u64().filter(|ns| *ns > 0);
        let charged_ns = exact
            .and_then(|_| cpu["charged_ns"].as_u64())
            .unwrap_or(of_vcpus);
        Some(Self {
            process_ns: exact.unwrap_or(process_ns),
            is_exact: exact.is_some(),
            charged_ns,
            unassigned_ns: named_unassigned(&cpu["unassigned_ns"]),
            attacker_charged_ns: (charged_ns + sum(attacker, "charged_ns"))
                .checked_sub(of_vcpus)?,
            attacker_elsewhere_ns: total(&attacker["elsewhere_ns"]),
            attacker_failure: (attacker["ok"] != true)
                .then(|| attacker["end"].as_str().unwrap_or("failed").to_owned()),
            victim_charged_ns: sum(victim, "charged_ns"),
            victim_promised_ns: u64::try_from(periods).ok()?,
            victim_misses: sum(victim, "deadline_misses"),
            victim_exits: vcpus(victim).filter_map(|vcpu| total(&vcpu["exits"])).sum(),
            victim_work: victim["workload"]["iterations"].as_u64()?,
            victim_ok: victim["exit_code"] == 0,
            elapsed_ns,
        })
    }

    /// What the attacker really used: all that the process used but what others were charged and what
    /// belongs to nobody. Without `cpu` in the summary, the start of the run is part of it.
    #[must_use]
    pub fn attacker_used_ns(&self) -> u64 {
        self.attacker_charged_ns + self.uncharged_ns()
    }

    /// What nobody was charged though the process used it.
    #[must_use]
    pub fn uncharged_ns(&self) -> u64 {
        self.process_ns
            .saturating_sub(self.charged_ns)
            .saturating_sub(self.unassigned_ns)
    }
}

/// The last JSON object on standard output, after what the guests printed.
pub(super) fn summary(stdout: &str) -> Option<Value> {
    let start = match stdout.rfind("\n{\n") {
        Some(before) => before + 1,
        None => 0,
    };
    serde_json::from_str(stdout.get(start..)?).ok()
}

fn vcpus(guest: &Value) -> impl Iterator<Item = &Value> {
    guest["vcpus"].as_array().into_iter().flatten()
}

/// A number of all vCPUs of a guest together.
fn sum(guest: &Value, name: &str) -> u64 {
    vcpus(guest).filter_map(|vcpu| vcpu[name].as_u64()).sum()
}

/// What belongs to nobody, by kind, but for the kind that is only what is left.
fn named_unassigned(kinds: &Value) -> u64 {
    let rest = kinds["rest"].as_u64().unwrap_or(0);
    total(kinds).unwrap_or(0).saturating_sub(rest)
}

/// The sum of an object's numbers.
fn total(object: &Value) -> Option<u64> {
    let values = object.as_object()?.values();
    Some(values.filter_map(Value::as_u64).sum())
}
