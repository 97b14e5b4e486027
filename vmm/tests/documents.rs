//! The documents agree with the tree: links lead somewhere, SPECIFICATION names tests that exist, and the
//! reference has every flag.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All files below `at` whose names end in `.extension`, without those of builds.
fn files(at: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(at).expect("a directory of the tree") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            if name != "target" && name != ".git" {
                found.extend(files(&path, extension));
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found
}

/// The anchors of a page, which forges make from its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut heading = None;
    let mut anchors = BTreeSet::new();
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => anchors.extend(heading.take()),
            Event::Text(part) | Event::Code(part) => {
                if let Some(heading) = &mut heading {
                    heading.extend(part.to_lowercase().chars().filter_map(|c| match c {
                        ' ' => Some('-'),
                        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                        _ => None,
                    }));
                }
            }
            _ => {}
        }
    }
    anchors
}

fn links(text: &str) -> Vec<String> {
    Parser::new_ext(text, Options::ENABLE_TABLES)
        .filter_map(|event| match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                Some(dest_url.to_string())
            }
            _ => None,
        })
        .filter(|link| !link.contains("://"))
        .collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() {
    let mut broken = Vec::new();
    for page in files(&root(), "md") {
        let text = fs::read_to_string(&page).expect("a page");
        for link in links(&text) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() {
                page.clone()
            } else {
                page.parent().expect("a directory").join(path)
            };
            let heading_is_there =
                || fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor));
            if !target.exists() || !anchor.is_empty() && !heading_is_there() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Whether `name` matches `pattern`, in which `...` and `*` stand for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern = pattern.replace("...", "*");
    let Some((start, end)) = pattern.split_once('*') else {
        return pattern == name;
    };
    name.strip_prefix(start)
        .is_some_and(|rest| rest.ends_with(end))
}

#[test]
fn specification_names_tests_that_exist() {
    let sources: Vec<String> = files(&root(), "rs")
        .iter()
        .map(|path| fs::read_to_string(path).expect("a source"))
        .collect();
    let functions: BTreeSet<&str> = sources
        .iter()
        .flat_map(|text| text.split("fn ").skip(1))
        .filter_map(|rest| rest.split(['(', '<']).next())
        .collect();
    let text = fs::read_to_string(root().join("SPECIFICATION.md")).expect("the specification");
    let mut named = 0;
    for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
        let Event::Code(code) = event else { continue };
        let name = code.rsplit("::").next().unwrap_or_default();
        // The names of tests are sentences; other words in code are shorter.
        if name.matches('_').count() < 3 || name.contains(['.', '/', '-']) && !name.contains("...")
        {
            continue;
        }
        named += 1;
        assert!(
            functions.iter().any(|function| matches(name, function)),
            "there is no test {code}"
        );
    }
    assert!(named > 50, "found only {named} tests in the specification");
}

#[test]
fn reference_has_every_flag_of_a_run() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    let help = common::output(command.args(["run", "--help"]));
    let help = String::from_utf8(help.stdout).expect("text");
    let reference = fs::read_to_string(root().join("docs/reference.md")).expect("the reference");
    let flags: Vec<&str> = help
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("--"))
        .filter_map(|line| line.split([' ', '=']).next())
        .collect();
    assert!(flags.len() > 20, "{flags:?}");
    for flag in flags {
        assert!(
            reference.contains(&format!("`--{flag}")),
            "docs/reference.md lacks --{flag}"
        );
    }
}
