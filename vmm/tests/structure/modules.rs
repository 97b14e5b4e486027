//! The files of a crate use each other without circles. Modules for tests only are left out.
//!
//! A facade (`lib.rs`, `mod.rs`, or a file with children) uses the modules below it, so none of them may
//! import from it. What several modules need has a file of its own, which all of them import.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::crates::members;
use super::lexer::{Token, tokens};
use super::root;

/// The path of a module below the root of its crate; the root itself is empty.
type Module = Vec<String>;

/// For each module the modules that it uses.
type Uses = BTreeMap<Module, BTreeSet<Module>>;

#[test]
fn the_files_of_a_crate_use_each_other_without_circles() {
    for directory in members(&root()) {
        let sources = sources(&root().join(&directory).join("src"));
        assert!(!sources.is_empty(), "{directory} has no sources");
        if let Some(circle) = circle(&uses(&sources)) {
            let names: Vec<String> = circle.iter().map(name).collect();
            panic!("{directory}: {}", names.join(" -> "));
        }
    }
}

fn name(module: &Module) -> String {
    match module.is_empty() {
        true => "lib".to_owned(),
        false => module.join("::"),
    }
}

/// The sources of a library by module; `main.rs`, which is a crate of its own, is left out.
fn sources(src: &Path) -> BTreeMap<Module, String> {
    let mut sources = BTreeMap::new();
    collect(src, &Vec::new(), &mut sources);
    sources
}

fn collect(directory: &Path, at: &Module, sources: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        let stem = path.file_stem().expect("a name").to_string_lossy();
        let mut module = at.clone();
        if path.is_dir() {
            module.push(stem.into_owned());
            collect(&path, &module, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") && stem != "main" {
            if stem != "lib" && stem != "mod" {
                module.push(stem.into_owned());
            }
            sources.insert(module, fs::read_to_string(&path).expect("a source"));
        }
    }
}

/// The modules that each module of a crate uses, without those for tests only.
fn uses(sources: &BTreeMap<Module, String>) -> Uses {
    let mut parsed = BTreeMap::new();
    let mut for_tests = BTreeSet::new();
    for (module, source) in sources {
        let (tokens, test_modules) = without_tests(tokens(source));
        for name in test_modules {
            for_tests.insert([&module[..], &[name]].concat());
        }
        parsed.insert(module.clone(), tokens);
    }
    parsed.retain(|module, _| !for_tests.iter().any(|tests| module.starts_with(tests)));
    let modules: BTreeSet<Module> = parsed.keys().cloned().collect();
    let resolved = parsed.iter().map(|(module, tokens)| {
        let paths = paths(tokens);
        let used = paths
            .iter()
            .filter_map(|path| resolve(module, path, &modules));
        let used = used.filter(|used| used != module).collect();
        (module.clone(), used)
    });
    resolved.collect()
}

/// The tokens without items under `#[cfg(test)]`, and the names of the modules that were among these.
fn without_tests(tokens: Vec<Token>) -> (Vec<Token>, Vec<String>) {
    let (mut kept, mut modules) = (Vec::new(), Vec::new());
    let mut rest = &tokens[..];
    while let Some((first, after)) = rest.split_first() {
        let attribute = (*first == Token::Mark('#')).then(|| bracketed(after, '[', ']'));
        match attribute {
            Some(length) if is_for_tests(&after[..length]) => {
                let item = &after[length..];
                let end = item_length(item);
                let name = item[..end].windows(2).find_map(|pair| match pair {
                    [Token::Word(keyword), Token::Word(name)] if keyword == "mod" => Some(name),
                    _ => None,
                });
                modules.extend(name.cloned());
                rest = &item[end..];
            }
            _ => {
                kept.push(first.clone());
                rest = after;
            }
        }
    }
    (kept, modules)
}

