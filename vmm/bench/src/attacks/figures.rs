//! The figures of a run, from the kernel's accounting of its process and from its summary.

use serde_json::Value;

use super::attack::{ATTACKER, BUDGET, PERIOD, VICTIM};

/// The figures of one run. Times are CPU time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttackFigures {
    /// CPU time of all threads of the process: from the start of the executors to their end, if the summary
    /// has it, or else from the start of the process to its end.
    pub process_ns: u64,
    /// Whether `process_ns` is from the start of the executors to their end.
    pub is_exact: bool,
    /// CPU time that all guests together were charged.
    pub charged_ns: u64,
    /// CPU time that the summary assigns to parts of Baton that work for no guest in particular. What the
    /// summary cannot assign is not in it, for it may be the attacker's.
    pub unassigned_ns: u64,
    /// CPU time that the attacker was charged.
    pub attacker_charged_ns: u64,
    /// CPU time that the attacker was charged for work outside of its vCPUs, if the summary has it.
    pub attacker_elsewhere_ns: Option<u64>,
    /// How the attacker ended, if it did not end well.
    pub attacker_failure: Option<String>,
    /// CPU time that the victim was charged.
    pub victim_charged_ns: u64,
    /// CPU time that the victim's reservation promises for the time of the run.
    pub victim_promised_ns: u64,
    /// Deadlines that the victim missed.
    pub victim_misses: u64,
    /// Exits of the victim.
    pub victim_exits: u64,
    /// Iterations that the victim computed.
    pub victim_work: u64,
    /// Whether the victim ended by itself and well.
    pub victim_ok: bool,
    /// Wall time of the run, nanoseconds.
    pub elapsed_ns: u64,
}

impl AttackFigures {
    /// The figures of a run, from its summary and from the CPU time of its process; `None` if the summary
    /// lacks one of them.
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

    /// CPU time that the attacker really used: that of the process without what other guests were charged
    /// and without what belongs to no guest. Without `cpu` in the summary, it contains the start of the run.
    #[must_use]
    pub fn attacker_used_ns(&self) -> u64 {
        self.attacker_charged_ns + self.uncharged_ns()
    }

    /// CPU time of the process that belongs to some guest and that no guest was charged.
    #[must_use]
    pub fn uncharged_ns(&self) -> u64 {
        self.process_ns
            .saturating_sub(self.charged_ns)
            .saturating_sub(self.unassigned_ns)
    }
}

/// The summary: the last JSON object on standard output, after what the guests printed.
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

/// The sum of one number over all vCPUs of a guest.
fn sum(guest: &Value, name: &str) -> u64 {
    vcpus(guest).filter_map(|vcpu| vcpu[name].as_u64()).sum()
}

/// The sum of all kinds of CPU time that belong to no guest, without the kind `rest`.
fn named_unassigned(kinds: &Value) -> u64 {
    let rest = kinds["rest"].as_u64().unwrap_or(0);
    total(kinds).unwrap_or(0).saturating_sub(rest)
}

/// The sum of the numbers in an object.
fn total(object: &Value) -> Option<u64> {
    let values = object.as_object()?.values();
    Some(values.filter_map(Value::as_u64).sum())
}
