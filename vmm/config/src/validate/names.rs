//! Names of guests. A name appears in tables, before each line of a console, in labels of metrics and in
//! names of threads. So no two guests have the same name, and no name changes what the terminal shows
//! beside it.

use std::collections::BTreeSet;

use crate::error::{ConfigError, fail};
use crate::guest::GuestConfig;

/// Longest name, characters.
const MAX_LENGTH: usize = 64;

/// Refuses guests of which one has a name that [`check`] refuses, or two have the same name.
pub(super) fn check_all(guests: &[GuestConfig]) -> Result<(), ConfigError> {
    let mut taken = BTreeSet::new();
    for guest in guests {
        check(&guest.name)?;
        if !taken.insert(&guest.name) {
            return fail(format!(
                "two guests are called '{}': give each a name of its own (without one the third is \
                 guest3, and with a count of 2 web is web-1 and web-2)",
                guest.name
            ));
        }
    }
    Ok(())
}

/// Refuses a name that is empty, too long, or shown by a terminal as something else.
pub(crate) fn check(name: &str) -> Result<(), ConfigError> {
    if name.is_empty() {
        return fail("a guest's name is empty: give it one, or leave name out");
    }
    let length = name.chars().count();
    if length > MAX_LENGTH {
        return fail(format!(
            "a guest's name has {length} characters, at most {MAX_LENGTH} are allowed: it begins with \
             '{}'",
            name.chars().take(8).collect::<String>().escape_debug()
        ));
    }
    if !is_printable(name) || name.trim() != name {
        return fail(format!(
            "a guest's name cannot be \"{}\": it must have printable characters only, and no space at \
             either end, as in db",
            name.escape_debug()
        ));
    }
    Ok(())
}

/// The names of the guests for a sentence. Of many guests, the first names and how many more there are.
pub(super) fn list(guests: &[GuestConfig]) -> String {
    const SHOWN: usize = 8;
    let names = guests.iter().map(|guest| guest.name.as_str());
    let shown = names.take(SHOWN).collect::<Vec<_>>().join(", ");
    match guests.len() {
        count if count > SHOWN => format!("{shown} and {} more", count - SHOWN),
        _ => shown,
    }
}

/// Whether a terminal shows `name` as it is. The name has no control characters, no characters that show
/// nothing or change the direction of the text, and no spaces other than ' '. Rust escapes all of these
/// in a string, and quotes and backslashes besides.
fn is_printable(name: &str) -> bool {
    let quoted = name.chars().filter(|c| matches!(c, '"' | '\'' | '\\'));
    name.escape_debug().count() == name.chars().count() + quoted.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_text_of_any_language_is_a_name() {
        for name in [
            "db",
            "db 1",
            "a#1",
            "web-1",
            "\"quoted\\\"",
            "café",
            "cafe\u{301}",
            "डेटा",
            "数据库",
            "🦀",
            &"x".repeat(MAX_LENGTH),
        ] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_name_that_the_terminal_would_not_show_as_it_is_is_refused_and_not_shown_raw() {
        for name in [
            "",
            " ",
            " db",
            "db ",
            "a\nb",
            "a\rb",
            "a\tb",
            "a\0b",
            "\x1b[2J",
            "\u{9b}2J",
            "\u{7f}",
            // A mark for the letter before it, a change of direction, a space without width, the end of
            // a line, a space that does not break, a character for private use.
            "\u{301}a",
            "a\u{202e}b",
            "a\u{200b}b",
            "a\u{2028}b",
            "a\u{a0}b",
            "a\u{e000}b",
            &"x".repeat(MAX_LENGTH + 1),
        ] {
            let error = check(name).expect_err(name).to_string();
            assert!(error.contains("a guest's name"), "{error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn two_guests_of_one_name_are_refused() {
        let guests = |names: &[&str]| {
            names
                .iter()
                .map(|n| GuestConfig::new(n))
                .collect::<Vec<_>>()
        };
        assert_eq!(check_all(&guests(&["a", "b", "A", "a#1"])), Ok(()));
        let error = check_all(&guests(&["a", "b", "a"])).expect_err("twice");
        assert!(
            error.to_string().contains("two guests are called 'a'"),
            "{error}"
        );
    }
}
