//! Medians and how far the middle half lies apart.

use serde::{Deserialize, Serialize};

/// The median of some rounds, and their spread.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Figure {
    pub median: f64,
    /// Half the distance between the quartiles; none of so few rounds that they do not tell it.
    pub spread: Option<f64>,
}

/// So many rounds tell a spread.
const ENOUGH: usize = 5;

impl Figure {
    /// Returns the figure of what always comes out the same.
    pub fn exact(value: f64) -> Self {
        Self {
            median: value,
            spread: Some(0.0),
        }
    }

    /// Returns the figure of at least one round.
    pub fn of(rounds: &[f64]) -> Self {
        let mut rounds = rounds.to_vec();
        rounds.sort_by(f64::total_cmp);
        let at = |share: f64| rounds[((rounds.len() - 1) as f64 * share).round() as usize];
        let spread = (at(0.75) - at(0.25)) / 2.0;
        Self {
            median: at(0.5),
            spread: (rounds.len() >= ENOUGH).then_some(spread),
        }
    }

    /// Returns the figure of `ours[n] / theirs[n]`; none where a peer has a round of zero, or other rounds.
    pub fn ratio(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        if ours.len() != theirs.len() || ours.is_empty() || theirs.contains(&0.0) {
            return None;
        }
        let ratios = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs);
        Some(Self::of(&ratios.collect::<Vec<_>>()))
    }
}

/// Returns the value that `share` of the values are at or below.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}
