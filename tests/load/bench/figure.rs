//! A figure of several runs beside its target.

use std::fmt;

/// What is wanted of a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// Nothing: it is only stated.
    Stated,
}

/// One figure, of every run.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    what: &'static str,
    target: Target,
    /// At least one; sorted.
    values: Vec<f64>,
}

impl Figure {
    pub(crate) fn new(what: &'static str, target: Target, mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { what, target, values }
    }

    pub(crate) fn median(&self) -> f64 {
        self.values.get(self.values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Whether the median is what was wanted.
    pub(crate) fn is_met(&self) -> bool {
        match self.target {
            Target::AtLeast(least) => self.median() >= least,
            Target::AtMost(most) => self.median() <= most,
            Target::Stated => true,
        }
    }
}

/// A row of a Markdown table: figure, target, median, spread, met or missed.
impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = match self.target {
            Target::AtLeast(least) => format!("≥ {}", rounded(least)),
            Target::AtMost(most) => format!("≤ {}", rounded(most)),
            Target::Stated => String::new(),
        };
        let spread = match (self.values.first(), self.values.last()) {
            (Some(least), Some(most)) if self.values.len() > 1 => {
                format!("{} to {}", rounded(*least), rounded(*most))
            }
            _ => "one run".to_owned(),
        };
        let met = match self.target {
            Target::Stated => "stated",
            Target::AtLeast(_) | Target::AtMost(_) if self.is_met() => "met",
            Target::AtLeast(_) | Target::AtMost(_) => "**missed**",
        };
        write!(f, "| {} | {target} | {} | {spread} | {met} |", self.what, rounded(self.median()))
    }
}

/// As many digits as say something.
fn rounded(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        medium if medium >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_judged_by_its_median_and_shows_its_spread() {
        let figure = Figure::new("allocations/s", Target::AtLeast(1_500.0), vec![1_600.4, 1_400.0, 1_550.0]);
        assert!(figure.is_met());
        assert_eq!(figure.to_string(), "| allocations/s | ≥ 1500 | 1550 | 1400 to 1600 | met |");
        let missed = Figure::new("p99, ms", Target::AtMost(80.0), vec![80.25]);
        assert_eq!(missed.to_string(), "| p99, ms | ≤ 80 | 80.2 | one run | **missed** |");
        let stated = Figure::new("$ a million", Target::Stated, vec![5.36]);
        assert_eq!(stated.to_string(), "| $ a million |  | 5.36 | one run | stated |");
    }
}
