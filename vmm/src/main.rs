//! The program `baton`.

use std::io::{self, Write};
use std::process::ExitCode;

use baton::bench::Finished;
use baton::bench::args::{BenchCommand, LhpArgs, SwitchArgs};
use baton::bench::attacks::AttacksArgs;
use baton::bench::linux::LinuxArgs;
use baton::cli::{Cli, Command, RunArgs, SimArgs, Switch, TopArgs};
use baton::config::{SummaryForm, Timeline};
use baton::signals::{self, StopSignals};
use baton::summary::RunSummary;
use baton::{bench, check, run, say, sim_command, summary, top};
use clap::Parser;

fn main() -> ExitCode {
    signals::prepare();
    let result = match Cli::parse().command {
        Command::Run(args) => run_guests(&args),
        Command::Bench { command } => match *command {
            BenchCommand::Lhp(args) => bench_lhp(&args),
            BenchCommand::Switch(args) => bench_switch(&args),
            BenchCommand::Linux(args) => bench_linux(&args),
            BenchCommand::Attacks(args) => bench_attacks(&args),
        },
        Command::Top(args) => watch(&args),
        Command::Sim(args) => simulate(&args),
        Command::Check => check_host(),
    };
    result.unwrap_or_else(|error| {
        say::line(format_args!("baton: {error}"));
        ExitCode::FAILURE
    })
}

fn run_guests(args: &RunArgs) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let config = args.config()?;
    let signals = StopSignals::block()?;
    let summary = run::run(&config, Some(&signals))?;
    // From here on Ctrl-C ends the program at once.
    drop(signals);
    let text = match config.summary {
        SummaryForm::Text => summary::text::render(&summary),
        SummaryForm::Json => format!("{}\n", serde_json::to_string_pretty(&summary)?),
    };
    print(&text)?;
    if config.timeline != Timeline::Off {
        print(&summary::moment(&summary))?;
    }
    Ok(exit_code(&summary))
}

fn bench_lhp(args: &LhpArgs) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let signals = StopSignals::block()?;
    let finished = bench::lhp(args, Some(&signals))?;
    drop(signals);
    finish(&finished)
}

fn bench_attacks(args: &AttacksArgs) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let signals = StopSignals::block()?;
    let finished = bench::attacks(args, Some(&signals))?;
    drop(signals);
    finish(&finished)
}

fn finish(finished: &Finished) -> Result<ExitCode, Box<dyn std::error::Error>> {
    print(&finished.text)?;
    Ok(if finished.good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn bench_switch(args: &SwitchArgs) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let signals = StopSignals::block()?;
    let text = bench::switch(args, Some(&signals))?;
    drop(signals);
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn bench_linux(args: &LinuxArgs) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let signals = StopSignals::block()?;
    let text = bench::linux(args, Some(&signals))?;
    drop(signals);
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn watch(args: &TopArgs) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let path = match &args.socket {
        Some(path) => path.clone(),
        None => top::find(args.pid)?,
    };
    if args.json {
        let snapshot = top::client::snapshot(&path)?;
        print(&format!("{}\n", serde_json::to_string_pretty(&snapshot)?))?;
    } else if args.once {
        print(&top::once(path, args.interval)?)?;
    } else {
        let signals = StopSignals::block()?;
        let end = top::live(path, args.interval, &signals)?;
        drop(signals);
        if !end.is_empty() {
            print(&format!("{end}\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn simulate(args: &SimArgs) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut text = Vec::new();
    sim_command::run(
        &args.scenario,
        args.seed,
        args.proxy == Switch::On,
        &mut text,
    )?;
    print(&String::from_utf8_lossy(&text))?;
    Ok(ExitCode::SUCCESS)
}

fn check_host() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let report = check::Report::of_this_host();
    print(&report.to_string())?;
    Ok(if report.can_run() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints to stdout; that nobody reads it is no error.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// 0 if all is well; the code of the guest that failed if it is one and gave one; else 1.
fn exit_code(summary: &RunSummary) -> ExitCode {
    let failed: Vec<_> = summary.guests.iter().filter(|guest| !guest.ok).collect();
    for guest in &failed {
        say::line(format_args!("baton: guest {}: {}", guest.name, guest.end));
    }
    match failed[..] {
        [] => ExitCode::SUCCESS,
        [guest] => match guest.exit_code.and_then(|code| u8::try_from(code).ok()) {
            Some(code) if code != 0 => ExitCode::from(code),
            _ => ExitCode::FAILURE,
        },
        _ => ExitCode::FAILURE,
    }
}
