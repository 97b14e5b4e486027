//! The program `baton`.

use std::io;
use std::process::ExitCode;

use baton::cli::{
    CheckArgs, Cli, Command, ConsoleArgs, PoolArgs, PoolCommand, RunArgs, SimArgs, TopArgs, VmArgs,
    VmSummary,
};
use baton::guest_commands::{self, Printed};
use baton::{check, console_command, sim_command};
use baton_bench::BenchCommand;
use baton_config::values::Switch;
use baton_config::{SummaryForm, Timeline};
use baton_os::signals::{self, StopSignals};
use baton_os::{output, say};
use baton_run::exit_status::ExitStatus;
use baton_run::summary::{self, RunSummary};
use baton_service::places::API_SOCKET;
use baton_service::{daemon, log};
use clap::Parser;
use guest_tests::GUEST_ELF;

/// The exit status of a command, or the error that made it fail.
type Ended = Result<ExitStatus, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    signals::prepare();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // This includes requests for help and for the version. A closed standard output is no error.
        Err(answer) => {
            let _ = answer.print();
            return match answer.exit_code() {
                0 => ExitStatus::Success.into(),
                _ => ExitStatus::Failed.into(),
            };
        }
    };
    // A panic has printed its message. Its status must not be taken for that of a guest.
    let ended = std::panic::catch_unwind(|| command(cli.command));
    ended.unwrap_or(ExitStatus::Failed).into()
}

fn command(command: Command) -> ExitStatus {
    let ended = match command {
        Command::Run(args) => run_guests(&args),
        Command::Vm(args) => run_vm(&args),
        Command::Bench { command } => bench(&command),
        Command::Pool(args) => pool(&args),
        Command::Start(args) => show(guest_commands::start(&args)),
        Command::List(args) => show(guest_commands::list(&args)),
        Command::Show(args) => show(guest_commands::show(&args)),
        Command::Pause(args) => show(guest_commands::order(&args, "pause")),
        Command::Resume(args) => show(guest_commands::order(&args, "resume")),
        Command::Stop(args) => show(guest_commands::stop(&args)),
        Command::Kill(args) => show(guest_commands::kill(&args)),
        Command::Reboot(args) => show(guest_commands::order(&args, "reset")),
        Command::Set(args) => show(guest_commands::set(&args)),
        Command::Logs(args) => guest_commands::logs(&args).map(|()| ExitStatus::Success),
        Command::Events(args) => guest_commands::events(&args).map(|()| ExitStatus::Success),
        Command::Top(args) => watch(&args),
        Command::Console(args) => attach(&args),
        Command::Sim(args) => simulate(&args),
        Command::Check(args) => check(&args),
    };
    ended.unwrap_or_else(|error| {
        say::line(format_args!("baton: {error}"));
        ExitStatus::Failed
    })
}

fn run_guests(args: &RunArgs) -> Ended {
    let config = args.config()?;
    let signals = StopSignals::block()?;
    let summary = baton_run::run(&config, GUEST_ELF, Some(&signals))?;
    // From here on Ctrl-C ends the program at once.
    drop(signals);
    print_summary(config.summary, &summary)?;
    if config.timeline != Timeline::Off {
        let moment = summary::moment(&summary);
        match config.summary {
            SummaryForm::Text => print(&moment)?,
            // Standard output is the JSON object and nothing else.
            SummaryForm::Json => say::line(format_args!("{}", moment.trim_end())),
        }
    }
    report_failures(&summary);
    let status = ExitStatus::of_run(&summary);
    if !config.require_delivery {
        return Ok(status);
    }
    let undelivered = summary::undelivered(&summary);
    for line in &undelivered {
        say::line(format_args!("baton: {line}"));
    }
    Ok(status.requiring_delivery(&undelivered))
}

