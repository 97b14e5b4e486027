//! `--require-delivery`: which runs it accepts. What counts as undelivered has unit tests in `baton_run::summary`.

mod common;

use common::{baton, first_cpu};

#[test]
fn a_run_that_promises_nothing_has_delivered_and_other_schedulers_refuse_the_flag() {
    let cpu = first_cpu();
    let plain = [
        "run",
        "--host-cpus",
        &cpu,
        "--duration",
        "50ms",
        "--require-delivery",
    ];
    let ran = baton(&plain);
    assert_eq!((ran.code, ran.complaints().len()), (0, 0), "{ran:?}");
    let refused = baton(&["run", "--sched", "host", "--require-delivery"]);
    assert!(
        refused
            .one_sentence()
            .contains("does not support --require-delivery"),
        "{refused:?}"
    );
}
