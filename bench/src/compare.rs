//! What has become worse since an earlier report.

use crate::report::{Cell, Chapter, Row, Table, Unit};
use crate::stats::Figure;

/// A figure of ours that is worse than before.
#[derive(Debug, PartialEq)]
pub enum Worse {
    /// By more than runs of the same code differ.
    Certainly(String),
    /// By more than both spread, as some figures of the same code are.
    Perhaps(String),
    /// It had a figure, and has none now.
    Gone(String),
}

/// Returns what these chapters have and the others do not, by name.
pub fn only_in(these: &[Chapter], others: &[Chapter]) -> Vec<String> {
    let mut names = Vec::new();
    for Chapter { suite, tables, .. } in these {
        let Some(other) = others.iter().find(|one| one.suite == *suite) else {
            names.push(suite.clone());
            continue;
        };
        for table in tables {
            let name = format!("{suite}, {}", table.name);
            let Some(other) = other.tables.iter().find(|one| one.name == table.name) else {
                names.push(name);
                continue;
            };
            let arms = table.arms.iter().filter(|arm| !other.arms.contains(arm));
            let rows = table.rows.iter();
            let rows = rows.filter(|row| !other.rows.iter().any(|one| is_same(one, row)));
            let inside = arms.chain(rows.map(|row| &row.what));
            names.extend(inside.map(|what| format!("{name}, {what}")));
        }
    }
    names
}

/// Returns each figure of ours that is worse than before.
///
/// What does not depend on how fast the machine is, is compared itself, since a peer may have another in a new version. Of the others
/// the ratio to a peer of the same run is compared. What fails now and did not is worse.
pub fn worse(before: &[Chapter], now: &[Chapter]) -> Vec<Worse> {
    let mut all = Vec::new();
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
                    let Some(before) = place_of(earlier, row, arm) else {
                        continue;
                    };
                    if let Some((kind, how)) = how_much_worse(before, (table, row, at)) {
                        let (suite, table) = (&chapter.suite, &table.name);
                        all.push(kind(format!(
                            "{suite}, {table}, {}, {arm}: {how}",
                            row.what
                        )));
                    }
                }
            }
        }
    }
    all
}

/// A cell: its table, its row, and the place of its arm.
type Place<'a> = (&'a Table, &'a Row, usize);

/// Returns the place of an arm that had this name, in the row that was called so.
fn place_of<'a>(table: &'a Table, row: &Row, arm: &str) -> Option<Place<'a>> {
    let row = table.rows.iter().find(|one| is_same(one, row))?;
    let at = table.arms.iter().position(|one| one == arm)?;
    Some((table, row, at))
}

/// Returns whether two rows count the same.
fn is_same(one: &Row, other: &Row) -> bool {
    (&one.what, one.unit) == (&other.what, other.unit)
}

type Kind = fn(String) -> Worse;

fn how_much_worse(before: Place, now: Place) -> Option<(Kind, String)> {
    let (table, row, at) = now;
    let gone: Option<(Kind, &str)> = match row.cells.get(at) {
        // It fails, or is refused.
        Some(Cell::Words(words)) => Some((Worse::Certainly, words)),
        // What counts it may be missing.
        Some(Cell::Nothing) => Some((Worse::Gone, "nothing")),
        _ => None,
    };
    if let (true, Some((kind, now))) = (table.has_ours_at(at), gone) {
        let value = value(before)?.median;
        return Some((kind, format!("{now}, was {}", shown(value))));
    }
    let (before, now) = (compared(before)?, compared(now)?);
    let kind = kind_of(row.unit, before, now)?;
    let [now, before] = [now, before].map(|figure| shown(figure.median));
    Some((kind, format!("{now}, was {before}")))
}

fn value((_, row, at): Place) -> Option<Figure> {
    match row.cells.get(at)? {
        Cell::Measured { value, .. } => Some(*value),
        _ => None,
    }
}

/// Returns the figure by which we are compared with ourselves, if an arm has one.
fn compared((table, row, at): Place) -> Option<Figure> {
    let Cell::Measured { value, ratio } = *row.cells.get(at)? else {
        return None;
    };
    match row.unit {
        Unit::Count
        | Unit::Failures
        | Unit::Instructions
        | Unit::Bytes
        | Unit::Share
        | Unit::ShareAsleep => table.has_ours_at(at).then_some(value),
        Unit::Seconds | Unit::PerSecond | Unit::Times | Unit::None => ratio,
    }
}

/// Returns a number with three digits that say something.
fn shown(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 || v == 0.0 => format!("{value:.0}"),
        v if v >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.2e}"),
    }
}

