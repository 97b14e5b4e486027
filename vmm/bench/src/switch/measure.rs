//! The runs of `baton bench switch`.

use std::time::Duration;

use baton_config::RunConfig;
use baton_os::signals::StopSignals;
use baton_run::RunError;
use baton_run::summary::RunSummary;
use guest_tests::GUEST_ELF;

use super::args::SwitchArgs;
use super::form::Form;
use super::operation::{Operation, SHORT_SLICE, Sample};
use super::report::{OperationRow, SCHEMA_VERSION, SkippedOperation, SwitchReport};
use crate::error::BenchError;
use crate::flags::host_cpus;
use crate::process_run::{self, ProcessRunError};
use crate::report::stats::{Spread, median};

/// The longer of the two slices whose runs are compared to find the cost of a preemption.
const LONG_SLICE: Duration = Duration::from_millis(50);

/// Makes all runs. If the user stops the benchmark, the report has the operations that were complete by then.
pub(super) fn measure(
    args: &SwitchArgs,
    signals: Option<&StopSignals>,
) -> Result<SwitchReport, BenchError> {
    let cpus = host_cpus(args.host_cpus.as_ref())?;
    let (runs, time) = args.runs_and_time();
    let runner = Runner {
        cpus: &cpus,
        time,
        signals,
    };
    let mut report = SwitchReport {
        schema_version: SCHEMA_VERSION,
        runs,
        results: Vec::new(),
        skipped: Vec::new(),
    };
    for operation in Operation::ALL {
        if let Some(reason) = operation.refusal(cpus.len()) {
            report.skipped.push(SkippedOperation { operation, reason });
            continue;
        }
        match runner.row(operation, runs) {
            Ok(row) => report.results.push(row),
            Err(NoRun::Stopped) => break,
            Err(NoRun::Failed(error)) => return Err(error),
        }
    }
    Ok(report)
}

/// What all runs have in common.
struct Runner<'a> {
    cpus: &'a [usize],
    time: Duration,
    signals: Option<&'a StopSignals>,
}

/// Why a run has no figures.
enum NoRun {
    /// The user has stopped the benchmark.
    Stopped,
    Failed(BenchError),
}

impl From<RunError> for NoRun {
    fn from(error: RunError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ProcessRunError> for NoRun {
    fn from(error: ProcessRunError) -> Self {
        Self::Failed(error.into())
    }
}

impl Runner<'_> {
    /// The row of `operation`.
    fn row(&self, operation: Operation, runs: u32) -> Result<OperationRow, NoRun> {
        let mut samples = Samples::default();
        for _ in 0..runs {
            self.round(operation, &mut samples)?;
        }
        let Samples {
            of_baton: [default, threads, pool],
            without,
            host,
        } = samples;
        Ok(OperationRow {
            operation,
            baton_ns: Spread::of(default.iter().map(|sample| sample.ns)),
            threads_ns: spread(&threads),
            pool_ns: spread(&pool),
            pool_to_threads: median_ratio(&pool, &threads),
            without_ns: spread(&without),
            host_ns: spread(&host),
            count: default.iter().map(|sample| sample.count).sum(),
        })
    }

    /// Runs `operation` once in each form.
    fn round(&self, operation: Operation, samples: &mut Samples) -> Result<(), NoRun> {
        for (form, samples) in Form::OF_BATON.into_iter().zip(&mut samples.of_baton) {
            samples.extend(self.under_baton(operation, form)?);
        }
        if let Some(config) = operation.without(self.cpus, self.time) {
            let summary = self.run(Form::Default, &config)?;
            samples.without.extend(operation.sample(&summary));
        }
        if operation.has_host() {
            let config = operation.config(Form::Host, self.cpus, self.time);
            let summary = self.run(Form::Host, &config)?;
            samples.host.extend(operation.sample(&summary));
        }
        Ok(())
    }

    fn run(&self, form: Form, config: &RunConfig) -> Result<RunSummary, NoRun> {
        // A signal may have arrived between two runs.
        if self.signals.is_some_and(StopSignals::take) {
            return Err(NoRun::Stopped);
        }
        let summary = match form {
            Form::Pool => process_run::run(config, self.signals)?,
            Form::Default | Form::Threads | Form::Host => {
                Some(baton_run::run(config, GUEST_ELF, self.signals)?)
            }
        };
        // A guest that a signal has ended has no exit code.
        let is_complete = |summary: &RunSummary| {
            let mut guests = summary.guests.iter();
            guests.all(|guest| guest.exit_code.is_some() || !guest.ok)
        };
        summary.filter(is_complete).ok_or(NoRun::Stopped)
    }

    /// A sample of `operation` under our policy, from as many runs as it takes.
    fn under_baton(&self, operation: Operation, form: Form) -> Result<Option<Sample>, NoRun> {
        if operation == Operation::Preemption {
            return self.preemption(form);
        }
        let config = operation.config(form, self.cpus, self.time);
        Ok(operation.sample(&self.run(form, &config)?))
    }

    /// The CPU time that a run with short slices loses compared with one with long slices, for each
    /// preemption.
    fn preemption(&self, form: Form) -> Result<Option<Sample>, NoRun> {
        let (long, short) = (self.work(form, LONG_SLICE)?, self.work(form, SHORT_SLICE)?);
        // CPU time that the work of the short slices would have taken in long ones.
        let needed = u128::from(short.iterations) * u128::from(long.ran)
            / u128::from(long.iterations.max(1));
        let lost = u128::from(short.ran).saturating_sub(needed);
        let lost = u64::try_from(lost).unwrap_or(0);
        Ok(Sample::of(lost, short.preemptions))
    }

    /// A run with this slice.
    fn work(&self, form: Form, slice: Duration) -> Result<Work, NoRun> {
        let mut config = Operation::Preemption.config(form, self.cpus, self.time);
        config.slice = slice;
        let summary = self.run(form, &config)?;
        let guest = &summary.guests[0];
        let counters = || guest.vcpus.iter().map(|vcpu| &vcpu.account.counters);
        Ok(Work {
            iterations: guest.workload.iterations,
            ran: counters().map(|counters| counters.runtime_ns).sum(),
            preemptions: counters().map(|counters| counters.preemptions).sum(),
        })
    }
}

/// What a run in which nothing but the slices matters has done.
struct Work {
    iterations: u64,
    /// CPU time, ns.
    ran: u64,
    preemptions: u64,
}

/// The samples of one operation.
#[derive(Default)]
struct Samples {
    /// In the order of [`Form::OF_BATON`].
    of_baton: [Vec<Sample>; 3],
    without: Vec<Sample>,
    host: Vec<Sample>,
}

/// The spread of samples, if there are any.
fn spread(samples: &[Sample]) -> Option<Spread> {
    (!samples.is_empty()).then(|| Spread::of(samples.iter().map(|sample| sample.ns)))
}

/// The median of the ratios of `part` to `whole` in the same round; `None` if there are none, or a round lacks one.
fn median_ratio(part: &[Sample], whole: &[Sample]) -> Option<f64> {
    if part.len() != whole.len() {
        return None;
    }
    let pairs = part.iter().zip(whole);
    let ratios: Vec<f64> = pairs
        .filter(|(_, whole)| whole.ns > 0)
        .map(|(part, whole)| part.ns as f64 / whole.ns as f64)
        .collect();
    (!ratios.is_empty()).then(|| median(ratios))
}
