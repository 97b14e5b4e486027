//! The guest's modules depend on each other in one direction.

#![allow(clippy::unwrap_used)] // A test may panic.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const GUEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guest");

/// The modules that each module names, both as paths from the root, which is empty.
type Modules = BTreeMap<String, BTreeSet<String>>;

/// Reads the module `name`, whose file is `file`, and those that it declares.
fn read(modules: &mut Modules, name: &str, file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    let code: String = text.lines().map(without_comment).collect();
    let mut named = BTreeSet::new();
    for statement in code.split(';').map(str::trim) {
        if let Some(child) = statement.rsplit_once("mod ").map(|(_, child)| child)
            && child.chars().all(|c| c.is_alphanumeric() || c == '_')
            && let Some(file) = file_of(name, child)
        {
            let child = join(name, child);
            read(modules, &child, Path::new(&file));
            // A parent may use its modules, so they must not use their parent.
            named.insert(child);
        }
        if let Some((_, tree)) = statement.rsplit_once("use ") {
            expand("", tree, &mut |path| {
                named.extend(absolute(name, path));
            });
        }
        // Paths outside of `use`, and those in it again, but for the beginning of a tree.
        for root in ["crate::", "super::"] {
            for (at, _) in statement.match_indices(root) {
                let rest = &statement[at..];
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
                let path = &rest[..end.unwrap_or(rest.len())];
                named.extend(absolute(name, path).filter(|_| !path.ends_with("::")));
            }
        }
    }
    modules.insert(name.to_owned(), named);
}

fn without_comment(line: &str) -> String {
    line.split("//").next().unwrap_or_default().to_owned() + " "
}

fn join(parent: &str, child: &str) -> String {
    let path = format!("{parent}::{child}");
    path.trim_start_matches("::").to_owned()
}

/// The file of a module; `None` if it is outside the guest's directory.
fn file_of(parent: &str, child: &str) -> Option<String> {
    let base = format!("{GUEST}/{}", join(parent, child).replace("::", "/"));
    let files = [format!("{base}.rs"), format!("{base}/mod.rs")];
    files.into_iter().find(|file| Path::new(file).exists())
}

/// Calls `found` with each path of a tree such as `a::{b, c::{self, d}}`.
fn expand(prefix: &str, tree: &str, found: &mut impl FnMut(&str)) {
    let Some((head, rest)) = tree.split_once('{') else {
        return found(&join(prefix, tree.trim()));
    };
    let prefix = join(prefix, head.trim().trim_end_matches("::"));
    let mut depth = 0;
    let mut item = String::new();
    for c in rest.chars() {
        match (c, depth) {
            (',' | '}', 0) => {
                expand(&prefix, &std::mem::take(&mut item), found);
                continue;
            }
            ('{', _) => depth += 1,
            ('}', _) => depth -= 1,
            _ => {}
        }
        item.push(c);
    }
}

/// A path as one from the root; `None` if it does not name a module of the guest.
fn absolute(module: &str, path: &str) -> Option<String> {
    let mut at = match path.split("::").next()? {
        "crate" => "",
        "super" => module,
        _ => return None,
    }
    .to_owned();
    for part in path.split("::").map(str::trim) {
        match part {
            "crate" | "self" | "" => {}
            "super" => at = at.rsplit_once("::").map_or("", |(up, _)| up).to_owned(),
            part if file_of(&at, part).is_some() => at = join(&at, part),
            // A file that the guest shares with the host; it uses nothing of the guest.
            part if at.is_empty() && root().contains(&format!("mod {part};")) => return None,
            _ => break,
        }
    }
    Some(at)
}

fn root() -> &'static str {
    include_str!("../guest/main.rs")
}

/// The modules that are on a circle or use one that is.
fn on_circles(mut modules: Modules) -> Modules {
    loop {
        let free: Vec<String> = modules
            .iter()
            .filter(|(name, used)| !used.iter().any(|m| m != *name && modules.contains_key(m)))
            .map(|(name, _)| name.clone())
            .collect();
        if free.is_empty() {
            return modules;
        }
        modules.retain(|name, _| !free.contains(name));
    }
}

#[test]
fn no_modules_of_the_guest_depend_on_each_other_in_a_circle() {
    let mut modules = Modules::new();
    read(&mut modules, "", &Path::new(GUEST).join("main.rs"));
    assert!(modules["tasks"].contains("preempt") && modules["locks::tas"].contains("lock"));
    let circles = on_circles(modules);
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn circles_are_found_and_what_is_outside_them_is_not() {
    let module = |name: &str, used: &[&str]| {
        let used = used.iter().map(|used| (*used).to_owned()).collect();
        (name.to_owned(), used)
    };
    let modules = [
        module("a", &["b"]),
        module("b", &["c"]),
        module("c", &["a", "d"]),
        module("d", &["e"]),
        module("e", &[]),
    ];
    let circles = on_circles(modules.into_iter().collect());
    assert_eq!(circles.into_keys().collect::<String>(), "abc");
}
