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
        // Between two rounds, as the median of an even number is: the upper one would favour whoever is to have more.
        let at = |share: f64| {
            let place = (rounds.len() - 1) as f64 * share;
            let [below, above] = [place.floor(), place.ceil()].map(|place| rounds[place as usize]);
            below + (above - below) * place.fract()
        };
        let spread = (at(0.75) - at(0.25)) / 2.0;
        Self {
            median: at(0.5),
            spread: (rounds.len() >= ENOUGH).then_some(spread),
        }
    }

    pub fn is_finite(self) -> bool {
        self.median.is_finite() && self.spread.is_none_or(f64::is_finite)
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

/// Returns the value that `share` of the values are at or below; none of no values.
pub fn percentile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some(values[(last as f64 * share).round() as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_values_have_no_percentile() {
        assert_eq!(percentile(&mut [], 0.5), None);
        assert_eq!(percentile(&mut [2.0, 3.0, 1.0], 0.5), Some(2.0));
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        let rounds = [4.0, 1.0, 3.0, 2.0, 6.0, 5.0];
        assert_eq!(Figure::of(&rounds).median, 3.5);
        // As far from its middle as the same numbers are upside down.
        let upside_down = rounds.map(|one| -one);
        assert_eq!(Figure::of(&upside_down).median, -3.5);
        let spread = Figure::of(&rounds).spread;
        assert_eq!(Figure::of(&upside_down).spread, spread);
    }
}
