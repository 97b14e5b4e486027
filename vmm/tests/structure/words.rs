//! Retired words, which docs/glossary.md lists, occur nowhere else.

use std::fs;
use std::process::Command;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::root;

/// The section of docs/glossary.md whose table has the retired words in its first column.
const SECTION: &str = "Retired words";
/// Tracked files in which retired words may occur.
const EXCEPTIONS: [&str; 3] = ["docs/glossary.md", "CHANGELOG.md", "Cargo.lock"];

#[test]
fn retired_words_occur_nowhere() {
    let glossary = fs::read_to_string(root().join("docs/glossary.md")).expect("the glossary");
    let retired: Vec<Vec<String>> = retired_words(&glossary).iter().map(|w| parts(w)).collect();
    let mut found = Vec::new();
    for path in tracked_files() {
        // Files that are not text have no words.
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for (number, line) in (1..).zip(text.lines()) {
            let words = parts(line);
            let hits = retired.iter().filter(|retired| contains(&words, retired));
            found.extend(hits.map(|word| format!("{path}:{number}: {}", word.join(" "))));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The files that Git tracks, without the exceptions; none where this is no checkout.
fn tracked_files() -> Vec<String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z"]).current_dir(root());
    let listed = git.output().map(|output| output.stdout).unwrap_or_default();
    let listed = String::from_utf8(listed).expect("paths in UTF-8");
    let paths = listed.split_terminator('\0').map(str::to_owned);
    paths
        .filter(|path| !EXCEPTIONS.contains(&path.as_str()))
        .collect()
}

/// The words in code or in bold in the first column of the tables of [`SECTION`].
fn retired_words(glossary: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut heading = None;
    let mut is_in_section = false;
    let mut column = 0;
    let mut is_bold = false;
    for event in Parser::new_ext(glossary, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                is_in_section = heading.take() == Some(SECTION.into())
            }
            Event::Start(Tag::TableRow) => column = 1,
            Event::End(TagEnd::TableCell) => column += 1,
            Event::End(TagEnd::TableRow | TagEnd::Table) => column = 0,
            Event::Start(Tag::Strong) => is_bold = true,
            Event::End(TagEnd::Strong) => is_bold = false,
            Event::Text(text) => match &mut heading {
                Some(heading) => heading.push_str(&text),
                None if is_in_section && column == 1 && is_bold => words.push(text.to_string()),
                None => {}
            },
            Event::Code(code) if is_in_section && column == 1 => words.push(code.to_string()),
            _ => {}
        }
    }
    words
}

/// The words of `text` in lower case; an identifier has several, as in `queue_index` or `QueueIndex`.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut was_lower = false;
    for c in text.chars() {
        if !c.is_alphanumeric() || c.is_uppercase() && was_lower {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut().filter(|_| c.is_alphanumeric()) {
            part.extend(c.to_lowercase());
        }
        was_lower = c.is_lowercase();
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Whether all words of `retired` stand in `words` in this order without others between them.
fn contains(words: &[String], retired: &[String]) -> bool {
    !retired.is_empty() && words.windows(retired.len()).any(|some| some == retired)
}

#[test]
fn words_are_read_from_the_table_of_their_section_only() {
    let glossary = "# Glossary\n\n| word | meaning |\n|---|---|\n| **kept** | x |\n\n\
                    ## Retired words\n\nSome `code` first.\n\n| word | now |\n|---|---|\n\
                    | `gizmo`, **count twice** | `thing` |\n| old `Doodad` | **trinket** |\n\n\
                    ## More\n\n| word | now |\n|---|---|\n| `other` | x |\n";
    assert_eq!(retired_words(glossary), ["gizmo", "count twice", "Doodad"]);
    assert!(retired_words("# Glossary\n\n| a |\n|---|\n| `b` |\n").is_empty());
}

#[test]
fn a_word_is_found_in_prose_and_in_identifiers_but_not_within_another_word() {
    let has = |text: &str, word: &str| contains(&parts(text), &parts(word));
    assert!(has("It has a Gizmo.", "gizmo"));
    assert!(has("fn leave_gizmo()", "gizmo") && has("struct GizmoState;", "gizmo"));
    assert!(has("never count twice here", "count twice") && has("count_twice", "count twice"));
    assert!(!has("gizmos", "gizmo") && !has("count, but not twice", "count twice"));
    assert!(has("let x = DoodadKind::New", "DoodadKind") && !has("doodad", "DoodadKind"));
}
