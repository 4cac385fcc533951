//! What has become worse since an earlier report.

use crate::report::{Cell, Chapter, Row, Table, Unit};
use crate::stats::Figure;

/// Returns a line for each figure of ours that is worse than before by more than both spread.
///
/// What is counted is compared itself, since a peer's count may be another in a new version of the peer. Of times, which the machine
/// decides, the ratio to a peer of the same run is compared.
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
                for (at, arm) in table.arms.iter().enumerate() {
                    let now = compared(table, row, at);
                    if let Some(how) = how_much_worse(row.unit, earlier_of(earlier, row, arm), now)
                    {
                        let (suite, table) = (&chapter.suite, &table.name);
                        lines.push(format!("{suite}, {table}, {}, {arm}: {how}", row.what));
                    }
                }
            }
        }
    }
    lines
}

/// Returns the figure of an arm that had this name, in the row that was called so.
fn earlier_of(table: &Table, row: &Row, arm: &str) -> Option<Figure> {
    let row = table.rows.iter().find(|one| one.what == row.what)?;
    let at = table.arms.iter().position(|one| one == arm)?;
    compared(table, row, at)
}

/// Returns the figure by which we are compared with ourselves, if an arm has one.
fn compared(table: &Table, row: &Row, at: usize) -> Option<Figure> {
    let Cell::Measured { value, ratio } = row.cells[at] else {
        return None;
    };
    match row.unit {
        Unit::Count | Unit::Instructions => table.has_ours_at(at).then_some(value),
        _ => ratio,
    }
}

fn how_much_worse(unit: Unit, before: Option<Figure>, now: Option<Figure>) -> Option<String> {
    let (before, now) = (before?, now?);
    is_worse(unit, before, now).then(|| format!("{:.2}, was {:.2}", now.median, before.median))
}

fn is_worse(unit: Unit, before: Figure, now: Figure) -> bool {
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
        let before = chapter(&[3.0], &[3.0], Unit::Count);
        let now = chapter(&[4.0], &[4.0], Unit::Count);
        assert_eq!(
            worse(&before, &now),
            ["suite, table, row, ours: 4.00, was 3.00"]
        );
    }

    #[test]
    fn a_peer_that_counts_otherwise_makes_us_no_worse() {
        for (before, now) in [(10.0, 9.0), (9.0, 10.0), (0.0, 3.0)] {
            let before = chapter(&[8.0], &[before], Unit::Count);
            let now = chapter(&[8.0], &[now], Unit::Count);
            assert_eq!(worse(&before, &now), [""; 0]);
        }
    }

    #[test]
    fn another_arm_of_ours_is_compared_with_itself() {
        let with = |arm: &str, count| {
            let mut chapters = chapter(&[8.0], &[count], Unit::Count);
            chapters[0].tables[0].arms[1] = arm.to_owned();
            chapters
        };
        let arm = "diesel-neon, `pipeline_login`";
        assert_eq!(
            worse(&with(arm, 6.0), &with(arm, 7.0)),
            ["suite, table, row, diesel-neon, `pipeline_login`: 7.00, was 6.00"]
        );
        // What has another name is another arm.
        assert_eq!(worse(&with("peer", 6.0), &with(arm, 7.0)), [""; 0]);
    }
}
