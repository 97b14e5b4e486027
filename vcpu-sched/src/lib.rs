//! vcpu-sched
