//! The sheet of an SVG drawing, and a logarithmic axis of times.

use std::fmt::{self, Write};

use baton_config::units::readable_ns;

/// An SVG drawing in the making. Lengths are in the units of the sheet, which a page scales to its own width.
#[derive(Debug)]
pub struct Sheet {
    svg: String,
}

impl Sheet {
    /// An empty sheet.
    #[must_use]
    pub fn new(width: f64, height: f64) -> Self {
        Self {
            svg: format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\">"),
        }
    }

    /// Adds elements.
    pub fn add(&mut self, part: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.svg.write_fmt(part);
        self.svg.push('\n');
    }

    /// A horizontal line at `y` from `left` to `right`, with `label` to its left.
    pub fn grid_line(&mut self, (left, right): (f64, f64), y: f64, label: &str, class: &str) {
        self.add(format_args!(
            "<path class=\"{class}\" d=\"M{left} {y:.1}H{right:.1}\"/>"
        ));
        if !label.is_empty() {
            self.add(format_args!(
                "<text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                left - 6.0,
                y + 4.0
            ));
        }
    }

    /// The whole element.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.svg.push_str("</svg>");
        self.svg
    }
}

/// A logarithmic axis of whole decades of times, upwards.
#[derive(Clone, Copy, Debug)]
pub struct LogScale {
    low: f64,
    high: f64,
    top: f64,
    bottom: f64,
}

impl LogScale {
    /// An axis for `times` in nanoseconds that spans at least 1 us to 10 us, drawn from `bottom` up to `top`.
    #[must_use]
    pub fn new(times: impl IntoIterator<Item = u64>, top: f64, bottom: f64) -> Self {
        let (low, high) = times
            .into_iter()
            .map(decade)
            .fold((3.0, 4.0), |(a, b), d| (f64::min(a, d), f64::max(b, d)));
        Self {
            low: low.floor(),
            high: high.ceil(),
            top,
            bottom,
        }
    }

    /// The place of `ns` nanoseconds.
    #[must_use]
    pub fn y(&self, ns: u64) -> f64 {
        let place = (decade(ns).clamp(self.low, self.high) - self.low) / (self.high - self.low);
        self.bottom - (self.bottom - self.top) * place
    }

    /// The decades of the axis, each with its place and its label.
    pub fn decades(&self) -> impl Iterator<Item = (f64, String)> + use<> {
        let scale = *self;
        (self.low as u32..=self.high as u32).map(move |k| {
            let ns = 10u64.saturating_pow(k);
            let label = readable_ns(ns).replace(".00", "").replace(".0", "");
            (scale.y(ns), label)
        })
    }
}

fn decade(ns: u64) -> f64 {
    (ns.max(1) as f64).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_decade_is_as_high_as_the_others() {
        let scale = LogScale::new([150, 70_000], 10.0, 40.0);
        let labels: Vec<(f64, String)> = scale.decades().collect();
        let label = |y, name: &str| (y, name.to_owned());
        assert_eq!(
            labels,
            [
                label(40.0, "100ns"),
                label(30.0, "1us"),
                label(20.0, "10us"),
                label(10.0, "100us")
            ]
        );
    }

    #[test]
    fn any_time_is_on_the_axis() {
        for times in [vec![], vec![0], vec![u64::MAX, 5]] {
            let scale = LogScale::new(times, 10.0, 40.0);
            for ns in [0, 1, 12_345, u64::MAX] {
                assert!((10.0..=40.0).contains(&scale.y(ns)), "{ns}");
            }
        }
    }
}