fn kind_of(unit: Unit, before: Figure, now: Figure) -> Option<Kind> {
    let by = match unit.less_is_better() {
        true => now.median - before.median,
        false => before.median - now.median,
    };
    // What repeats to the last digit may be rounded.
    let rounding = before.median.abs() * ROUNDED;
    match by {
        by if by > margin(unit, before, now) => Some(Worse::Certainly),
        by if by > (before.spread? + now.spread?).max(rounding) => Some(Worse::Perhaps),
        _ => None,
    }
}

/// Returns by how much a figure differs between two runs of the same code.
fn margin(unit: Unit, before: Figure, now: Figure) -> f64 {
    let size = before.median.abs();
    let by_rounds = match (before.spread, now.spread) {
        (Some(earlier), Some(later)) => SPREADS * (earlier + later),
        _ if unit.less_is_better() => TWICE * size,
        _ => HALF * size,
    };
    let by_rounds = match unit.less_is_better() {
        true => by_rounds,
        // What can only fall to nothing would else fall by less than it spreads.
        false => by_rounds.min(TWO_THIRDS * size),
    };
    by_rounds.max(match unit {
        Unit::Count if before.spread.is_none() || now.spread.is_none() => NEARLY_ONE,
        Unit::Count => (ROUNDED * size).max(A_FEW_OF_MANY),
        // Of two counts of what happens by chance, the difference has the sum as its variance.
        Unit::Failures => DEVIATIONS * (before.median + now.median).sqrt(),
        Unit::Share => A_FEW_OF_A_HUNDRED,
        _ => AT_LEAST * size,
    })
}

