//! What a suite found, as a chapter of the page.

use serde::{Deserialize, Serialize};

use crate::stats::Figure;

/// A suite's results, and how they were come by.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Chapter {
    /// The suite's name, as `SUITE=` takes it.
    pub suite: String,
    pub title: String,
    /// Markdown: what was done, and what a reader should make of it.
    pub text: String,
    pub tables: Vec<Table>,
    /// Where a chapter has pictures, these files stand beside the page.
    pub plots: Vec<PlotFile>,
}

/// A picture that was written, relative to the page.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PlotFile {
    pub path: String,
    /// What it shows, for those who do not see it.
    pub alt: String,
}

/// Rows of figures: this crate's, and those of its peers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Table {
    /// Unique in its chapter.
    pub name: String,
    /// Markdown in front of the table; may be empty.
    pub text: String,
    /// What a row's first column is.
    pub head: String,
    /// The arms' names; the first is ours.
    pub arms: Vec<String>,
    /// Whether all arms are ours.
    #[serde(default)]
    pub is_ours: bool,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    pub what: String,
    pub unit: Unit,
    pub cells: Vec<Cell>,
}

/// What one arm has in a row.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Cell {
    Measured {
        value: Figure,
        /// Ours divided by this arm's, round by round; none in our own column.
        ratio: Option<Figure>,
    },
    /// What cannot be a number, such as an error's text.
    Words(String),
    /// The arm has no such thing.
    Nothing,
}

impl Cell {
    /// Returns the cell of a number that always comes out the same, beside ours.
    pub fn counted(count: f64, ours: Option<f64>) -> Self {
        let beside = ours.filter(|_| count != 0.0);
        Self::Measured {
            value: Figure::exact(count),
            ratio: beside.map(|ours| Figure::exact(ours / count)),
        }
    }

    /// Forgets what was divided by nothing: it is no figure, and JSON has none for it.
    fn keep_numbers(&mut self) {
        if let Self::Measured { value, ratio } = self {
            *ratio = ratio.filter(|ratio| ratio.is_finite());
            if !value.is_finite() {
                *self = Self::Nothing;
            }
        }
    }
}

/// What a row counts, and whether less of it is better.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub enum Unit {
    /// Flights, connections, allocations: less is better.
    Count,
    /// What failed, of so many that it is chance how many: less is better.
    Failures,
    /// Instructions: less is better.
    Instructions,
    /// Seconds: less is better.
    Seconds,
    /// Bytes: less is better.
    Bytes,
    /// Per second: more is better.
    PerSecond,
    /// How many times another figure of the same arm: less is better.
    Times,
    /// Of the time, from 0 to 1: less is better.
    Share,
    /// Of the time asleep, from 0 to 1: more is better.
    ShareAsleep,
    /// Words alone.
    None,
}

impl Unit {
    pub fn less_is_better(self) -> bool {
        !matches!(self, Self::PerSecond | Self::ShareAsleep)
    }

    pub fn show(self, value: f64) -> String {
        match self {
            Self::Seconds => seconds(value),
            Self::Bytes => scaled(value, 1000.0, &["B", "kB", "MB", "GB"]),
            Self::Share | Self::ShareAsleep => format!("{:.1} %", value * 100.0),
            Self::PerSecond => format!("{} /s", number(value)),
            Self::Times => format!("{} ×", number(value)),
            Self::Count | Self::Failures | Self::Instructions | Self::None => number(value),
        }
    }
}

fn seconds(value: f64) -> String {
    match value {
        v if v < 1e-6 => format!("{:.0} ns", v * 1e9),
        v if v < 1e-3 => format!("{:.1} µs", v * 1e6),
        v if v < 1.0 => format!("{:.1} ms", v * 1e3),
        v => format!("{v:.1} s"),
    }
}

fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut units = units.iter();
    let mut unit = units.next();
    for next in units {
        if value < step {
            break;
        }
        value /= step;
        unit = Some(next);
    }
    format!("{} {}", number(value), unit.copied().unwrap_or_default())
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => format!("{:.1} k", value / 1000.0),
        v if v >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// What the name of an arm of ours begins with.
const OURS: &str = "diesel-neon";
/// The name of an arm that is what nobody can do better than.
pub const LIMIT: &str = "limit";

