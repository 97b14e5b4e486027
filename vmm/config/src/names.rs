//! Names of guests. They stand in tables, before each line of a console, in labels of metrics and in
//! names of threads; so one name is one guest, and none changes what the terminal shows beside it.

use std::collections::BTreeSet;

use super::{ConfigError, GuestConfig, fail};

/// Longest name, characters.
const MAX_LENGTH: usize = 64;

/// Refuses guests of which one has no proper name, or two have the same.
pub(super) fn check(guests: &[GuestConfig]) -> Result<(), ConfigError> {
    let mut taken = BTreeSet::new();
    for guest in guests {
        proper(&guest.name)?;
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

/// Refuses a name that is empty or too long, or shows as another than it is.
pub(super) fn proper(name: &str) -> Result<(), ConfigError> {
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

/// Whether `name` shows as it is: without control characters, those that show nothing or change the
/// direction of the text, and spaces other than ' '. These are what Rust escapes in a string besides
/// quotes and backslashes.
fn is_printable(name: &str) -> bool {
    let quoted = name.chars().filter(|c| matches!(c, '"' | '\'' | '\\'));
    name.escape_debug().count() == name.chars().count() + quoted.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_any_language_is_a_name() {
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
            assert_eq!(proper(name), Ok(()), "{name}");
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
            // A mark for the letter before it, a change of direction, no width, a line's end, a space
            // that does not break, a character of no meaning.
            "\u{301}a",
            "a\u{202e}b",
            "a\u{200b}b",
            "a\u{2028}b",
            "a\u{a0}b",
            "a\u{e000}b",
            &"x".repeat(MAX_LENGTH + 1),
        ] {
            let error = proper(name).expect_err(name).to_string();
            assert!(error.contains("a guest's name"), "{error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn one_name_is_one_guest() {
        let guests = |names: &[&str]| {
            names
                .iter()
                .map(|n| GuestConfig::new(n))
                .collect::<Vec<_>>()
        };
        assert_eq!(check(&guests(&["a", "b", "A", "a#1"])), Ok(()));
        let error = check(&guests(&["a", "b", "a"])).expect_err("twice");
        assert!(
            error.to_string().contains("two guests are called 'a'"),
            "{error}"
        );
    }
}
