use std::time::Duration;

use baton_config::{
    ConfigError, Control, ExecutorPriority, GuestConfig, KernelSource, LateHalts, OnReboot,
    RestartPolicy, RunConfig, SchedMode, SummaryForm, VcpuThreads,
};

use super::*;

fn config(args: &[&str]) -> Result<RunConfig, ConfigError> {
    let cli = Cli::try_parse_from(["baton", "run"].iter().chain(args)).expect("parses");
    match cli.command {
        Command::Run(args) => args.config(),
        _ => unreachable!("the command is run"),
    }
}

#[test]
fn clap_accepts_the_definition() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

/// Every help text of `command` and of its subcommands, each with its place.
fn help_texts(command: &clap::Command, path: &str) -> Vec<(String, String)> {
    let text = |text: Option<&clap::builder::StyledStr>| text.map(ToString::to_string);
    let path = format!("{path} {}", command.get_name());
    let mut all = vec![(path.clone(), text(command.get_about()).unwrap_or_default())];
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let place = format!("{path} {}", arg.get_id());
        let help = text(arg.get_long_help()).or(text(arg.get_help()));
        all.push((place.clone(), help.unwrap_or_default()));
        for value in arg
            .get_possible_values()
            .iter()
            .filter(|_| arg.get_action().takes_values())
        {
            let help = text(value.get_help()).unwrap_or_default();
            all.push((format!("{place} {}", value.get_name()), help));
        }
    }
    let subcommands = command.get_subcommands();
    all.extend(subcommands.flat_map(|command| help_texts(command, &path)));
    all
}

#[test]
fn every_help_text_is_there_and_shows_no_mark_up() {
    use clap::CommandFactory;
    let mut command = Cli::command();
    command.build();
    let texts = help_texts(&command, "");
    assert!(texts.len() > 80, "{}", texts.len());
    for (place, text) in texts.iter().filter(|(place, _)| !place.contains(" help")) {
        assert!(!text.is_empty(), "{place} has no help");
        assert!(!text.contains(['\\', '`']), "{place}: {text}");
        assert!(
            !text.contains("  ") && !text.contains(".."),
            "{place}: {text}"
        );
        assert!(text.matches("[default").count() <= 1, "{place}: {text}");
        let first = text.chars().next().unwrap_or_default();
        let is_name = text.starts_with("vCPU");
        assert!(first.is_uppercase() || is_name, "{place}: {text}");
    }
}

#[test]
fn bare_run_is_one_builtin_guest() {
    let config = config(&[]).expect("runs");
    assert_eq!(
        config,
        RunConfig {
            guests: vec![GuestConfig::new("guest")],
            control: Control::Default,
            ..RunConfig::default()
        }
    );
}

#[test]
fn isolation_reaches_the_configuration() {
    assert!(!config(&["--host-cpus", "0"]).expect("runs").isolate);
    let isolated = config(&["--host-cpus", "0", "--isolate"]).expect("runs");
    assert!(isolated.isolate);
}

#[test]
fn flags_reach_the_configuration() {
    let config = config(&[
        "--kernel",
        "guest.elf",
        "--cpus",
        "4",
        "--memory",
        "128M",
        "--cmdline",
        "lock=ticket hold=2us",
        "--reservation",
        "5ms/10ms,soft",
        "--vcpu-reservation",
        "0=1ms/100ms,hard",
        "--host-cpus",
        "0-1",
        "--share-cpus",
        "--sched",
        "baton",
        "--proxy",
        "off",
        "--defer",
        "off",
        "--slice",
        "1ms",
        "--vcpu-threads",
        "on",
        "--executor-priority",
        "1",
        "--require-delivery",
        "--late-halts",
        "allow",
        "--duration",
        "10s",
        "--shutdown-timeout",
        "5s",
        "--until-guest",
        "guest",
        "--summary",
        "json",
        "--vsock",
        "cid=3,path=/run/vm.sock",
        "--overcommit-memory",
    ])
    .expect("runs");
    assert!(config.overcommit_memory);
    let guest = &config.guests[0];
    assert_eq!(guest.kernel, KernelSource::Path("guest.elf".into()));
    assert_eq!((guest.cpus, guest.memory), (4, 128 << 20));
    assert_eq!(guest.vsock, "cid=3,path=/run/vm.sock".parse().ok());
    assert_eq!(guest.reservations[0], "1ms/100ms".parse().ok());
    assert_eq!(guest.reservations[3], "5ms/10ms,soft".parse().ok());
    assert_eq!(config.host_cpus, [0, 1]);
    assert!(config.share_cpus);
    assert_eq!(config.sched, SchedMode::Baton);
    let given = config.given;
    assert!(given.proxy && given.defer && given.slice);
    assert_eq!((config.proxy, config.defer), (false, None));
    assert_eq!(config.slice, Duration::from_millis(1));
    assert_eq!(config.vcpu_threads, VcpuThreads::On);
    assert!(config.require_delivery);
    assert_eq!(config.executor_priority, ExecutorPriority::Fifo(1));
    assert_eq!(config.late_halts, LateHalts::Allow);
    assert_eq!(config.duration, Some(Duration::from_secs(10)));
    assert_eq!(config.shutdown_timeout, Duration::from_secs(5));
    assert_eq!(config.until_guest.as_deref(), Some("guest"));
    assert_eq!(config.summary, SummaryForm::Json);
}

