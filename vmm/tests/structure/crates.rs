//! The crates of the workspace depend on each other in one direction.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use toml::Table;

use super::root;

/// The crates from the lowest layer to the highest. A crate may use crates of lower layers only.
const LAYERS: [&[&str]; 8] = [
    &["vcpu-sched", "guest-tests"],
    &[
        "baton-abi",
        "baton-api",
        "baton-os",
        "baton-config",
        "baton-sandbox",
    ],
    &["baton-machine", "baton-observe"],
    &["baton-link"],
    &["baton-host"],
    &["baton-run"],
    &["baton-bench", "baton-service", "baton-top"],
    &["baton"],
];

#[test]
fn crates_depend_on_lower_layers_only() {
    let manifests = manifests(&root());
    let names = manifests.keys().map(String::as_str);
    let wrong = wrong_dependencies(names, |name| dependencies(&manifests[name]));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn manifest(directory: &Path) -> Table {
    let text = fs::read_to_string(directory.join("Cargo.toml")).expect("a manifest");
    text.parse().expect("TOML")
}

/// The directories of all members of the workspace.
pub fn members(root: &Path) -> Vec<String> {
    let workspace = manifest(root);
    let members = workspace["workspace"]["members"].as_array();
    let directory = |member: &toml::Value| member.as_str().expect("a directory").to_owned();
    members.expect("members").iter().map(directory).collect()
}

/// The manifests of all members of the workspace, by the names of their packages.
fn manifests(root: &Path) -> BTreeMap<String, Table> {
    let named = |directory: String| {
        let manifest = manifest(&root.join(directory));
        let name = manifest["package"]["name"].as_str().expect("a name");
        (name.to_owned(), manifest)
    };
    members(root).into_iter().map(named).collect()
}

/// The packages that a package uses outside of its tests.
fn dependencies(manifest: &Table) -> Vec<String> {
    let sections = ["dependencies", "build-dependencies"];
    let tables = sections
        .iter()
        .filter_map(|name| manifest.get(*name)?.as_table());
    tables.flat_map(|table| table.keys().cloned()).collect()
}

/// A sentence for each package without a layer, and for each use of a package that is not below.
fn wrong_dependencies<'a>(
    packages: impl Iterator<Item = &'a str>,
    dependencies: impl Fn(&str) -> Vec<String>,
) -> Vec<String> {
    let layer = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let mut wrong = Vec::new();
    for package in packages {
        let Some(own) = layer(package) else {
            wrong.push(format!("{package} has no layer"));
            continue;
        };
        let used = dependencies(package);
        let above = used.iter().filter(|used| layer(used) >= Some(own));
        wrong.extend(above.map(|used| format!("{package} uses {used}")));
    }
    wrong
}

#[test]
fn a_dependency_on_the_same_or_a_higher_layer_is_wrong() {
    let uses = |name: &str| -> Vec<String> {
        let used: &[&str] = match name {
            "baton-abi" => &["libc"],
            "baton-machine" => &["baton-abi", "baton-observe"],
            "baton-host" => &["baton-run", "baton-machine"],
            _ => &[],
        };
        used.iter().map(|&name| name.to_owned()).collect()
    };
    let packages = ["baton-abi", "baton-machine", "baton-host", "baton-new"];
    assert_eq!(
        wrong_dependencies(packages.into_iter(), uses),
        [
            "baton-machine uses baton-observe",
            "baton-host uses baton-run",
            "baton-new has no layer"
        ]
    );
}
