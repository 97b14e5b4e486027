//! The report as JSON.

use super::schema::LhpReport;

/// One JSON object, ending in a newline.
///
/// # Errors
/// Those of the serializer; none, for a report of numbers and names.
pub fn render(report: &LhpReport) -> serde_json::Result<String> {
    serde_json::to_string_pretty(report).map(|json| json + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lhp::axes::{Policy, name};
    use crate::lhp::report::tests::report;
    use clap::ValueEnum;
    use serde_json::Value;

    #[test]
    fn every_policy_is_documented() {
        let document = include_str!("../../../../docs/bench-schema.md");
        for policy in Policy::value_variants() {
            let row = format!("| `{}` |", name(policy));
            assert!(document.contains(&row), "docs/bench-schema.md has no {row}");
        }
    }

    /// The names of an object, in order.
    fn names(value: &Value) -> Vec<&str> {
        let object = value.as_object().expect("an object");
        let mut names: Vec<&str> = object.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn names_are_those_of_the_documented_schema() {
        let json = render(&report()).expect("json");
        let json: Value = serde_json::from_str(&json).expect("reads back");
        let mut all = names(&json);
        all.extend(names(&json["settings"]));
        all.extend(names(&json["host"]));
        all.extend(names(&json["limits"][0]));
        all.extend(names(&json["results"][0]));
        all.extend(names(&json["skipped"][0]));
        let document = include_str!("../../../../docs/bench-schema.md");
        for name in all {
            assert!(
                document.contains(&format!("`{name}`")),
                "docs/bench-schema.md does not explain {name}"
            );
        }
    }

    #[test]
    fn rows_have_what_issue_trackers_and_papers_rely_on() {
        let json = render(&report()).expect("json");
        let json: Value = serde_json::from_str(&json).expect("reads back");
        assert_eq!(json["schema_version"], 1);
        let row = &json["results"][1];
        for (name, value) in [
            ("lock", "ticket".into()),
            ("load", "4x".into()),
            ("policy", "baton".into()),
            ("vcpus", 8.into()),
            ("host_cpus", 2.into()),
            ("runs", 2.into()),
            ("ratio_to_limit", Value::from(0.5)),
        ] {
            assert_eq!(row[name], value, "{name}");
        }
        assert_eq!(names(&row["acq_per_cpu_s"]), ["max", "median", "min"]);
        assert_eq!(names(&row["wait_ns"]), ["max", "p50", "p99", "p999"]);
        assert_eq!(json["skipped"][0]["reason"], "needs <root>");
    }
}
