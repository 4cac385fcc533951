//! What has become worse since an earlier report.

use crate::report::{Cell, Chapter, Unit};
use crate::stats::Figure;

/// Returns a line for each figure that is worse than before by more than both spread.
///
/// A ratio to a peer of the same run is compared where there is one, since the machine may be another; what is counted is
/// compared itself.
pub fn worse(before: &[Chapter], now: &[Chapter]) -> Vec<String> {
    let mut lines = Vec::new();
    for chapter in now {
        let Some(earlier) = before.iter().find(|one| one.suite == chapter.suite) else {
            continue;
        };
        for table in &chapter.tables {
            let Some(earlier) = earlier.tables.iter().find(|one| one.name == table.name) else {
                continue;
            };
            for row in &table.rows {
                let Some(earlier) = earlier.rows.iter().find(|one| one.what == row.what) else {
                    continue;
                };
                let cells = row.cells.iter().zip(&earlier.cells).zip(&table.arms);
                for ((cell, earlier), arm) in cells {
                    if let Some(how) = how_much_worse(row.unit, earlier, cell) {
                        let (suite, table) = (&chapter.suite, &table.name);
                        lines.push(format!("{suite}, {table}, {}, {arm}: {how}", row.what));
                    }
                }
            }
        }
    }
    lines
}

fn how_much_worse(unit: Unit, before: &Cell, now: &Cell) -> Option<String> {
    let (before, now) = match (before, now) {
        (
            Cell::Measured {
                ratio: Some(before),
                ..
            },
            Cell::Measured {
                ratio: Some(now), ..
            },
        ) => (before, now),
        (
            Cell::Measured {
                value: before,
                ratio: None,
            },
            Cell::Measured {
                value: now,
                ratio: None,
            },
        ) if matches!(unit, Unit::Count | Unit::Instructions) => (before, now),
        _ => return None,
    };
    is_worse(unit, before, now).then(|| format!("{:.2}, was {:.2}", now.median, before.median))
}

fn is_worse(unit: Unit, before: &Figure, now: &Figure) -> bool {
    let by = match unit.less_is_better() {
        true => now.median - before.median,
        false => before.median - now.median,
    };
    // What repeats to the last digit may still be rounded.
    let rounding = before.median.abs() * 0.02;
    by > (before.spread + now.spread).max(rounding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Table;

    fn chapter(ours: &[f64], theirs: &[f64], unit: Unit) -> Vec<Chapter> {
        let mut table = Table::new("table", "", &["ours", "theirs"]);
        table.measured("row", unit, &[ours.to_vec(), theirs.to_vec()]);
        let (suite, title, text) = ("suite".into(), String::new(), String::new());
        vec![Chapter {
            suite,
            title,
            text,
            tables: vec![table],
            plots: Vec::new(),
        }]
    }

    #[test]
    fn a_ratio_that_grew_is_told_and_a_slower_machine_is_not() {
        let before = chapter(&[1.0, 1.1, 0.9], &[2.0, 2.2, 1.8], Unit::Seconds);
        let slower = chapter(&[3.0, 3.3, 2.7], &[6.0, 6.6, 5.4], Unit::Seconds);
        let grown = chapter(&[1.0, 1.1, 0.9], &[1.0, 1.1, 0.9], Unit::Seconds);
        assert_eq!(worse(&before, &slower), [""; 0]);
        assert_eq!(
            worse(&before, &grown),
            ["suite, table, row, theirs: 1.00, was 0.50"]
        );
        assert_eq!(worse(&grown, &before), [""; 0]);
    }

    #[test]
    fn what_spreads_is_not_worse_within_its_spread() {
        let before = chapter(&[1.0, 2.0, 3.0], &[2.0, 2.0, 2.0], Unit::Seconds);
        let now = chapter(&[1.5, 2.5, 3.5], &[2.0, 2.0, 2.0], Unit::Seconds);
        assert_eq!(worse(&before, &now), [""; 0]);
    }

    #[test]
    fn fewer_per_second_are_worse_and_a_count_is_compared_itself() {
        let before = chapter(&[2.0], &[1.0], Unit::PerSecond);
        let now = chapter(&[1.5], &[1.0], Unit::PerSecond);
        assert_eq!(
            worse(&before, &now),
            ["suite, table, row, theirs: 1.50, was 2.00"]
        );
        let before = chapter(&[3.0], &[], Unit::Count);
        let now = chapter(&[4.0], &[], Unit::Count);
        assert_eq!(
            worse(&before, &now),
            ["suite, table, row, ours: 4.00, was 3.00"]
        );
    }
}
