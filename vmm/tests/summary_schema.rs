//! The summary as JSON has the form that docs/summary.schema.json describes.

mod common;

use serde_json::{Value, json};

use common::{baton, file};

fn schema() -> Value {
    serde_json::from_str(include_str!("../../docs/summary.schema.json")).expect("JSON")
}

/// `schema` with the rule that an object has no members but those that are described.
fn strict(mut schema: Value) -> Value {
    match &mut schema {
        Value::Object(members) => {
            for member in members.values_mut() {
                *member = strict(member.take());
            }
            // A member called `properties` of `properties` is none of a schema, and would not be an object of
            // schemas beside a type.
            if members.contains_key("properties") && members.contains_key("type") {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| *item = strict(item.take())),
        _ => {}
    }
    schema
}

/// What is wrong with `value`, one sentence for each place. This checks the keywords of JSON Schema that the file uses;
/// the crate `jsonschema`, which has all of them, takes more than a minute of CPU time to compile.
fn wrong(schema: &Value, value: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    check(schema, schema, value, "", &mut wrong);
    wrong
}

fn check(root: &Value, schema: &Value, value: &Value, place: &str, wrong: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().expect("a schema") {
        let fine = match keyword.as_str() {
            "$ref" => {
                let name = rule.as_str().and_then(|path| path.strip_prefix('#'));
                let target = root.pointer(name.expect("a path")).expect("a definition");
                check(root, target, value, place, wrong);
                true
            }
            "type" => is_of_type(rule, value),
            "const" => rule == value,
            "enum" => rule.as_array().expect("values").contains(value),
            "minimum" => value
                .as_f64()
                .is_none_or(|number| Some(number) >= rule.as_f64()),
            "required" => {
                let mut names = rule.as_array().expect("names").iter();
                names.all(|name| value.get(name.as_str().expect("a name")).is_some())
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{place}/{index}"), wrong);
                }
                true
            }
            "properties" | "additionalProperties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    let place = format!("{place}/{name}");
                    match schema["properties"].get(name) {
                        Some(described) if keyword == "properties" => {
                            check(root, described, member, &place, wrong);
                        }
                        None if keyword == "additionalProperties" => match rule.is_object() {
                            true => check(root, rule, member, &place, wrong),
                            false => wrong.push(format!("{place} is not described")),
                        },
                        _ => {}
                    }
                }
                true
            }
            "$schema" | "$defs" | "title" | "description" => true,
            other => panic!("this test does not know {other}"),
        };
        if !fine {
            wrong.push(format!("{place} is not of {keyword} {rule}"));
        }
    }
}

fn is_of_type(rule: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().expect("a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        other => panic!("there is no type {other}"),
    };
    match rule.as_array() {
        Some(types) => types.iter().any(is),
        None => is(rule),
    }
}

#[test]
fn the_summary_of_a_run_has_the_form_of_the_schema_and_nothing_that_the_schema_leaves_out() {
    let text = "[[guest]]\ncpus = 2\ncmdline = \"seconds=0.05 log=on\"\n\
                [[guest]]\ncmdline = \"workload=hog seconds=0.05\"\nreservation = \"1ms/10ms,soft\"\n\
                [[guest]]\ncmdline = \"workload=triplefault\"\n";
    let config = file("schema.toml", text.as_bytes());
    let config = config.to_string_lossy();
    for sched in ["baton", "round-robin", "host"] {
        let text = match sched {
            "baton" => &*config,
            _ => "",
        };
        let mut words = vec![
            "run",
            "--control",
            "off",
            "--summary",
            "json",
            "--sched",
            sched,
        ];
        match text {
            "" => words.extend(["--cmdline", "seconds=0.05"]),
            text => words.push(text),
        }
        let summary = baton(&words).summary();
        let expected: Vec<String> = Vec::new();
        assert_eq!(wrong(&strict(schema()), &summary), expected, "{summary:#}");
        // A change that would break a consumer is found.
        let mut changed = summary.clone();
        changed["guests"][0]["vcpus"][0]["ran_ns"] = json!("much");
        changed["version"] = json!(2);
        assert_eq!(wrong(&schema(), &changed).len(), 2);
        let mut more = summary;
        more["guests"][0]["new"] = json!(1);
        assert_eq!(wrong(&schema(), &more), expected, "members may be added");
        assert_eq!(wrong(&strict(schema()), &more).len(), 1);
    }
}
