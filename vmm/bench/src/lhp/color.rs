//! The colours of the policies in the drawings.

use clap::ValueEnum;

use super::axes::{Policy, name};

/// The colour of a policy: browns for baselines, blues for Baton, green and violet for other forms of it. They differ in lightness, too, for print.
pub(super) fn color(policy: Policy) -> &'static str {
    const COLORS: [&str; 11] = [
        "#dcc3a1", "#b98b54", "#7d5526", "#bcd9ee", "#5fa777", "#7fb6dd", "#3f86c1", "#0a4a8f",
        "#54457f", "#8d82b5", "#a6406b",
    ];
    let index = Policy::value_variants().iter().position(|p| *p == policy);
    index.and_then(|i| COLORS.get(i)).unwrap_or(&"#888888")
}

/// The legend of the colours.
#[must_use]
pub fn legend(policies: &[Policy]) -> String {
    policies
        .iter()
        .map(|policy| {
            format!(
                "<span class=\"key\" style=\"background:{}\"></span>{}",
                color(*policy),
                name(policy)
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn policies_that_are_measured_together_have_colours_of_their_own() {
        let colors: BTreeSet<&str> = Policy::DECIDING.into_iter().map(color).collect();
        assert_eq!(colors.len(), Policy::DECIDING.len());
        let legend = legend(&Policy::DECIDING);
        assert!(
            legend.contains("#5fa777\"></span>baton-inferred"),
            "{legend}"
        );
    }
}