impl Table {
    pub fn new(name: &str, head: &str, arms: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            text: String::new(),
            head: head.to_owned(),
            arms: arms.iter().map(|&arm| arm.to_owned()).collect(),
            is_ours: false,
            rows: Vec::new(),
        }
    }

    pub fn text(mut self, text: &str) -> Self {
        self.text = text.to_owned();
        self
    }

    /// Adds the rounds of each arm; an arm without any has nothing to show.
    pub fn measured(&mut self, what: &str, unit: Unit, rounds: &[Vec<f64>]) {
        let all = rounds.iter().map(Vec::len).max().unwrap_or_default();
        let cells = rounds.iter().enumerate().map(|(arm, theirs)| {
            if theirs.is_empty() {
                return Cell::Nothing;
            }
            let ratio = match arm {
                0 => None,
                // An arm that lacks a round has its others at another's place.
                _ if theirs.len() < all => None,
                _ => Figure::ratio(&rounds[0], theirs),
            };
            let value = Figure::of(theirs);
            Cell::Measured { value, ratio }
        });
        self.row(what, unit, cells.collect());
    }

    /// Adds one number of each arm that was measured once.
    pub fn measured_once(&mut self, what: &str, unit: Unit, values: &[Option<f64>]) {
        let rounds: Vec<Vec<f64>> = values.iter().map(|n| n.iter().copied().collect()).collect();
        self.measured(what, unit, &rounds);
    }

    /// Adds one number of each arm that always comes out the same.
    pub fn counted(&mut self, what: &str, unit: Unit, counts: &[Option<f64>]) {
        let ours = counts[0];
        let cells = counts.iter().enumerate().map(|(arm, count)| match *count {
            Some(count) => Cell::counted(count, ours.filter(|_| arm > 0)),
            None => Cell::Nothing,
        });
        self.row(what, unit, cells.collect());
    }

    /// Adds words of each arm.
    pub fn words(&mut self, what: &str, words: Vec<String>) {
        self.row(
            what,
            Unit::None,
            words.into_iter().map(Cell::Words).collect(),
        );
    }

    /// Adds a row whose cells are of several kinds.
    pub fn row(&mut self, what: &str, unit: Unit, mut cells: Vec<Cell>) {
        assert_eq!(cells.len(), self.arms.len(), "{what}: a cell for each arm");
        let what = what.to_owned();
        for cell in &mut cells {
            cell.keep_numbers();
        }
        self.rows.push(Row { what, unit, cells });
    }

    /// Leaves the ratios out: all arms are ours.
    pub fn of_ours(mut self) -> Self {
        self.is_ours = true;
        let cells = self.rows.iter_mut().flat_map(|row| &mut row.cells);
        for cell in cells {
            if let Cell::Measured { ratio, .. } = cell {
                *ratio = None;
            }
        }
        self
    }

    /// Returns whether the arm at this place is ours.
    pub fn has_ours_at(&self, arm: usize) -> bool {
        arm == 0 || self.is_ours || self.arms[arm].starts_with(OURS)
    }

    /// Returns how we stand beside each peer in each row.
    pub fn standings(&self) -> impl Iterator<Item = Standing> {
        let peers = (0..self.arms.len()).filter(|arm| !self.has_ours_at(*arm));
        let peers: Vec<_> = peers.filter(|arm| self.arms[*arm] != LIMIT).collect();
        let rows = self.rows.iter().filter(|row| row.unit != Unit::None);
        rows.flat_map(move |row| peers.clone().into_iter().map(|arm| row.standing(arm)))
            .flatten()
    }

    /// Returns what an arm has in a row, if that is a number.
    pub fn median(&self, what: &str, arm: &str) -> Option<f64> {
        let at = self.arms.iter().position(|one| one == arm)?;
        let row = self.rows.iter().find(|row| row.what == what)?;
        match &row.cells[at] {
            Cell::Measured { value, .. } => Some(value.median),
            _ => None,
        }
    }

    pub fn markdown(&self) -> String {
        let mut page = String::new();
        if !self.text.is_empty() {
            page += &format!("{}\n\n", self.text);
        }
        page += &format!("| {} | {} |\n", self.head, self.arms.join(" | "));
        page += &format!("|---|{}\n", "---|".repeat(self.arms.len()));
        for row in &self.rows {
            let cells: Vec<_> = (0..row.cells.len()).map(|arm| row.shown(arm)).collect();
            page += &format!("| {} | {} |\n", row.what, cells.join(" | "));
        }
        page
    }
}

impl Row {
    /// Returns how we stand beside an arm; nothing where the two cannot be compared.
    fn standing(&self, arm: usize) -> Option<Standing> {
        let Cell::Measured { value, ratio } = *self.cells.get(arm).filter(|_| arm > 0)? else {
            return None;
        };
        let Cell::Measured { value: ours, .. } = self.cells[0] else {
            return None;
        };
        let (less, more) = match ratio {
            Some(ratio) => {
                let spread = ratio.spread.unwrap_or(UNKNOWN).max(NOT_SHOWN);
                // Where one of two had the slow rounds, the ratio may say the contrary of what the figures beside it do.
                (
                    ratio.median + spread < 1.0 && ours.median < value.median,
                    ratio.median - spread > 1.0 && ours.median > value.median,
                )
            }
            // Nothing can be divided by none.
            None if value.median == 0.0 => (false, ours.median > 0.0),
            None => return None,
        };
        Some(match (self.unit.less_is_better(), less, more) {
            (true, true, _) | (false, _, true) => Standing::Ahead,
            (true, _, true) | (false, true, _) => Standing::Behind,
            _ => Standing::Level,
        })
    }

