//! `baton bench switch`: every operation is measured, and the report has its documented form.

#[path = "common/mod.rs"]
mod common;

#[test]
fn every_operation_has_figures_under_both_schedulers_or_says_that_it_has_not() {
    let ran = common::baton(&["bench", "switch", "--quick", "--runs", "1", "--json", "-"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("json");
    assert_eq!(report["schema_version"], 1);
    let rows = report["results"].as_array().expect("rows");
    let names: Vec<_> = rows.iter().map(|row| row["operation"].as_str()).collect();
    let all = ["doorbell", "switch", "kick", "halt-wake", "preemption"];
    assert_eq!(names, all.map(Some));
    for row in rows {
        let none = row["operation"] == "preemption";
        assert_eq!(row["host_ns"].is_null(), none, "{row}");
        // The other two are differences, which may be nothing on a busy machine.
        if ["doorbell", "switch", "kick"]
            .map(Some)
            .contains(&row["operation"].as_str())
        {
            for side in ["baton_ns", "host_ns"] {
                assert!(row[side]["median"].as_u64() > Some(0), "{row}");
            }
        }
    }
}