/// Whether an attribute is `cfg(test)` or a `cfg` that requires it.
fn is_for_tests(attribute: &[Token]) -> bool {
    let has = |word: &str| attribute.contains(&Token::Word(word.to_owned()));
    has("cfg") && has("test") && !has("not")
}

/// The number of tokens up to the bracket that closes the first one; 0 if the first token opens none.
fn bracketed(tokens: &[Token], open: char, close: char) -> usize {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate() {
        if *token == Token::Mark(open) {
            depth += 1;
        } else if *token == Token::Mark(close) {
            depth -= 1;
        }
        if depth == 0 {
            return if index == 0 { 0 } else { index + 1 };
        }
    }
    tokens.len()
}

/// The number of tokens of the item at the start, which ends with a semicolon or a block.
fn item_length(tokens: &[Token]) -> usize {
    for (index, token) in tokens.iter().enumerate() {
        match token {
            Token::Mark(';') => return index + 1,
            Token::Mark('{') => return index + bracketed(&tokens[index..], '{', '}'),
            _ => {}
        }
    }
    tokens.len()
}

/// All paths in a source, those in groups of `use` in full.
fn paths(tokens: &[Token]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut rest = tokens;
    while let Some((first, after)) = rest.split_first() {
        rest = match first {
            Token::Word(word) if word == "use" => use_tree(after, &[], &mut paths),
            Token::Word(word) if after.first() == Some(&Token::PathSeparator) => {
                path(word, after, &mut paths)
            }
            _ => after,
        };
    }
    paths
}

/// Reads a path that begins with `first`; returns the tokens after it.
fn path<'a>(first: &str, after: &'a [Token], paths: &mut Vec<Vec<String>>) -> &'a [Token] {
    let mut path = vec![first.to_owned()];
    let mut rest = after;
    while let [Token::PathSeparator, Token::Word(word), after @ ..] = rest {
        path.push(word.clone());
        rest = after;
    }
    paths.push(path);
    match rest {
        [Token::PathSeparator, after @ ..] => after,
        _ => rest,
    }
}

/// Reads the tree of a `use` below `prefix`; returns the tokens after it.
fn use_tree<'a>(
    tokens: &'a [Token],
    prefix: &[String],
    paths: &mut Vec<Vec<String>>,
) -> &'a [Token] {
    let mut path = prefix.to_vec();
    let mut rest = tokens;
    loop {
        rest = match rest {
            [Token::Word(word), Token::Word(_), after @ ..] if word == "as" => after,
            [Token::Word(word), after @ ..] => {
                path.push(word.clone());
                after
            }
            [Token::PathSeparator, after @ ..] => after,
            [Token::Mark('*'), after @ ..] => after,
            [Token::Mark('{'), after @ ..] => {
                let mut inner = after;
                while !matches!(inner, [Token::Mark('}'), ..] | []) {
                    inner = use_tree(inner, &path, paths);
                    if let [Token::Mark(','), after @ ..] = inner {
                        inner = after;
                    }
                }
                return inner.get(1..).unwrap_or_default();
            }
            _ => {
                paths.push(path);
                return rest;
            }
        };
    }
}

/// The module of the crate in which `path`, seen from `module`, ends; `None` if it leaves the crate.
fn resolve(module: &Module, path: &[String], modules: &BTreeSet<Module>) -> Option<Module> {
    // A bound `use<..>` has no path.
    let (first, after) = path.split_first()?;
    let (mut at, mut rest) = match first.as_str() {
        "crate" => (Vec::new(), after),
        "self" | "super" => (module.clone(), path),
        _ => {
            let child = [&module[..], std::slice::from_ref(first)].concat();
            modules.contains(&child).then(|| (module.clone(), path))?
        }
    };
    while let Some((first, after)) = rest.split_first() {
        match first.as_str() {
            "self" => {}
            "super" => {
                at.pop()?;
            }
            _ => {
                let child = [&at[..], std::slice::from_ref(first)].concat();
                if !modules.contains(&child) {
                    break;
                }
                at = child;
            }
        }
        rest = after;
    }
    modules.contains(&at).then_some(at)
}

