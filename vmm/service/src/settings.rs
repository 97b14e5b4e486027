//! What is configured for a pool, by a file and by flags.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use baton_config::file::parse_defer;
use baton_config::units::{parse_cpus, parse_duration};
use baton_config::{ConfigError, LateHalts, RunConfig, SchedMode};
use nix::unistd::{Group, User};
use serde::Deserialize;

use crate::grants::{GrantTerms, Grantee, PPM};

/// The file that is read if none is named.
pub const DEFAULT_FILE: &str = "/etc/baton/pool.toml";
/// Longest file, bytes.
const MAX_FILE: u64 = 1 << 20;

/// What is configured for a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSettings {
    /// The directory of its sockets; `None`: the default.
    pub directory: Option<PathBuf>,
    /// How its executors schedule, on which host CPUs. It has no guests.
    pub run: RunConfig,
    /// Who may have guests in it.
    pub grants: Vec<(Grantee, GrantTerms)>,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            directory: None,
            run: RunConfig {
                // The processes of the guests notice their halts.
                late_halts: LateHalts::Allow,
                quiet: true,
                ..RunConfig::default()
            },
            grants: Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolFile {
    dir: Option<PathBuf>,
    host_cpus: Option<String>,
    #[serde(default)]
    share_cpus: bool,
    sched: Option<String>,
    proxy: Option<String>,
    defer: Option<String>,
    slice: Option<String>,
    executor_priority: Option<String>,
    #[serde(default)]
    grant: Vec<GrantTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantTable {
    user: Option<NameOrId>,
    group: Option<NameOrId>,
    max_reservation: Option<f64>,
    max_weight: Option<u32>,
    max_vcpus: Option<u32>,
    max_guests: Option<u32>,
    host_cpus: Option<String>,
}

/// A user or a group, as its name or as its number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum NameOrId {
    Id(u32),
    Name(String),
}

/// Reads the file `path`; `None`: [`DEFAULT_FILE`], if there is one.
///
/// # Errors
/// If the file cannot be read, or makes no sense.
pub fn read(path: Option<&Path>) -> Result<PoolSettings, ConfigError> {
    let default = Path::new(DEFAULT_FILE);
    let path = match path {
        Some(path) => path,
        None if default.exists() => default,
        None => return Ok(PoolSettings::default()),
    };
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    let in_file = |what: &dyn std::fmt::Display| ConfigError(format!("{}: {what}", path.display()));
    read.map_err(|error| in_file(&error))?;
    parse(&text).map_err(|error| in_file(&error.0))
}

/// Reads the `text` of such a file.
///
/// # Errors
/// What makes no sense.
pub fn parse(text: &str) -> Result<PoolSettings, ConfigError> {
    let file: PoolFile = toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .map_or(1, |span| text[..span.start.min(text.len())].lines().count());
        ConfigError(format!(
            "line {}: {}",
            line.max(1),
            error.message().trim().replace('\n', " ")
        ))
    })?;
    let mut settings = PoolSettings {
        directory: file.dir.clone(),
        ..PoolSettings::default()
    };
    file.set_scheduling(&mut settings.run)?;
    let grants = file.grant.into_iter().zip(1..);
    settings.grants = grants
        .map(|(table, number)| {
            table
                .grant()
                .map_err(|what| ConfigError(format!("grant {number}: {what}")))
        })
        .collect::<Result<_, _>>()?;
    Ok(settings)
}

