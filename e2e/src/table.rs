//! Minimum, median and maximum of what was measured.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Values by step.
#[derive(Debug, Default)]
pub struct Table(BTreeMap<&'static str, Vec<f64>>);

/// Of one step.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The one in the middle.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

impl Table {
    /// Adds a value to each of these steps.
    pub fn add(&mut self, steps: &[(&'static str, f64)]) {
        for (step, value) in steps {
            self.0.entry(step).or_default().push(*value);
        }
    }

    /// The spread of a step's values, if it has any.
    pub fn spread(&self, step: &str) -> Option<Spread> {
        spread(self.0.get(step)?.iter().copied())
    }

    /// Ours over the peer's, round by round: a machine that drifts between rounds drifts for both.
    pub fn ratio(&self, peer: &Self, step: &str) -> Option<Spread> {
        spread(self.0.get(step)?.iter().zip(peer.0.get(step)?).map(|(ours, theirs)| ours / theirs))
    }

    /// Medians as ` key=value`, for the result line.
    pub fn values(&self, prefix: &str) -> String {
        self.0.keys().filter_map(|step| Some((step, self.spread(step)?.median))).fold(String::new(), |mut text, (step, median)| {
            write!(text, " {prefix}{step}_ms={median:.0}").ok();
            text
        })
    }
}

/// The spread of `values`, if there is any.
pub fn spread(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    Some(Spread { min: *values.first()?, median: values[values.len() / 2], max: *values.last()? })
}

/// The one in the middle, for a result line.
pub fn median(spread: Option<Spread>) -> f64 {
    spread.map_or(f64::NAN, |spread| spread.median)
}

/// Prints a line with so many decimals, if there is something to print.
pub fn row(who: &str, words: &str, spread: Option<Spread>, decimals: usize) {
    if let Some(Spread { min, median, max }) = spread {
        println!("{who:<9} {words:<52} {min:>9.decimals$} {median:>9.decimals$} {max:>9.decimals$}");
    }
}