/// A circle of modules, from one of them back to itself, if there is any.
fn circle(uses: &Uses) -> Option<Vec<Module>> {
    let mut done = BTreeSet::new();
    uses.keys()
        .find_map(|module| circle_from(module, uses, &mut Vec::new(), &mut done))
}

fn circle_from(
    module: &Module,
    uses: &Uses,
    way: &mut Vec<Module>,
    done: &mut BTreeSet<Module>,
) -> Option<Vec<Module>> {
    if let Some(start) = way.iter().position(|before| before == module) {
        return Some([&way[start..], std::slice::from_ref(module)].concat());
    }
    if done.contains(module) {
        return None;
    }
    way.push(module.clone());
    let found = uses[module]
        .iter()
        .find_map(|used| circle_from(used, uses, way, done));
    way.pop();
    done.insert(module.clone());
    found
}

/// The circle in a crate with these sources, by the names of its modules.
fn circle_in(sources: &[(&str, &str)]) -> Option<String> {
    let module = |name: &str| match name {
        "lib" => Vec::new(),
        name => name.split("::").map(str::to_owned).collect(),
    };
    let sources = sources
        .iter()
        .map(|(name, source)| (module(name), (*source).to_owned()))
        .collect();
    let names = circle(&uses(&sources))?
        .iter()
        .map(name)
        .collect::<Vec<_>>();
    Some(names.join(" -> "))
}

#[test]
fn a_facade_above_modules_in_layers_is_no_circle() {
    let sources = [
        (
            "lib",
            "mod a;\nmod b;\npub use a::A;\npub use b::{B, C as D};",
        ),
        (
            "a",
            "use std::fmt;\nuse super::b::{self, B};\nfn f() { b::g() }",
        ),
        ("b", "pub struct B;\npub fn g() {}"),
    ];
    assert_eq!(circle_in(&sources), None);
}

#[test]
fn a_module_that_imports_from_its_facade_is_a_circle() {
    let lib = ("lib", "mod a;\npub use a::A;\npub struct B;");
    for source in [
        "use crate::B;",
        "use super::{B};",
        "use super::*;",
        "fn f() -> super::B { todo!() }",
        "pub(in crate::x) use crate::{B as C};",
    ] {
        let circle = circle_in(&[lib, ("a", source)]);
        assert_eq!(circle.as_deref(), Some("lib -> a -> lib"), "{source}");
    }
}

#[test]
fn circles_over_several_levels_are_found() {
    let sources = [
        ("lib", "mod a;\nmod b;"),
        ("a", "mod c;\npub use c::C;"),
        ("a::c", "use crate::b::{x::Y, B};"),
        ("b", "use crate::a::{self, C};"),
    ];
    assert_eq!(circle_in(&sources).as_deref(), Some("a -> a::c -> b -> a"));
}

#[test]
fn tests_comments_and_strings_make_no_circle() {
    let sources = [
        ("lib", "mod a;\npub use a::A;\npub struct B;"),
        (
            "a",
            "// use crate::B;\n/* use /* nested */ crate::B; */\nconst S: &str = \"use crate::B;\";\n\
             const R: &str = r#\"crate::B \"quoted\"\"#;\nconst C: char = '\"';\n\
             fn f<'a>(s: &'a str) {}\n#[cfg(test)]\npub(super) mod tests { use crate::B; }\n\
             #[cfg(all(test, unix))]\nmod more;\n#[cfg(test)]\nuse super::B;",
        ),
        ("a::more", "use crate::B;"),
    ];
    assert_eq!(circle_in(&sources), None);
    let kept = [
        ("lib", "mod a;\npub use a::A;\npub struct B;"),
        ("a", "#[cfg(not(test))]\nuse crate::B;"),
    ];
    assert!(circle_in(&kept).is_some());
}