    fn shown(&self, arm: usize) -> String {
        match &self.cells[arm] {
            Cell::Measured { value, ratio: None } => self.unit.show(value.median),
            Cell::Measured {
                value,
                ratio: Some(ratio),
            } => {
                let (ratio, value) = (shown_ratio(*ratio), self.unit.show(value.median));
                match self.standing(arm) {
                    Some(Standing::Ahead) => format!("**{ratio}** ({value})"),
                    _ => format!("{ratio} ({value})"),
                }
            }
            Cell::Words(words) => in_a_cell(words),
            Cell::Nothing => "–".into(),
        }
    }
}

/// Returns words as they stand in a table of Markdown: the addresses in them are links.
fn in_a_cell(words: &str) -> String {
    let words = words.replace('|', "\\|").replace('\n', " ");
    let linked = words
        .split(' ')
        .map(|word| match word.split_once("https://") {
            None => word.to_owned(),
            Some((before, rest)) => {
                let (rest, behind) = rest.split_at(rest.trim_end_matches([')', '.', ',']).len());
                format!("{before}<https://{rest}>{behind}")
            }
        });
    linked.collect::<Vec<_>>().join(" ")
}

/// How we stand beside a peer, if a ratio differs from 1 by more than it spreads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Standing {
    Ahead,
    Level,
    Behind,
}

/// What is taken for the spread of a ratio that has too few rounds for one.
const UNKNOWN: f64 = 0.1;
/// Of a ratio that is told with two digits.
const NOT_SHOWN: f64 = 0.005;

fn shown_ratio(ratio: Figure) -> String {
    match ratio.spread {
        Some(spread) if spread >= 0.005 => format!("{:.2} ± {spread:.2}", ratio.median),
        _ => format!("{:.2}", ratio.median),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_a_cell_is_a_link() {
        assert_eq!(
            in_a_cell("failed | (see https://example.com/e/2), twice\nover"),
            "failed \\| (see <https://example.com/e/2>), twice over"
        );
    }

    #[test]
    fn who_stands_beside_none_is_behind_or_level() {
        let mut table = Table::new("", "", &["diesel-neon", "peer"]);
        table.counted("failed", Unit::Count, &[Some(3.0), Some(0.0)]);
        table.counted("opened", Unit::Count, &[Some(0.0), Some(0.0)]);
        table.counted("sent", Unit::Bytes, &[Some(0.0), Some(5.0)]);
        let standings: Vec<_> = table.standings().collect();
        use Standing::{Ahead, Behind, Level};
        assert_eq!(standings, [Behind, Level, Ahead]);
    }

    #[test]
    fn we_stand_beside_peers_alone() {
        let arms = ["diesel-neon", "diesel-neon, `pipeline_login`", LIMIT];
        let mut table = Table::new("", "", &arms);
        table.counted("flights", Unit::Count, &[6.0, 5.0, 5.0].map(Some));
        assert_eq!(table.standings().count(), 0);
    }

    #[test]
    fn a_ratio_that_the_medians_contradict_is_level() {
        let mut table = Table::new("", "", &["diesel-neon", "peer"]);
        // On a machine that is slow for one of two: the rounds say 1.5, the medians 0.9.
        let ours = vec![9.0, 9.0, 9.0, 6.0, 9.0, 6.0, 6.0];
        let peers = vec![6.0, 6.0, 6.0, 10.0, 6.0, 10.0, 10.0];
        table.measured("rate", Unit::PerSecond, &[ours.clone(), peers]);
        let peers = vec![6.0, 6.0, 10.0, 10.0, 6.0, 10.0, 10.0];
        let ours = vec![9.0, 9.0, 15.0, 6.0, 9.0, 6.0, 6.0];
        table.measured("rate", Unit::PerSecond, &[ours, peers]);
        let standings: Vec<_> = table.standings().collect();
        assert_eq!(standings, [Standing::Ahead, Standing::Level]);
        assert!(
            table.markdown().contains("| 9 /s | 1.50 ± 0.45 (10 /s) |"),
            "{}",
            table.markdown()
        );
    }

    #[test]
    fn what_is_no_number_is_no_figure() {
        let mut table = Table::new("", "", &["diesel-neon", "peer", "other"]);
        let rounds = [vec![1.0; 5], vec![f64::NAN; 5], vec![f64::INFINITY; 5]];
        table.measured("p99 over the median", Unit::Times, &rounds);
        let rounds = [0.0, f64::NAN, f64::INFINITY].map(Some);
        table.counted("failed, of all", Unit::Share, &rounds);
        let json = serde_json::to_string(&table).unwrap();
        let read: Table = serde_json::from_str(&json).unwrap();
        assert!(matches!(
            read.rows[0].cells[1..],
            [Cell::Nothing, Cell::Nothing]
        ));
        assert!(matches!(
            read.rows[1].cells[1..],
            [Cell::Nothing, Cell::Nothing]
        ));
    }

    #[test]
    fn what_two_digits_do_not_show_is_level() {
        let mut table = Table::new("", "", &["diesel-neon", "peer"]);
        table.counted("asleep", Unit::ShareAsleep, &[Some(0.3131), Some(0.3130)]);
        assert_eq!(table.standings().collect::<Vec<_>>(), [Standing::Level]);
    }
}