fn run_vm(args: &VmArgs) -> Ended {
    let config = args.config()?;
    if args.sandbox.no_sandbox {
        say::line(format_args!(
            "baton: warning: this guest's process runs without a sandbox (--no-sandbox)"
        ));
    } else {
        // While the process has one thread.
        baton_run::enter_sandbox(&config, args.pool.as_deref(), args.sandbox.sandbox_user)?;
    }
    let signals = StopSignals::block()?;
    let summary = baton_run::vm(&config, args.pool.as_deref(), GUEST_ELF, Some(&signals))?;
    // From here on Ctrl-C ends the program at once.
    drop(signals);
    if args.summary != Some(VmSummary::Off) {
        print_summary(config.summary, &summary)?;
    }
    report_failures(&summary);
    Ok(ExitStatus::of_run(&summary))
}

fn print_summary(
    form: SummaryForm,
    summary: &RunSummary,
) -> Result<(), Box<dyn std::error::Error>> {
    let text = match form {
        SummaryForm::Text => summary::text::render(summary),
        SummaryForm::Json => format!("{}\n", serde_json::to_string_pretty(summary)?),
    };
    Ok(print(&text)?)
}

/// Prints on standard error how guests have failed.
fn report_failures(summary: &RunSummary) {
    for guest in summary.guests.iter().filter(|guest| !guest.ok) {
        say::line(format_args!("baton: guest {}: {}", guest.name, guest.end));
    }
}

fn bench(command: &BenchCommand) -> Ended {
    let signals = StopSignals::block()?;
    let finished = command.run(Some(&signals))?;
    drop(signals);
    print(&finished.text)?;
    Ok(if finished.good {
        ExitStatus::Success
    } else {
        ExitStatus::Negative
    })
}

fn pool(args: &PoolArgs) -> Ended {
    match &args.command {
        None => {}
        Some(PoolCommand::Status(args)) => return show(guest_commands::pool_status(args)),
        Some(PoolCommand::Cpus { change }) => return show(guest_commands::pool_cpus(change)),
    }
    let settings = args.settings()?;
    let signals = StopSignals::block_for_service()?;
    let log = log::begin(args.log_level, args.log_format.into());
    let ended = daemon::run(&settings, || args.settings(), &signals);
    drop(log);
    ended?;
    Ok(ExitStatus::Success)
}

/// Prints what a command has returned.
fn show(printed: Printed) -> Ended {
    print(&printed?)?;
    Ok(ExitStatus::Success)
}

fn watch(args: &TopArgs) -> Ended {
    let path = match (&args.socket, &args.pool) {
        (Some(path), _) => path.clone(),
        (None, Some(pool)) => pool.join(API_SOCKET),
        (None, None) => baton_top::find(args.pid)?,
    };
    if args.json {
        let snapshot = baton_top::client::snapshot(&path)?;
        print(&format!("{}\n", serde_json::to_string_pretty(&snapshot)?))?;
    } else if args.once {
        print(&baton_top::once(path, args.interval)?)?;
    } else {
        let signals = StopSignals::block()?;
        let end = baton_top::live(path, args.interval, &signals)?;
        drop(signals);
        if !end.is_empty() {
            print(&format!("{end}\n"))?;
        }
    }
    Ok(ExitStatus::Success)
}

fn attach(args: &ConsoleArgs) -> Ended {
    let path = guest_commands::console(args)?;
    let signals = StopSignals::block()?;
    // However the terminal was detached, that is what was requested, or no failure.
    let _ = console_command::attach(&path, &signals)?;
    Ok(ExitStatus::Success)
}

fn simulate(args: &SimArgs) -> Ended {
    let options = sim_command::Options {
        policy: args.sched.policy(),
        proxy: args.proxy == Switch::On,
    };
    let mut text = Vec::new();
    sim_command::run(&args.scenario, args.seed, options, &mut text)?;
    print(&String::from_utf8_lossy(&text))?;
    Ok(ExitStatus::Success)
}

fn check(args: &CheckArgs) -> Ended {
    let (text, can_run) = match &args.kernel {
        Some(path) => {
            let report = check::kernel_file(path)?;
            (report.to_string(), report.can_boot())
        }
        None => {
            let report = check::this_host();
            (report.to_string(), report.can_run())
        }
    };
    print(&text)?;
    Ok(if can_run {
        ExitStatus::Success
    } else {
        ExitStatus::Negative
    })
}

/// Prints to standard output; a closed pipe is no error.
fn print(text: &str) -> io::Result<()> {
    match output::write_all(&io::stdout(), text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
