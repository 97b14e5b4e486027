//! What the policy would admit in place of what it refused.

use vcpu_sched::AdmissionError;

/// What would be admitted in place of what `error` refused.
pub(crate) fn would_fit(error: &AdmissionError) -> Option<String> {
    match error {
        AdmissionError::NoBandwidth {
            fitting_budget_ns, ..
        } => Some(format!(
            "a budget of at most {}us in the same period",
            fitting_budget_ns / 1000
        )),
        _ => None,
    }
}
