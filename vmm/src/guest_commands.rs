//! The commands for guests of a pool: what they request, and what they print.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use baton_config::units::format_cpus;
use baton_os::{output, printable};
use baton_service::client::{Client, ClientError};
use baton_service::verbs::{self, GuestLog};
use serde_json::json;

use crate::cli::{
    ConsoleArgs, CpusCommand, EventArgs, ListArgs, LogsArgs, NamedArgs, PoolFlag, SetArgs,
    StartArgs, StopArgs,
};

/// A command has failed.
pub type Failed = Box<dyn std::error::Error>;
/// What a command prints.
pub type Printed = Result<String, Failed>;

fn client(pool: &PoolFlag) -> Result<Client, ClientError> {
    Client::new(pool.directory.as_deref())
}

fn pretty(value: &impl serde::Serialize) -> Printed {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// `baton pool status`.
///
/// # Errors
/// If the pool refuses or does not answer; so have all of these.
pub fn pool_status(args: &ListArgs) -> Printed {
    let pool = client(&args.pool)?.pool()?;
    match args.json {
        true => pretty(&pool),
        false => Ok(verbs::pool(&pool)),
    }
}

/// `baton pool cpus`.
///
/// # Errors
/// As [`pool_status`].
pub fn pool_cpus(command: &CpusCommand) -> Printed {
    let (change, args) = match command {
        CpusCommand::Add(args) => ("add", args),
        CpusCommand::Remove(args) => ("remove", args),
    };
    let cpus = format_cpus(&args.cpus.0);
    let pool = client(&args.pool)?.change_cpus(change, &cpus)?;
    match args.json {
        true => pretty(&pool),
        false => Ok(verbs::pool(&pool)),
    }
}

/// `baton list`.
///
/// # Errors
/// As [`pool_status`].
pub fn list(args: &ListArgs) -> Printed {
    let list = client(&args.pool)?.guests()?;
    match args.json {
        true => pretty(&list),
        false => Ok(verbs::guests(&list.guests)),
    }
}

/// `baton show`.
///
/// # Errors
/// As [`pool_status`].
pub fn show(args: &NamedArgs) -> Printed {
    let guest = client(&args.pool)?.guest(&args.name)?;
    match args.json {
        true => pretty(&guest),
        false => Ok(verbs::guest(&guest)),
    }
}

/// The socket of the console that `baton console` is to attach to.
///
/// # Errors
/// As [`pool_status`], or if the console of the guest is no socket.
pub fn console(args: &ConsoleArgs) -> Result<PathBuf, Failed> {
    if args.console.contains('/') {
        return Ok(args.console.clone().into());
    }
    let guest = client(&args.pool)?.guest(&args.console)?;
    let none = || {
        format!(
            "guest {} has no console to attach to: start it with --console unix:PATH",
            guest.name
        )
    };
    Ok(guest.console.ok_or_else(none)?.into())
}

/// `baton pause`, `resume` and `reboot`, which post `order`.
///
/// # Errors
/// As [`pool_status`].
pub fn order(args: &NamedArgs, order: &str) -> Printed {
    client(&args.pool)?.order(&args.name, order)?;
    done(args.json, &args.name, order)
}

/// `baton kill`.
///
/// # Errors
/// As [`pool_status`].
pub fn kill(args: &NamedArgs) -> Printed {
    client(&args.pool)?.kill(&args.name)?;
    done(args.json, &args.name, "kill")
}

/// `baton stop`.
///
/// # Errors
/// As [`pool_status`], or if the guest does not end.
pub fn stop(args: &StopArgs) -> Printed {
    let NamedArgs { name, pool, json } = &args.guest;
    match verbs::stop(&client(pool)?, name, args.timeout)? {
        true => done(*json, name, "power-button"),
        false => done(*json, name, "power-off"),
    }
}

/// `baton set`.
///
/// # Errors
/// As [`pool_status`].
pub fn set(args: &SetArgs) -> Printed {
    let NamedArgs { name, pool, json } = &args.guest;
    let guest = client(pool)?.change(name, &args.change())?;
    match json {
        true => pretty(&guest),
        false => Ok(verbs::guest(&guest)),
    }
}

/// `baton start`.
///
/// # Errors
/// As [`pool_status`], or if the guest does not start.
pub fn start(args: &StartArgs) -> Printed {
    let (name, log) = verbs::start(&client(&args.pool)?, &args.file, &args.sandbox.words())?;
    match args.json {
        true => pretty(&json!({ "guest": name, "log": log })),
        false => Ok(format!("{name} runs; its log is {}\n", log.display())),
    }
}

/// `baton logs`. With `--follow`, prints until the reader ends.
///
/// # Errors
/// If there is no log, or it cannot be read.
pub fn logs(args: &LogsArgs) -> Result<(), Failed> {
    let mut log = GuestLog::open(&args.name, args.lines)?;
    let is_terminal = io::stdout().is_terminal();
    let print = |bytes: &[u8]| {
        let mut shown = Vec::new();
        match is_terminal {
            // What a guest prints must not control the terminal.
            true => bytes
                .split_inclusive(|byte| *byte == b'\n')
                .for_each(|line| printable::append(&mut shown, line)),
            false => shown.extend_from_slice(bytes),
        }
        output::write_all(&io::stdout(), &shown).is_ok()
    };
    if args.follow {
        return Ok(log.follow(print)?);
    }
    print(&log.read()?);
    Ok(())
}

/// `baton events`. Prints until the pool ends, or the reader does.
///
/// # Errors
/// As [`pool_status`].
pub fn events(args: &EventArgs) -> Result<(), Failed> {
    let mut line = String::new();
    client(&args.pool)?.follow(|event, json| {
        line.clear();
        let written = match args.json {
            true => writeln!(line, "{json}"),
            false => writeln!(line, "{}", verbs::event(event)),
        };
        written.is_ok() && output::write_all(&io::stdout(), line.as_bytes()).is_ok()
    })?;
    Ok(())
}

/// What a command prints that has nothing to show.
fn done(as_json: bool, name: &str, order: &str) -> Printed {
    match as_json {
        true => pretty(&json!({ "guest": name, "done": order })),
        false => Ok(String::new()),
    }
}
