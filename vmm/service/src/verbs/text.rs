//! Pool, guests and events as text for people.

use baton_api::{Event, EventKind, Guest, GuestOrder, PoolStatus, Vcpu};
use baton_config::units::readable_ns;
use nix::unistd::{Uid, User};

/// The `guests` as a table, a line for each.
#[must_use]
pub fn guests(guests: &[Guest]) -> String {
    let mut rows = vec![
        [
            "name", "state", "owner", "pid", "vcpus", "reserved", "ran", "missed", "restarts",
        ]
        .map(str::to_owned),
    ];
    for guest in guests {
        let ran: u64 = guest.vcpus.iter().map(|vcpu| vcpu.ran_ns).sum();
        let missed: u64 = guest.vcpus.iter().map(|vcpu| vcpu.deadline_misses).sum();
        rows.push([
            guest.name.clone(),
            guest.state.name().to_owned(),
            guest.uid.map_or_else(dash, user),
            guest.pid.map_or_else(dash, |pid| pid.to_string()),
            guest.vcpus.len().to_string(),
            percent(guest.reserved_cpus),
            readable_ns(ran),
            missed.to_string(),
            guest.restarts.to_string(),
        ]);
    }
    table(&rows)
}

/// One guest, with a line for each vCPU.
#[must_use]
pub fn guest(guest: &Guest) -> String {
    let mut text = format!(
        "name:      {}\nstate:     {}\n",
        guest.name,
        guest.state.name()
    );
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text += &format!("{name:<11}{value}\n");
        }
    };
    line("owner:", guest.uid.map(user));
    line("process:", guest.pid.map(|pid| pid.to_string()));
    line("console:", guest.console.clone());
    line("hints:", Some(guest.hints.clone()));
    line("restarts:", Some(guest.restarts.to_string()));
    line("reserved:", Some(percent(guest.reserved_cpus)));
    let mut rows = vec![
        [
            "vcpu",
            "state",
            "cpu",
            "share",
            "host cpus",
            "ran",
            "waited",
            "missed",
        ]
        .map(str::to_owned),
    ];
    rows.extend(guest.vcpus.iter().map(vcpu));
    text + "\n" + &table(&rows)
}

fn vcpu(vcpu: &Vcpu) -> [String; 8] {
    let weight = || {
        vcpu.weight
            .map_or_else(dash, |weight| format!("weight {weight}"))
    };
    [
        vcpu.index.to_string(),
        vcpu.state.clone(),
        vcpu.cpu.map_or_else(dash, |cpu| cpu.to_string()),
        vcpu.reservation.clone().unwrap_or_else(weight),
        vcpu.host_cpus.clone().unwrap_or_else(|| "all".to_owned()),
        readable_ns(vcpu.ran_ns),
        readable_ns(vcpu.waited_ns),
        vcpu.deadline_misses.to_string(),
    ]
}

/// The pool, with a line for each host CPU.
#[must_use]
pub fn pool(pool: &PoolStatus) -> String {
    let mut text = format!(
        "process:   {}\nversion:   {} (API {})\nguests:    {}\nreserved:  {} of {} %\nyou:       {}\n\n",
        pool.pid,
        pool.version,
        pool.api,
        pool.guests,
        percent(pool.reserved_cpus),
        100 * pool.host_cpus.len(),
        rights(pool),
    );
    let mut rows = vec![["cpu", "state", "runs", "busy"].map(str::to_owned)];
    rows.extend(pool.host_cpus.iter().map(|cpu| {
        let state = match (cpu.away, &cpu.run) {
            (true, _) => "away",
            (false, Some(_)) => "busy",
            (false, None) => "idle",
        };
        let run = cpu.run.clone().unwrap_or_else(dash);
        [
            cpu.cpu.to_string(),
            state.to_owned(),
            run,
            readable_ns(cpu.busy_ns),
        ]
    }));
    text += &table(&rows);
    text
}

fn rights(pool: &PoolStatus) -> String {
    let name = user(pool.you.uid);
    let Some(grant) = &pool.you.grant else {
        return format!("{name}, who may do everything");
    };
    let mut parts = Vec::new();
    parts.extend(
        grant
            .max_reservation
            .map(|cpus| format!("reservations of {}", percent(cpus))),
    );
    parts.extend(grant.max_guests.map(|count| format!("{count} guests")));
    parts.extend(grant.max_vcpus.map(|count| format!("{count} vCPUs")));
    parts.extend(grant.max_weight.map(|weight| format!("weight {weight}")));
    parts.extend(
        grant
            .host_cpus
            .as_ref()
            .map(|cpus| format!("host CPUs {cpus}")),
    );
    match parts.is_empty() {
        true => format!("{name}, with a grant without bounds"),
        false => format!("{name}, with at most {}", parts.join(", ")),
    }
}

/// One event as a line without its end.
#[must_use]
pub fn event(event: &Event) -> String {
    match &event.kind {
        EventKind::Joined { guest, uid, pid } => {
            format!("{guest} has joined (owner {}, process {pid})", user(*uid))
        }
        EventKind::Refused { guest, reason, .. } => format!("{guest} was refused: {reason}"),
        EventKind::Ended { guest, how, .. } => format!("{guest} has ended: {how}"),
        EventKind::Restarting { guest, how, .. } => {
            format!("{guest} has ended and starts again: {how}")
        }
        EventKind::Restarted { guest, restarts } => {
            format!("{guest} has started again ({restarts} times so far)")
        }
        EventKind::Failed { guest, reason } => format!("{guest} has failed: {reason}"),
        EventKind::Paused { guest } => format!("{guest} is paused"),
        EventKind::Resumed { guest } => format!("{guest} is resumed"),
        EventKind::Changed { guest } => format!("{guest} has changed"),
        EventKind::Ordered { guest, order } => {
            let order = match order {
                GuestOrder::PowerButton => "its power button was pressed",
                GuestOrder::PowerOff => "it is powered off",
                GuestOrder::Reset => "it is reset",
                GuestOrder::Kill => "its process was killed",
            };
            format!("{guest}: {order}")
        }
        EventKind::CpuAdded { cpu } => format!("the pool has got host CPU {cpu}"),
        EventKind::CpuRemoved { cpu } => format!("the pool has given up host CPU {cpu}"),
        EventKind::Cpu { cpu, away: true } => format!("host CPU {cpu} cannot be used any more"),
        EventKind::Cpu { cpu, away: false } => format!("host CPU {cpu} can be used again"),
        EventKind::Lost { count } => format!("{count} events were lost"),
    }
}

fn dash() -> String {
    "-".to_owned()
}

/// The name of user `uid`, or his number.
fn user(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

fn percent(cpus: f64) -> String {
    format!("{:.0} %", cpus * 100.0)
}

/// The rows with columns as wide as their longest text.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use baton_api::GuestState;

    use super::*;

    #[test]
    fn a_list_has_a_line_for_each_guest_in_columns() {
        let guest = |name: &str| Guest {
            name: name.to_owned(),
            state: GuestState::Running,
            uid: Some(0),
            pid: Some(12),
            console: None,
            hints: "page".to_owned(),
            restarts: 0,
            reserved_cpus: 0.5,
            vcpus: Vec::new(),
        };
        let text = guests(&[guest("db"), guest("a-long-name")]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines[0].starts_with("name         state    owner"),
            "{text}"
        );
        assert!(lines[1].starts_with("db           running  root"), "{text}");
        assert!(lines[2].contains("50 %"), "{text}");
    }
}
