//! The tokens of a Rust source, as far as paths need them.

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A name or a keyword.
    Word(String),
    /// `::`.
    PathSeparator,
    /// Any other character.
    Mark(char),
}

/// The tokens of `source`, without comments, literals and white space.
pub fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = ignored(rest);
        if length > 0 {
            rest = &rest[length..];
        } else if is_name(first) {
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        } else if let Some(after) = rest.strip_prefix("::") {
            tokens.push(Token::PathSeparator);
            rest = after;
        } else {
            tokens.push(Token::Mark(first));
            rest = &rest[first.len_utf8()..];
        }
    }
    tokens
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the comment, literal or white space at the start; 0 if there is none.
fn ignored(text: &str) -> usize {
    let spaces = text.len() - text.trim_start().len();
    if spaces > 0 {
        spaces
    } else if text.starts_with("//") {
        text.find('\n').unwrap_or(text.len())
    } else if text.starts_with("/*") {
        block_comment(text)
    } else if let Some(length) = raw_string(text) {
        length
    } else if text.starts_with("b\"") || text.starts_with("c\"") {
        1 + quoted(&text[1..], '"')
    } else if text.starts_with('"') {
        quoted(text, '"')
    } else if text.starts_with('\'') {
        character_or_lifetime(text)
    } else {
        0
    }
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    for (at, _) in text.char_indices() {
        if text[at..].starts_with("/*") {
            depth += 1;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            if depth == 0 {
                return at + 2;
            }
        }
    }
    text.len()
}

/// The length of a raw string at the start.
fn raw_string(text: &str) -> Option<usize> {
    let marks = text
        .strip_prefix("br")
        .or_else(|| text.strip_prefix("cr"))
        .or_else(|| text.strip_prefix('r'))?;
    let hashes = marks.len() - marks.trim_start_matches('#').len();
    let content = marks[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = content
        .find(&end)
        .map_or(content.len(), |at| at + end.len());
    Some(text.len() - content.len() + length)
}

/// The length of a literal between two `quote`s, in which a backslash escapes the next character.
fn quoted(text: &str, quote: char) -> usize {
    let mut is_escaped = true;
    for (at, c) in text.char_indices() {
        if c == quote && !is_escaped {
            return at + c.len_utf8();
        }
        is_escaped = at > 0 && c == '\\' && !is_escaped;
    }
    text.len()
}

fn character_or_lifetime(text: &str) -> usize {
    let mut content = text[1..].chars();
    match (content.next(), content.next()) {
        (Some('\\'), _) => quoted(text, '\''),
        (Some(c), Some('\'')) => 1 + c.len_utf8() + 1,
        _ => {
            let name = text[1..].find(|c| !is_name(c));
            1 + name.unwrap_or(text.len() - 1)
        }
    }
}
