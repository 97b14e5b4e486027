//! A configuration as the files of a pool and of its guests.

use baton_config::units::{format_cpus, format_ns};
use baton_config::{GuestConfig, RunConfig};
use clap::ValueEnum;
use serde::Serialize;

/// The file of `baton pool`.
#[derive(Debug, Serialize)]
struct PoolFile {
    host_cpus: String,
    share_cpus: bool,
    sched: &'static str,
    proxy: &'static str,
    defer: String,
    slice: String,
    executor_priority: String,
}

/// The file of `baton vm`.
#[derive(Debug, Serialize)]
struct GuestFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<String>,
    guest: [GuestTable; 1],
}

#[derive(Debug, Serialize)]
struct GuestTable {
    name: String,
    cpus: usize,
    memory: String,
    cmdline: String,
    hints: String,
    weight: u32,
    vcpu_reservations: Vec<String>,
    vcpu_host_cpus: Vec<String>,
}

/// The file of the pool of `config`.
pub(super) fn pool(config: &RunConfig) -> Result<String, toml::ser::Error> {
    toml::to_string(&PoolFile {
        host_cpus: format_cpus(&config.host_cpus),
        share_cpus: config.share_cpus,
        sched: config.sched.name(),
        proxy: if config.proxy { "on" } else { "off" },
        defer: config.defer.map_or_else(|| "off".to_owned(), time),
        slice: time(config.slice),
        executor_priority: config.executor_priority.to_string(),
    })
}

/// The file of `guest`, which has the built-in kernel and no devices, in a run of `config`.
pub(super) fn guest(config: &RunConfig, guest: &GuestConfig) -> Result<String, toml::ser::Error> {
    let hints = guest.hints.to_possible_value();
    // An empty text stands for none, and for all host CPUs.
    let reservations = guest.reservations.iter().map(Option::as_ref);
    let host_cpus = guest.host_cpus.iter().map(Option::as_deref);
    toml::to_string(&GuestFile {
        duration: config.duration.map(time),
        guest: [GuestTable {
            name: guest.name.clone(),
            cpus: guest.cpus,
            memory: guest.memory.to_string(),
            cmdline: guest.cmdline.clone(),
            hints: hints.map_or_else(String::new, |hints| hints.get_name().to_owned()),
            weight: guest.weight,
            vcpu_reservations: reservations
                .map(|reservation| reservation.map_or_else(String::new, ToString::to_string))
                .collect(),
            vcpu_host_cpus: host_cpus
                .map(|cpus| cpus.map_or_else(String::new, format_cpus))
                .collect(),
        }],
    })
}

fn time(time: std::time::Duration) -> String {
    format_ns(time.as_nanos().try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use baton_config::{HintSource, file};

    use super::*;

    #[test]
    fn a_guest_is_read_from_its_file_as_it_was_configured() {
        let mut written = GuestConfig::new("lock0").with_cpus(2);
        written.cmdline = "workload=lock lock=mcs \"quoted\"".to_owned();
        written.hints = HintSource::InferredAny;
        written.reservations[1] = "4ms/10ms,hard".parse().ok();
        written.host_cpus[0] = Some(vec![0, 3]);
        written.weight = 7;
        let config = RunConfig {
            duration: Some(Duration::from_millis(32_500)),
            ..RunConfig::default()
        };
        let text = guest(&config, &written).expect("plain data");
        let path = std::env::temp_dir().join(format!("baton-file-{}.toml", std::process::id()));
        std::fs::write(&path, text).expect("written");
        let read = file::read(&path).expect("a configuration");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(read.guests, [written]);
        assert_eq!(read.duration, config.duration);
    }

    #[test]
    fn the_file_of_a_pool_has_what_its_documentation_names() {
        let config = RunConfig {
            host_cpus: vec![0, 1, 4],
            defer: None,
            ..RunConfig::default()
        };
        let text = pool(&config).expect("plain data");
        let read: toml::Table = text.parse().expect("TOML");
        let value = |key: &str| read[key].as_str().expect("a text");
        assert_eq!(value("host_cpus"), "0-1,4");
        assert_eq!((value("sched"), value("proxy")), ("baton", "on"));
        assert_eq!((value("defer"), value("slice")), ("off", "4ms"));
        assert_eq!(value("executor_priority"), "off");
        assert_eq!(read["share_cpus"].as_bool(), Some(false));
    }
}
