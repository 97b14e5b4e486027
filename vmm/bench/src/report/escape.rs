//! Text in HTML.

use std::fmt::{self, Display, Write};

/// Displays text so that nothing in it is taken for HTML markup.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_of_markup_are_escaped_and_others_stay() {
        let text = Escaped("a < b & \"c\" > d'é").to_string();
        assert_eq!(text, "a &lt; b &amp; &quot;c&quot; &gt; d'é");
    }
}