#[test]
fn a_weight_is_for_vcpus_without_a_reservation() {
    let weighed = config(&[
        "--weight",
        "5",
        "--vcpu-reservation",
        "0=1ms/2ms",
        "--cpus",
        "2",
    ]);
    assert_eq!(weighed.expect("runs").guests[0].weight, 5);
    let none_is_left = config(&["--weight", "5", "--reservation", "1ms/2ms"]);
    assert!(none_is_left.is_err());
}

#[test]
fn each_scheduler_has_its_name() {
    for (name, sched) in [
        ("baton", SchedMode::Baton),
        ("host", SchedMode::Host),
        ("host-deadline", SchedMode::HostDeadline),
    ] {
        assert_eq!(config(&["--sched", name]).expect("runs").sched, sched);
    }
}

#[test]
fn a_single_snapshot_has_no_interval_and_the_interval_of_several_has_a_minimum() {
    let top = |args: &[&str]| Cli::try_parse_from(["baton", "top"].iter().chain(args));
    assert!(top(&["--once", "--json"]).is_ok());
    assert!(top(&["--once", "--json", "--interval", "1s"]).is_err());
    let error = top(&["--interval", "1ms"])
        .expect_err("too short")
        .to_string();
    assert!(error.contains("at least 20ms"), "{error}");
}

#[test]
fn reservation_for_a_vcpu_that_is_not_there_is_refused() {
    let error = config(&["--cpus", "2", "--vcpu-reservation", "2=1ms/2ms"]).expect_err("two");
    assert!(error.to_string().contains("only 0 to 1"));
    let twice = ["--vcpu-reservation", "0=1ms/2ms"].repeat(2);
    let error = config(&twice).expect_err("named twice");
    assert!(error.to_string().contains("names vCPU 0 twice"));
}

#[test]
fn bad_values_are_refused_with_an_example_of_a_good_one() {
    for (args, part) in [
        (["--memory", "lots"], "as in 512M"),
        (["--defer", "5"], "as in 50us"),
        (["--host-cpus", "a"], "as in 0-3"),
        (["--vcpu-reservation", "1ms/2ms"], "as in 0=1ms/100ms"),
        (["--vsock", "3"], "as in cid=3,path=/run/vm.sock"),
    ] {
        let error = Cli::try_parse_from(["baton", "run"].iter().chain(&args))
            .expect_err("refused")
            .to_string();
        assert!(error.contains(part), "{error}");
    }
}

/// The configuration that `baton vm` has of these flags.
fn vm(args: &[&str]) -> Result<RunConfig, ConfigError> {
    let cli = Cli::try_parse_from(["baton", "vm"].iter().chain(args)).expect("parses");
    match cli.command {
        Command::Vm(args) => args.config(),
        _ => unreachable!("the command is vm"),
    }
}

#[test]
fn a_process_of_one_guest_takes_the_flags_of_a_guest_and_its_name() {
    let bare = vm(&[]).expect("runs");
    let comes_back = GuestConfig {
        on_reboot: Some(OnReboot::Restart),
        ..GuestConfig::new("guest")
    };
    assert_eq!(bare.guests, [comes_back]);
    let ends = vm(&["--on-reboot", "end", "--restart", "on-failure"]).expect("runs");
    assert_eq!(ends.guests[0].on_reboot, Some(OnReboot::End));
    assert_eq!(ends.guests[0].restart, RestartPolicy::OnFailure);
    let flags = ["--name", "db", "--cpus", "2", "--host-cpus", "1"];
    let more = ["--reservation", "1ms/2ms", "--duration", "3s"];
    let config = vm(&[&flags[..], &more].concat()).expect("runs");
    let guest = &config.guests[0];
    assert_eq!((&*guest.name, guest.cpus), ("db", 2));
    assert_eq!(guest.host_cpus, [Some(vec![1]), Some(vec![1])]);
    assert_eq!(guest.reservations[1], "1ms/2ms".parse().ok());
    assert_eq!(config.duration, Some(Duration::from_secs(3)));
    assert!(config.host_cpus.is_empty());
}