impl PoolFile {
    fn set_scheduling(&self, run: &mut RunConfig) -> Result<(), ConfigError> {
        let in_field = |name: &str, error: String| ConfigError(format!("{name}: {error}"));
        if let Some(cpus) = &self.host_cpus {
            let cpus = parse_cpus(cpus);
            run.host_cpus = cpus.map_err(|error| in_field("host_cpus", error.to_string()))?;
        }
        run.share_cpus = self.share_cpus;
        match self.sched.as_deref() {
            None | Some("baton") => {}
            Some("round-robin") => run.sched = SchedMode::RoundRobin,
            Some(other) => {
                let what =
                    format!("'{other}' is no scheduler of a pool; give baton or round-robin");
                return Err(in_field("sched", what));
            }
        }
        match self.proxy.as_deref() {
            None => {}
            Some(switch @ ("on" | "off")) => {
                run.proxy = switch == "on";
                run.given.proxy = true;
            }
            Some(other) => {
                return Err(in_field(
                    "proxy",
                    format!("'{other}' is neither on nor off"),
                ));
            }
        }
        if let Some(defer) = &self.defer {
            run.defer = parse_defer(defer).map_err(|error| in_field("defer", error.to_string()))?;
            run.given.defer = true;
        }
        if let Some(slice) = &self.slice {
            run.slice =
                parse_duration(slice).map_err(|error| in_field("slice", error.to_string()))?;
            run.given.slice = true;
        }
        if let Some(priority) = &self.executor_priority {
            run.executor_priority = priority
                .parse()
                .map_err(|error| ConfigError(format!("executor_priority: {error}")))?;
        }
        Ok(())
    }
}

impl GrantTable {
    fn grant(self) -> Result<(Grantee, GrantTerms), String> {
        let grantee = match (self.user, self.group) {
            (Some(user), None) => Grantee::User(user_id(user)?),
            (None, Some(group)) => Grantee::Group(group_id(group)?),
            _ => return Err("it has to name either a user or a group".to_owned()),
        };
        let host_cpus = self.host_cpus.as_deref().map(parse_cpus).transpose();
        let max_reservation = match self.max_reservation {
            Some(cpus) if !(0.0..=1024.0).contains(&cpus) => {
                return Err(format!(
                    "max_reservation is {cpus}; give a number of CPUs, such as 1.5"
                ));
            }
            Some(cpus) => Some((cpus * PPM as f64) as u64),
            None => None,
        };
        let terms = GrantTerms {
            max_reservation,
            max_weight: self.max_weight,
            max_vcpus: self.max_vcpus,
            max_guests: self.max_guests,
            host_cpus: host_cpus.map_err(|error| format!("host_cpus: {error}"))?,
        };
        Ok((grantee, terms))
    }
}

fn user_id(user: NameOrId) -> Result<u32, String> {
    match user {
        NameOrId::Id(id) => Ok(id),
        NameOrId::Name(name) => match User::from_name(&name) {
            Ok(Some(user)) => Ok(user.uid.as_raw()),
            _ => Err(format!("this host has no user {name}")),
        },
    }
}

fn group_id(group: NameOrId) -> Result<u32, String> {
    match group {
        NameOrId::Id(id) => Ok(id),
        NameOrId::Name(name) => match Group::from_name(&name) {
            Ok(Some(group)) => Ok(group.gid.as_raw()),
            _ => Err(format!("this host has no group {name}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_file_has_the_scheduling_and_the_grants_in_their_order() {
        let settings = parse(
            r#"
            dir = "/run/test"
            host_cpus = "2-3"
            sched = "round-robin"
            slice = "2ms"
            executor_priority = "1"

            [[grant]]
            user = "root"
            max_reservation = 1.5
            host_cpus = "2"

            [[grant]]
            group = 70
            max_guests = 4
            max_vcpus = 8
            max_weight = 200
            "#,
        )
        .expect("a file");
        assert_eq!(settings.run.host_cpus, [2, 3]);
        assert_eq!(settings.run.sched, SchedMode::RoundRobin);
        assert_eq!(settings.run.slice, Duration::from_millis(2));
        let [(Grantee::User(0), first), (Grantee::Group(70), second)] = &settings.grants[..] else {
            panic!("{:?}", settings.grants);
        };
        assert_eq!(first.max_reservation, Some(1_500_000));
        assert_eq!(first.host_cpus, Some(vec![2]));
        assert_eq!(second.max_vcpus, Some(8));
        assert_eq!(parse("").expect("empty"), PoolSettings::default());
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        for (text, part) in [
            ("color = \"red\"", "line 1: unknown field"),
            ("sched = \"host\"", "no scheduler of a pool"),
            (
                "[[grant]]\nmax_guests = 1",
                "grant 1: it has to name either",
            ),
            (
                "[[grant]]\nuser = \"nobody-of-this-name\"",
                "no user nobody-of-this-name",
            ),
            ("[[grant]]\nuser = 1\nmax_reservation = -1.0", "such as 1.5"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
