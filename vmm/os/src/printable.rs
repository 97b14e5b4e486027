//! A guest's output on a terminal that is not its own: no byte moves the cursor, changes what is shown
//! already, or is a command to the terminal.

/// Appends `text`, at most one line, to `out`. Control characters other than the tab and the end of the
/// line, and bytes that are not UTF-8, become `\xNN`. Carriage returns before the end of the line, with
/// which Linux ends its lines, are left out.
pub fn append(out: &mut Vec<u8>, text: &[u8]) {
    let (mut body, end) = match text.strip_suffix(b"\n") {
        Some(body) => (body, &b"\n"[..]),
        None => (text, &b""[..]),
    };
    while let Some(shorter) = body.strip_suffix(b"\r")
        && !end.is_empty()
    {
        body = shorter;
    }
    for chunk in body.utf8_chunks() {
        for (at, character) in chunk.valid().char_indices() {
            let bytes = &chunk.valid().as_bytes()[at..at + character.len_utf8()];
            match character {
                // C0, DEL and C1.
                character if character.is_control() && character != '\t' => escape(out, bytes),
                _ => out.extend_from_slice(bytes),
            }
        }
        escape(out, chunk.invalid());
    }
    out.extend_from_slice(end);
}

fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        let digit = |half: u8| DIGITS[usize::from(half & 15)];
        out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(*byte)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printable(text: &[u8]) -> String {
        let mut out = Vec::new();
        append(&mut out, text);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn text_of_any_language_stays_as_it_is() {
        for text in ["plain\ttext \\ ~\n", "naïve Ελληνικά 漢字 🦀\n", "", "\n"] {
            assert_eq!(printable(text.as_bytes()), text);
        }
    }

    #[test]
    fn a_command_to_the_terminal_is_shown_and_not_passed_on() {
        for (text, shown) in [
            (
                &b"\x1b[1A\x1b[2K[b] fine\n"[..],
                "\\x1b[1A\\x1b[2K[b] fine\n",
            ),
            // The clipboard.
            (b"\x1b]52;c;eA==\x07", "\\x1b]52;c;eA==\\x07"),
            (b"\0\x08\x0b\x0c\x7f", "\\x00\\x08\\x0b\\x0c\\x7f"),
            // C1: as a character, and as a byte.
            (b"\xc2\x9b1A \x9b1A", "\\xc2\\x9b1A \\x9b1A"),
            // Cut short, too long, and a half of a pair.
            (
                b"\xe2\x82 \xc0\x9b \xed\xa0\x80",
                "\\xe2\\x82 \\xc0\\x9b \\xed\\xa0\\x80",
            ),
        ] {
            assert_eq!(printable(text), shown);
        }
    }

    #[test]
    fn a_carriage_return_ends_a_line_and_does_not_begin_it_anew() {
        assert_eq!(printable(b"login\r\r\n"), "login\n");
        assert_eq!(printable(b"ok\r[b] fine\r\n"), "ok\\x0d[b] fine\n");
        assert_eq!(printable(b"ok\r"), "ok\\x0d");
    }

    #[test]
    fn no_byte_gives_a_control_character_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for text in [vec![byte], vec![b'a', byte, b'b'], vec![0xc2, byte]] {
                let shown = printable(&text);
                let controls = shown.chars().filter(|c| c.is_control() && *c != '\t');
                assert_eq!(controls.count(), usize::from(text.ends_with(b"\n")));
            }
        }
    }
}
