//! The line about where the guests' hints come from.

use baton_observe::control::snapshot::GuestSnapshot;

/// The line about `guests`: the source that all have, or each source with the guests that have it. `None`
/// without guests, as of a run that reports none.
pub(super) fn line(guests: &[GuestSnapshot]) -> Option<String> {
    let mut sources: Vec<(&str, Vec<&str>)> = Vec::new();
    for guest in guests {
        match sources.iter_mut().find(|(hints, _)| *hints == guest.hints) {
            Some((_, names)) => names.push(&guest.name),
            None => sources.push((&guest.hints, vec![&guest.name])),
        }
    }
    let all = match &sources[..] {
        [] => return None,
        [(hints, _)] => (*hints).to_owned(),
        several => {
            let of = |(hints, names): &(&str, Vec<&str>)| format!("{hints}: {}", names.join(", "));
            several.iter().map(of).collect::<Vec<_>>().join("; ")
        }
    };
    Some(format!("hints: {all}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(name: &str, hints: &str) -> GuestSnapshot {
        GuestSnapshot {
            name: name.to_owned(),
            hints: hints.to_owned(),
        }
    }

    #[test]
    fn guests_with_the_same_source_are_named_together() {
        assert_eq!(line(&[]), None);
        let one = [guest("db", "page"), guest("web", "page")];
        assert_eq!(line(&one).as_deref(), Some("hints: page"));
        let two = [
            guest("db", "page"),
            guest("stock", "inferred (preempt count)"),
            guest("web", "page"),
        ];
        let expected = "hints: page: db, web; inferred (preempt count): stock";
        assert_eq!(line(&two).as_deref(), Some(expected));
    }
}
