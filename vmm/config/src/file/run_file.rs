//! The whole file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::fields::{choice, field, parse_defer, parse_shutdown_timeout};
use super::guest_table::GuestTable;
use crate::error::{ConfigError, fail};
use crate::guest::GuestConfig;
use crate::run::RunConfig;
use crate::units::{parse_cpus, parse_duration};

/// Most guests that a file may describe.
const MAX_GUESTS: usize = 1024;
/// Longest file, bytes: room for that many guests with long command lines.
const MAX_FILE: u64 = 8 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunFile {
    host_cpus: Option<String>,
    #[serde(default)]
    share_cpus: bool,
    #[serde(default)]
    isolate: bool,
    sched: Option<String>,
    proxy: Option<String>,
    defer: Option<String>,
    slice: Option<String>,
    vcpu_threads: Option<String>,
    executor_priority: Option<String>,
    late_halts: Option<String>,
    #[serde(default)]
    require_delivery: bool,
    duration: Option<String>,
    shutdown_timeout: Option<String>,
    until_guest: Option<String>,
    summary: Option<String>,
    metrics: Option<String>,
    #[serde(default)]
    overcommit_memory: bool,
    #[serde(default)]
    guest: Vec<GuestTable>,
}

/// Reads the file at `path`. Paths in the file are relative to its directory.
///
/// # Errors
/// If the file cannot be read, or describes something that cannot run.
pub fn read(path: &Path) -> Result<RunConfig, ConfigError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text))
        .map_err(|error| ConfigError(format!("cannot read {}: {error}", path.display())))?;
    if text.len() as u64 > MAX_FILE {
        return fail(format!(
            "{} is longer than {}M, so it is not a file of guests",
            path.display(),
            MAX_FILE >> 20
        ));
    }
    parse(&text, path.parent().unwrap_or(Path::new("")))
        .map_err(|error| ConfigError(format!("{}: {error}", path.display())))
}

/// Reads the text of a file. Paths in the text are relative to `base`.
///
/// # Errors
/// What is wrong with the text, in one sentence.
pub fn parse(text: &str, base: &Path) -> Result<RunConfig, ConfigError> {
    let file: RunFile = toml::from_str(text).map_err(|error| toml_error(text, &error))?;
    let mut config = RunConfig::default();
    file.set_scheduler(&mut config)?;
    file.set_output(&mut config)?;
    config.guests = file.guests(base)?;
    config.validate_for_any_scheduler()?;
    Ok(config)
}

impl RunFile {
    fn set_scheduler(&self, config: &mut RunConfig) -> Result<(), ConfigError> {
        if let Some(cpus) = &self.host_cpus {
            config.host_cpus = field("host_cpus", parse_cpus(cpus))?;
        }
        config.share_cpus = self.share_cpus;
        config.isolate = self.isolate;
        if let Some(sched) = &self.sched {
            config.sched = choice("sched", sched)?;
        }
        if let Some(proxy) = &self.proxy {
            config.proxy = match proxy.as_str() {
                "on" => true,
                "off" => false,
                other => return fail(format!("proxy is '{other}', must be \"on\" or \"off\"")),
            };
            config.given.proxy = true;
        }
        if let Some(defer) = &self.defer {
            config.defer = field("defer", parse_defer(defer))?;
            config.given.defer = true;
        }
        if let Some(slice) = &self.slice {
            config.slice = field("slice", parse_duration(slice))?;
            config.given.slice = true;
        }
        if let Some(threads) = &self.vcpu_threads {
            config.vcpu_threads = choice("vcpu_threads", threads)?;
        }
        if let Some(priority) = &self.executor_priority {
            let priority = priority.parse();
            config.executor_priority =
                priority.map_err(|error| ConfigError(format!("executor_priority: {error}")))?;
        }
        if let Some(late_halts) = &self.late_halts {
            config.late_halts = choice("late_halts", late_halts)?;
        }
        Ok(())
    }

    fn set_output(&self, config: &mut RunConfig) -> Result<(), ConfigError> {
        if let Some(duration) = &self.duration {
            config.duration = Some(field("duration", parse_duration(duration))?);
        }
        if let Some(timeout) = &self.shutdown_timeout {
            config.shutdown_timeout = field("shutdown_timeout", parse_shutdown_timeout(timeout))?;
        }
        config.until_guest.clone_from(&self.until_guest);
        if let Some(summary) = &self.summary {
            config.summary = choice("summary", summary)?;
        }
        if let Some(metrics) = &self.metrics {
            let target = metrics
                .parse()
                .map_err(|error| ConfigError(format!("metrics: {error}")))?;
            config.metrics = Some(target);
        }
        config.require_delivery = self.require_delivery;
        config.overcommit_memory = self.overcommit_memory;
        Ok(())
    }

    fn guests(&self, base: &Path) -> Result<Vec<GuestConfig>, ConfigError> {
        let mut guests = Vec::new();
        for (table, number) in self.guest.iter().zip(1..) {
            let most = MAX_GUESTS - guests.len();
            guests.extend(table.guests(number, base, most, MAX_GUESTS)?);
        }
        Ok(guests)
    }
}

/// One sentence with a line number, of what serde and toml report over several lines.
fn toml_error(text: &str, error: &toml::de::Error) -> ConfigError {
    let what = error.message().trim().replace('\n', " ");
    match error.span() {
        Some(span) => {
            let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
            ConfigError(format!("line {line}: {what}"))
        }
        None => ConfigError(what),
    }
}

#[cfg(test)]
mod tests;
