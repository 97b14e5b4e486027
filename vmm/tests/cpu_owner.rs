//! A host CPU has one owner.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use baton_os::cpu_owner::VARIABLE;
use common::{FAILED, Ran, Running, command, first_cpu};

/// A directory for the files of host CPUs, which only the runs of one test use.
struct Locks(PathBuf);

impl Locks {
    fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cpu-locks-{test}"));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    /// Starts `baton run` on the first host CPU with these further flags.
    fn start(&self, flags: &[&str]) -> Running {
        let cpu = first_cpu();
        let mut arguments = vec!["run", "--host-cpus", &cpu, "--control", "off"];
        arguments.extend(flags);
        Running::spawn(command(&arguments).env(VARIABLE, &self.0))
    }

    /// Starts a run and waits until it owns its host CPU.
    fn start_owner(&self) -> Running {
        let mut owner = self.start(&["--cmdline", "seconds=600"]);
        let file = self.0.join(format!("{}.lock", first_cpu()));
        let line = format!("pid {}\n", owner.pid());
        owner.until("it owns its host CPU", || {
            fs::read_to_string(&file).is_ok_and(|text| text.starts_with(&line))
        });
        owner
    }

    /// A short run with these further flags.
    fn run(&self, flags: &[&str]) -> Ran {
        let mut all = vec!["--duration", "50ms"];
        all.extend(flags);
        self.start(&all).finish()
    }
}

#[test]
fn a_second_run_is_refused_in_a_sentence_that_names_the_first_and_the_ways_out() {
    let locks = Locks::new("refused");
    let first = locks.start_owner();
    let refused = locks.run(&[]);
    let (pid, cpu) = (first.pid(), first_cpu());
    assert_eq!(
        refused.one_sentence(),
        format!(
            "baton: baton run guest (process {pid}) owns host CPUs {cpu} of this run: give others with \
             --host-cpus, or share them with --share-cpus, and neither keeps its reservations"
        )
    );
}

#[test]
fn a_run_that_shares_is_warned_and_one_without_promises_owns_nothing() {
    let locks = Locks::new("shared");
    let _first = locks.start_owner();
    let shared = locks.run(&["--share-cpus"]);
    assert_eq!(shared.code, 0, "{shared:?}");
    let warnings = shared.complaints();
    assert_eq!(warnings.len(), 1, "{shared:?}");
    assert!(
        warnings[0].contains("neither keeps its reservations"),
        "{shared:?}"
    );
    let host = locks.run(&["--sched", "host"]);
    assert_eq!((host.code, host.complaints().len()), (0, 0), "{host:?}");
}

#[test]
fn an_isolation_without_a_place_for_its_record_is_refused_in_a_sentence() {
    let mut run = command(&["run", "--isolate", "--control", "off", "--duration", "50ms"]);
    let refused = Running::spawn(run.env(VARIABLE, "off")).finish();
    assert_eq!(refused.code, FAILED, "{refused:?}");
    let sentence = refused.one_sentence();
    assert!(sentence.contains("BATON_CPU_LOCKS is off"), "{sentence}");
    assert!(sentence.contains("leave --isolate out"), "{sentence}");
}

#[test]
fn a_killed_run_leaves_its_host_cpus_to_the_next() {
    let locks = Locks::new("killed");
    let first = locks.start_owner();
    assert_eq!(locks.run(&[]).code, FAILED);
    first.signal(libc::SIGKILL);
    drop(first);
    let next = locks.run(&[]);
    assert_eq!((next.code, next.complaints().len()), (0, 0), "{next:?}");
}
