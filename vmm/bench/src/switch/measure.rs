//! The runs of `baton bench switch`.

use std::time::Duration;

use baton_config::{RunConfig, SchedMode};
use baton_os::signals::StopSignals;
use baton_run::RunError;
use baton_run::summary::RunSummary;
use guest_tests::GUEST_ELF;

use super::args::SwitchArgs;
use super::operation::{Operation, SHORT_SLICE, Sample};
use super::report::{OperationRow, SCHEMA_VERSION, SkippedOperation, SwitchReport};
use crate::error::BenchError;
use crate::flags::host_cpus;
use crate::report::stats::Spread;

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
        match runner.row(operation, runs)? {
            Some(row) => report.results.push(row),
            None => break,
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

impl Runner<'_> {
    /// The row of `operation`; `None` if the user stops the benchmark.
    fn row(&self, operation: Operation, runs: u32) -> Result<Option<OperationRow>, RunError> {
        let (mut baton, mut without, mut host) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..runs {
            if self.signals.is_some_and(StopSignals::take) {
                return Ok(None);
            }
            baton.extend(self.under_baton(operation)?);
            if let Some(config) = operation.without(self.cpus, self.time) {
                without.extend(operation.sample(&self.run(&config)?));
            }
            if operation.has_host() {
                let config = operation.config(SchedMode::Host, self.cpus, self.time);
                host.extend(operation.sample(&self.run(&config)?));
            }
        }
        Ok(Some(OperationRow {
            operation,
            baton_ns: Spread::of(baton.iter().map(|sample| sample.ns)),
            without_ns: spread(&without),
            host_ns: spread(&host),
            count: baton.iter().map(|sample| sample.count).sum(),
        }))
    }

    fn run(&self, config: &RunConfig) -> Result<RunSummary, RunError> {
        baton_run::run(config, GUEST_ELF, self.signals)
    }

    /// A sample of `operation` under our policy, from as many runs as it takes.
    fn under_baton(&self, operation: Operation) -> Result<Option<Sample>, RunError> {
        if operation == Operation::Preemption {
            return self.preemption();
        }
        let config = operation.config(SchedMode::Baton, self.cpus, self.time);
        Ok(operation.sample(&self.run(&config)?))
    }

    /// The CPU time that a run with short slices loses compared with one with long slices, for each
    /// preemption.
    fn preemption(&self) -> Result<Option<Sample>, RunError> {
        let (long, long_ran, _) = self.work(LONG_SLICE)?;
        let (short, short_ran, preemptions) = self.work(SHORT_SLICE)?;
        // CPU time that the work of the short slices would have taken in long ones.
        let needed = u128::from(short) * u128::from(long_ran) / u128::from(long.max(1));
        let lost = u64::try_from(u128::from(short_ran).saturating_sub(needed)).unwrap_or(0);
        Ok(Sample::of(lost, preemptions))
    }

    /// Iterations, CPU time in nanoseconds and preemptions of a run with this slice.
    fn work(&self, slice: Duration) -> Result<(u64, u64, u64), RunError> {
        let mut config = Operation::Preemption.config(SchedMode::Baton, self.cpus, self.time);
        config.slice = slice;
        let summary = self.run(&config)?;
        let guest = &summary.guests[0];
        let ran = guest.vcpus.iter().map(|vcpu| vcpu.account.ran_ns).sum();
        let preemptions = guest
            .vcpus
            .iter()
            .map(|vcpu| vcpu.account.preemptions)
            .sum();
        Ok((guest.workload.iterations, ran, preemptions))
    }
}

/// The spread of samples, if there are any.
fn spread(samples: &[Sample]) -> Option<Spread> {
    (!samples.is_empty()).then(|| Spread::of(samples.iter().map(|sample| sample.ns)))
}