/// The spread has half of a run's rounds in it. The medians of two runs lay up to 2.5 times both spreads apart.
const SPREADS: f64 = 3.0;
/// What has too few rounds for a spread must have doubled, or be half of what it was.
const TWICE: f64 = 1.0;
const HALF: f64 = 0.5;
/// Of the same code the medians of some spread so widely that one run has half of what another has.
const TWO_THIRDS: f64 = 2.0 / 3.0;
const ROUNDED: f64 = 0.02;
/// What is counted by use, is not the same to the last digit.
const A_FEW_OF_MANY: f64 = 0.1;
/// Between threads it is chance how many system calls wake one another: of the same code 0.27 and 0.68 by use.
const NEARLY_ONE: f64 = 0.9;
const DEVIATIONS: f64 = 3.0;
/// Of some hundred requests it is chance whether one fails.
const A_FEW_OF_A_HUNDRED: f64 = 0.02;
/// The instructions of 10,000 tasks differ by up to 4 %.
const AT_LEAST: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what is certain.
    fn worse(before: &[Chapter], now: &[Chapter]) -> Vec<String> {
        let certain = super::worse(before, now).into_iter();
        let certain = certain.filter_map(|worse| match worse {
            Worse::Certainly(line) => Some(line),
            Worse::Perhaps(_) | Worse::Gone(_) => None,
        });
        certain.collect()
    }

    fn chapter(row: Row) -> Vec<Chapter> {
        let mut table = Table::new("table", "", &["ours", "theirs"]);
        table.rows.push(row);
        let (suite, title, text) = ("suite".into(), String::new(), String::new());
        vec![Chapter {
            suite,
            title,
            text,
            tables: vec![table],
            plots: Vec::new(),
        }]
    }

    /// Five rounds of each.
    fn measured(ours: f64, theirs: f64, unit: Unit) -> Vec<Chapter> {
        let rounds = |one: f64| [0.98, 0.99, 1.0, 1.01, 1.02].map(|by| by * one).to_vec();
        rows(|table| table.measured("row", unit, &[rounds(ours), vec![theirs; 5]]))
    }

    fn counted(ours: f64, theirs: f64, unit: Unit) -> Vec<Chapter> {
        rows(|table| table.counted("row", unit, &[ours, theirs].map(Some)))
    }

    fn once(ours: f64, theirs: f64, unit: Unit) -> Vec<Chapter> {
        rows(|table| table.measured_once("row", unit, &[ours, theirs].map(Some)))
    }

    fn rows(add: impl FnOnce(&mut Table)) -> Vec<Chapter> {
        let mut table = Table::new("", "", &["", ""]);
        add(&mut table);
        chapter(table.rows.remove(0))
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn a_ratio_that_grew_is_told_and_a_slower_machine_is_not() {
        let before = measured(1.0, 2.0, Unit::Seconds);
        let slower = measured(3.0, 6.0, Unit::Seconds);
        let grown = measured(1.0, 1.0, Unit::Seconds);
        assert_eq!(worse(&before, &slower), NOTHING);
        let told = ["suite, table, row, theirs: 1.00, was 0.50"];
        assert_eq!(worse(&before, &grown), told);
        assert_eq!(worse(&grown, &before), NOTHING);
    }

    #[test]
    fn what_spreads_is_not_worse_within_three_times_its_spread() {
        // Its quartiles are 1 % away, in both runs.
        let before = measured(1.0, 1.0, Unit::Seconds);
        assert_eq!(worse(&before, &measured(1.05, 1.0, Unit::Seconds)), NOTHING);
        let told = ["suite, table, row, theirs: 1.07, was 1.00"];
        assert_eq!(worse(&before, &measured(1.07, 1.0, Unit::Seconds)), told);
    }

    #[test]
    fn what_is_worse_by_more_than_its_spread_is_told_too() {
        let before = measured(1.0, 1.0, Unit::Seconds);
        let told = |now| super::worse(&before, &measured(now, 1.0, Unit::Seconds));
        assert_eq!(told(1.019), []);
        let line = "suite, table, row, theirs: 1.05, was 1.00".to_owned();
        assert_eq!(told(1.05), [Worse::Perhaps(line)]);
    }

    #[test]
    fn what_has_no_spread_is_worse_if_it_has_doubled_or_halved() {
        let before = once(1.0, 1.0, Unit::Seconds);
        assert_eq!(worse(&before, &once(1.9, 1.0, Unit::Seconds)), NOTHING);
        let told = ["suite, table, row, theirs: 2.10, was 1.00"];
        assert_eq!(worse(&before, &once(2.1, 1.0, Unit::Seconds)), told);
        let before = once(1.0, 1.0, Unit::PerSecond);
        assert_eq!(worse(&before, &once(0.6, 1.0, Unit::PerSecond)), NOTHING);
        let told = ["suite, table, row, theirs: 0.40, was 1.00"];
        assert_eq!(worse(&before, &once(0.4, 1.0, Unit::PerSecond)), told);
    }

    #[test]
    fn fewer_per_second_are_worse_and_a_count_is_compared_itself() {
        let before = measured(2.0, 1.0, Unit::PerSecond);
        let told = ["suite, table, row, theirs: 1.50, was 2.00"];
        assert_eq!(worse(&before, &measured(1.5, 1.0, Unit::PerSecond)), told);
        let before = counted(3.0, 3.0, Unit::Count);
        let told = ["suite, table, row, ours: 4.00, was 3.00"];
        assert_eq!(worse(&before, &counted(4.0, 4.0, Unit::Count)), told);
        let before = counted(0.0, 3.0, Unit::Count);
        let told = ["suite, table, row, ours: 1.00, was 0"];
        assert_eq!(worse(&before, &counted(1.0, 3.0, Unit::Count)), told);
    }

    #[test]
    fn less_than_one_by_use_is_chance_where_it_is_counted_once() {
        for (before, now) in [(0.0, 0.05), (0.27, 0.68)] {
            let [before, now] = [before, now].map(|count| once(count, 1.0, Unit::Count));
            assert_eq!(worse(&before, &now), NOTHING);
        }
        let told = ["suite, table, row, ours: 1.00, was 0"];
        let before = once(0.0, 1.0, Unit::Count);
        assert_eq!(worse(&before, &once(1.0, 1.0, Unit::Count)), told);
        let told = ["suite, table, row, ours: 0.50, was 0"];
        let before = counted(0.0, 1.0, Unit::Count);
        assert_eq!(worse(&before, &counted(0.5, 1.0, Unit::Count)), told);
    }

    #[test]
    fn a_share_is_compared_itself_also_where_no_peer_has_one() {
        let before = once(0.0, 0.0, Unit::Share);
        assert_eq!(worse(&before, &once(0.01, 0.0, Unit::Share)), NOTHING);
        let told = ["suite, table, row, ours: 0.30, was 0"];
        assert_eq!(worse(&before, &once(0.3, 0.0, Unit::Share)), told);
    }

    #[test]
    fn a_rate_that_fell_to_a_third_is_told_however_widely_it_spreads() {
        let spread = |ours: f64| {
            let rounds = [0.6, 0.7, 1.0, 1.4, 1.5].map(|by| by * ours);
            rows(|table| table.measured("row", Unit::PerSecond, &[rounds.into(), vec![1.0; 5]]))
        };
        assert_eq!(worse(&spread(1.0), &spread(0.5)), NOTHING);
        let told = ["suite, table, row, theirs: 0.30, was 1.00"];
        assert_eq!(worse(&spread(1.0), &spread(0.3)), told);
    }

    #[test]
    fn what_fails_and_did_not_is_told_of_ours_alone() {
        let before = measured(1.0, 1.0, Unit::PerSecond);
        let fails = |at: usize| {
            let mut chapters = before.clone();
            chapters[0].tables[0].rows[0].cells[at] = Cell::Words("fails: no answer".into());
            chapters
        };
        let told = ["suite, table, row, ours: fails: no answer, was 1.00"];
        assert_eq!(worse(&before, &fails(0)), told);
        assert_eq!(worse(&before, &fails(1)), NOTHING);
        assert_eq!(worse(&fails(0), &fails(0)), NOTHING);
        assert_eq!(worse(&fails(0), &before), NOTHING);
    }

    #[test]
    fn a_row_of_another_unit_is_another_row() {
        let before = counted(1.0, 1.0, Unit::Bytes);
        let now = counted(9.0, 3.0, Unit::Count);
        assert_eq!(worse(&before, &now), NOTHING);
        let both = (only_in(&before, &now), only_in(&now, &before));
        let row = || vec!["suite, table, row".to_owned()];
        assert_eq!(both, (row(), row()));
    }

    #[test]
    fn what_only_one_report_has_is_named() {
        let before = counted(1.0, 1.0, Unit::Count);
        assert_eq!(only_in(&before, &before), NOTHING);
        assert_eq!(only_in(&before, &[]), ["suite"]);
        let mut now = before.clone();
        now[0].tables[0].arms[1] = "another".into();
        assert_eq!(only_in(&before, &now), ["suite, table, theirs"]);
        assert_eq!(only_in(&now, &before), ["suite, table, another"]);
        now[0].tables[0].name = "new".into();
        assert_eq!(only_in(&now, &before), ["suite, new"]);
    }

    #[test]
    fn a_few_failures_of_many_requests_are_told_and_are_chance() {
        let failed = |ours| counted(ours, 1000.0, Unit::Failures);
        let line = |now| format!("suite, table, row, ours: {now}, was 0");
        let told = |now| super::worse(&failed(0.0), &failed(now));
        assert_eq!(told(0.0), []);
        assert_eq!(told(1.0), [Worse::Perhaps(line("1.00"))]);
        assert_eq!(told(9.0), [Worse::Perhaps(line("9.00"))]);
        assert_eq!(told(10.0), [Worse::Certainly(line("10.00"))]);
        assert_eq!(worse(&failed(12.0), &failed(31.0)), NOTHING);
    }

    #[test]
    fn a_figure_that_is_gone_is_told() {
        let before = counted(3856.0, 3856.0, Unit::Instructions);
        let now = rows(|table| table.counted("row", Unit::Instructions, &[None, None]));
        let line = "suite, table, row, ours: nothing, was 3856".to_owned();
        assert_eq!(super::worse(&before, &now), [Worse::Gone(line)]);
    }

    #[test]
    fn instructions_that_are_a_few_more_are_not_worse() {
        let before = counted(3856.0, 3856.0, Unit::Instructions);
        let now = |ours| counted(ours, 3856.0, Unit::Instructions);
        assert_eq!(worse(&before, &now(3995.0)), NOTHING);
        let told = ["suite, table, row, ours: 4100, was 3856"];
        assert_eq!(worse(&before, &now(4100.0)), told);
    }

    #[test]
    fn a_peer_that_counts_otherwise_makes_us_no_worse() {
        for (before, now) in [(10.0, 9.0), (9.0, 10.0), (0.0, 3.0)] {
            let before = counted(8.0, before, Unit::Count);
            let now = counted(8.0, now, Unit::Count);
            assert_eq!(worse(&before, &now), NOTHING);
        }
    }

    #[test]
    fn another_arm_of_ours_is_compared_with_itself() {
        let with = |arm: &str, count| {
            let mut chapters = counted(8.0, count, Unit::Count);
            chapters[0].tables[0].arms[1] = arm.to_owned();
            chapters
        };
        let arm = "diesel-neon, `pipeline_login`";
        let told = ["suite, table, row, diesel-neon, `pipeline_login`: 7.00, was 6.00"];
        assert_eq!(worse(&with(arm, 6.0), &with(arm, 7.0)), told);
        // What has another name is another arm.
        assert_eq!(worse(&with("peer", 6.0), &with(arm, 7.0)), NOTHING);
    }
}
