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

/// Returns what cannot be compared, by name: what depends on how fast the machine is, where no peer of the same run has a figure.
pub fn without_peers(before: &[Chapter], now: &[Chapter]) -> Vec<String> {
    let mut names = Vec::new();
    each_row(before, now, |chapter, earlier, (table, row)| {
        let ours = [
            place_of(earlier, row, &table.arms[0]),
            Some((table, row, 0)),
        ];
        let has_ours = ours.map(|place| place.and_then(value).is_some()) == [true; 2];
        let is_a_time = is_of_a_peer(row.unit) && row.unit != Unit::None;
        if is_a_time && has_ours && changes(earlier, (table, row)).is_empty() {
            let (suite, table) = (&chapter.suite, &table.name);
            names.push(format!("{suite}, {table}, {}", row.what));
        }
    });
    names
}

/// Returns each figure of ours that is worse than before.
///
/// What does not depend on how fast the machine is, is compared itself, since a peer may have another in a new version. Of the others
/// the ratio to a peer of the same run is compared, and what is certain shows beside every peer: one alone may have had a lucky
/// run. What fails now and did not is worse.
pub fn worse(before: &[Chapter], now: &[Chapter]) -> Vec<Worse> {
    let mut all = Vec::new();
    each_row(before, now, |chapter, earlier, (table, row)| {
        let arms = 0..table.arms.len();
        let mut told: Vec<_> = arms
            .filter_map(|at| Some((at, on_its_own(earlier, (table, row, at))?)))
            .collect();
        if is_of_a_peer(row.unit) {
            told.extend(slower(&table.arms, &changes(earlier, (table, row))));
        }
        for (at, (kind, how)) in told {
            let (suite, table, what, arm) =
                (&chapter.suite, &table.name, &row.what, &table.arms[at]);
            all.push(kind(format!("{suite}, {table}, {what}, {arm}: {how}")));
        }
    });
    all
}

/// Calls `look` with each row of the tables that are in both reports, and with the earlier table.
fn each_row<'a>(
    before: &'a [Chapter],
    now: &'a [Chapter],
    mut look: impl FnMut(&'a Chapter, &'a Table, (&'a Table, &'a Row)),
) {
    for chapter in now {
        let Some(earlier) = before.iter().find(|one| one.suite == chapter.suite) else {
            continue;
        };
        for table in &chapter.tables {
            let Some(earlier) = earlier.tables.iter().find(|one| one.name == table.name) else {
                continue;
            };
            for row in &table.rows {
                look(chapter, earlier, (table, row));
            }
        }
    }
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

/// Tells of a figure of ours that there is no more, or that is worse whatever the peers have.
fn on_its_own(earlier: &Table, now: Place) -> Option<(Kind, String)> {
    let (table, row, at) = now;
    if !table.has_ours_at(at) {
        return None;
    }
    let was = value(place_of(earlier, row, &table.arms[at])?)?;
    match row.cells.get(at)? {
        // It fails, or is refused.
        Cell::Words(words) => Some((Worse::Certainly, gone(words, was))),
        // What counts it may be missing.
        Cell::Nothing => Some((Worse::Gone, gone("nothing", was))),
        Cell::Measured { .. } if is_of_a_peer(row.unit) => None,
        Cell::Measured { value, .. } => more(row.unit, was, *value),
    }
}

fn gone(now: &str, was: Figure) -> String {
    format!("{now}, was {}", shown(was.median))
}

fn value((_, row, at): Place) -> Option<Figure> {
    match row.cells.get(at)? {
        Cell::Measured { value, .. } => Some(*value),
        _ => None,
    }
}

fn ratio((_, row, at): Place) -> Option<Figure> {
    match row.cells.get(at)? {
        Cell::Measured { ratio, .. } => *ratio,
        _ => None,
    }
}

/// Returns whether figures depend on how fast the machine is, so that ratios to a peer's are compared.
fn is_of_a_peer(unit: Unit) -> bool {
    match unit {
        Unit::Seconds | Unit::PerSecond | Unit::Times | Unit::None => true,
        Unit::Count
        | Unit::Failures
        | Unit::Instructions
        | Unit::Bytes
        | Unit::Share
        | Unit::ShareAsleep => false,
    }
}

/// How a ratio differs between two runs.
struct Change {
    /// The place of the peer.
    at: usize,
    before: Figure,
    now: Figure,
    /// How many times as slow as before we are beside this peer.
    slower: f64,
    /// How many times both spreads lie between the two; none of too few rounds.
    spreads: Option<f64>,
}

impl Change {
    fn new(at: usize, unit: Unit, before: Figure, now: Figure) -> Self {
        let (slower, by) = match unit.less_is_better() {
            true => (now.median / before.median, now.median - before.median),
            false => (before.median / now.median, before.median - now.median),
        };
        let spreads = before.spread.zip(now.spread);
        Self {
            at,
            before,
            now,
            slower,
            spreads: spreads.map(|(before, now)| by / (before + now)),
        }
    }

    /// Returns whether it is more than chance, if every other peer says so too.
    fn is_clear(&self) -> bool {
        self.slower > TWICE || (self.slower > 1.0 + AT_LEAST && self.spreads > Some(SPREADS))
    }
}

/// Returns what there is of a row's ratios in both runs: to peers, or to another arm of ours where no peer has one.
fn changes(earlier: &Table, (table, row): (&Table, &Row)) -> Vec<Change> {
    let of = |is_ours: bool| {
        let arms = table.arms.iter().enumerate();
        let arms = arms.filter(|(at, _)| table.has_ours_at(*at) == is_ours);
        let change = |(at, arm): (usize, &String)| {
            let before = ratio(place_of(earlier, row, arm)?)?;
            let now = ratio((table, row, at))?;
            Some(Change::new(at, row.unit, before, now))
        };
        arms.filter_map(change).collect::<Vec<_>>()
    };
    let beside_peers = of(false);
    match beside_peers.is_empty() {
        true => of(true),
        false => beside_peers,
    }
}

/// Tells of those of a row's ratios that are worse.
fn slower(arms: &[String], all: &[Change]) -> impl Iterator<Item = (usize, (Kind, String))> {
    // Arms of one client are lucky together: "sqlx" and "sqlx without its cache".
    let client = |change: &Change| arms[change.at].split([' ', ',']).next();
    let is_one = all.windows(2).all(|two| client(&two[0]) == client(&two[1]));
    let is_certain = match is_one {
        true => all.iter().all(|change| change.slower > THRICE),
        false => all.iter().all(Change::is_clear),
    };
    all.iter().filter_map(move |change| {
        let is_told = change.slower > 1.0 + ROUNDED && change.spreads > Some(1.0);
        let kind: Kind = match is_certain {
            true => Worse::Certainly,
            false if is_told => Worse::Perhaps,
            false => return None,
        };
        Some((change.at, (kind, differs(change.before, change.now))))
    })
}

/// Tells of a figure of ours that is worse by itself.
fn more(unit: Unit, before: Figure, now: Figure) -> Option<(Kind, String)> {
    let by = match unit.less_is_better() {
        true => now.median - before.median,
        false => before.median - now.median,
    };
    // What repeats to the last digit may be rounded.
    let rounding = before.median.abs() * ROUNDED;
    let kind: Kind = match by > margin(unit, before, now) {
        true => Worse::Certainly,
        false if by > (before.spread? + now.spread?).max(rounding) => Worse::Perhaps,
        false => return None,
    };
    Some((kind, differs(before, now)))
}

fn differs(before: Figure, now: Figure) -> String {
    let [now, before] = [now, before].map(|figure| shown(figure.median));
    format!("{now}, was {before}")
}

/// Returns a number with three digits that say something.
fn shown(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 || v == 0.0 => format!("{value:.0}"),
        v if v >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.2e}"),
    }
}

/// Returns by how much a figure that no machine makes faster differs between two runs of the same code.
fn margin(unit: Unit, before: Figure, now: Figure) -> f64 {
    let size = before.median.abs();
    let by_rounds = match (before.spread, now.spread) {
        (Some(earlier), Some(later)) => SPREADS_OF_COUNTS * (earlier + later),
        _ => (TWICE - 1.0) * size,
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

/// A spread has half of a run's rounds in it, and is small by chance in some rows: beside one peer, runs of the same code lay up to 13
/// times both spreads apart. Beside every peer of a row they lay up to 1.5 times.
const SPREADS: f64 = 2.0;
const SPREADS_OF_COUNTS: f64 = 3.0;
/// However widely it spreads. Beside every peer of a row, one run of the same code was up to 1.8 times as slow as another.
const TWICE: f64 = 2.0;
/// Beside the only peer of a row, it was up to 2.6 times as slow.
const THRICE: f64 = 3.0;
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
    use std::iter;

    use super::*;

    /// Returns what is certain, beside the first peer.
    fn worse(before: &[Chapter], now: &[Chapter]) -> Vec<String> {
        let certain = super::worse(before, now).into_iter();
        let certain = certain.filter_map(|worse| match worse {
            Worse::Certainly(line) => Some(line),
            Worse::Perhaps(_) | Worse::Gone(_) => None,
        });
        let certain = certain.filter(|line| !line.contains(", others: "));
        certain.collect()
    }

    /// Five rounds of each, and of two peers that are alike.
    fn measured(ours: f64, theirs: f64, unit: Unit) -> Vec<Chapter> {
        measured_beside(ours, [theirs, theirs], unit)
    }

    fn measured_beside<const N: usize>(ours: f64, peers: [f64; N], unit: Unit) -> Vec<Chapter> {
        let ours = [0.98, 0.99, 1.0, 1.01, 1.02].map(|by| by * ours);
        let peers = peers.iter().map(|peer| vec![*peer; 5]);
        let all: Vec<_> = iter::once(ours.to_vec()).chain(peers).collect();
        rows(all.len(), |table| table.measured("row", unit, &all))
    }

    fn counted(ours: f64, theirs: f64, unit: Unit) -> Vec<Chapter> {
        rows(2, |table| {
            table.counted("row", unit, &[ours, theirs].map(Some))
        })
    }

    fn once(ours: f64, theirs: f64, unit: Unit) -> Vec<Chapter> {
        rows(2, |table| {
            table.measured_once("row", unit, &[ours, theirs].map(Some))
        })
    }

    fn rows(arms: usize, add: impl FnOnce(&mut Table)) -> Vec<Chapter> {
        let mut table = Table::new("table", "", &["ours", "theirs", "others"][..arms]);
        add(&mut table);
        let (suite, title, text) = ("suite".into(), String::new(), String::new());
        vec![Chapter {
            suite,
            title,
            text,
            tables: vec![table],
            plots: Vec::new(),
        }]
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
    fn what_spreads_is_not_certain_within_twice_both_spreads() {
        // Its quartiles are 1 % away, in both runs.
        let before = measured(1.0, 1.0, Unit::Seconds);
        let told = |now| super::worse(&before, &measured(now, 1.0, Unit::Seconds));
        let line = |now, peer| format!("suite, table, row, {peer}: {now}, was 1.00");
        let both = |kind: Kind, now| ["theirs", "others"].map(|peer| kind(line(now, peer)));
        assert_eq!(told(1.019), []);
        assert_eq!(told(1.04), both(Worse::Perhaps, "1.04"));
        assert_eq!(told(1.07), both(Worse::Certainly, "1.07"));
    }

    #[test]
    fn a_peer_that_got_faster_alone_is_told_as_chance() {
        let beside = |peers| measured_beside(1.0, peers, Unit::PerSecond);
        let told = super::worse(&beside([1.0, 1.0]), &beside([2.0, 1.0]));
        let line = "suite, table, row, theirs: 0.50, was 1.00".to_owned();
        assert_eq!(told, [Worse::Perhaps(line)]);
        assert_eq!(worse(&beside([1.0, 1.0]), &beside([2.0, 1.02])), NOTHING);
        assert_eq!(worse(&beside([1.0, 1.0]), &beside([2.0, 1.1])).len(), 1);
    }

    #[test]
    fn a_peer_that_spreads_widely_does_not_hide_what_has_doubled() {
        for (unit, slower) in [(Unit::PerSecond, 0.45), (Unit::Seconds, 2.2)] {
            let run = |ours: f64| {
                let others = [0.3, 0.4, 1.0, 2.5, 3.0];
                let all = [[ours; 5], [1.0; 5], others].map(Vec::from);
                rows(3, |table| table.measured("row", unit, &all))
            };
            assert_eq!(worse(&run(1.0), &run(slower)).len(), 1, "{unit:?}");
            assert_eq!(worse(&run(slower), &run(1.0)), NOTHING);
        }
    }

    #[test]
    fn what_is_worse_beside_the_only_peer_is_certain_at_thrice() {
        let rate = |peer| measured_beside(1.0, [peer], Unit::PerSecond);
        assert_eq!(worse(&rate(1.0), &rate(2.9)), NOTHING);
        assert_eq!(worse(&rate(1.0), &rate(3.1)).len(), 1);
        let time = |ours| measured_beside(ours, [1.0], Unit::Seconds);
        assert_eq!(worse(&time(1.0), &time(2.9)), NOTHING);
        assert_eq!(worse(&time(1.0), &time(3.1)).len(), 1);
    }

    #[test]
    fn two_arms_of_one_client_are_one_peer() {
        let beside = |peer| {
            let mut chapters = measured_beside(1.0, [peer, peer], Unit::PerSecond);
            chapters[0].tables[0].arms[2] = "theirs without their cache".into();
            chapters
        };
        assert_eq!(worse(&beside(1.0), &beside(2.2)), NOTHING);
        assert_eq!(worse(&beside(1.0), &beside(3.1)).len(), 2);
    }

    #[test]
    fn what_has_no_spread_is_worse_if_it_has_doubled_beside_all() {
        let once = |ours: f64, unit| {
            let all = [ours, 1.0, 1.0].map(Some);
            rows(3, |table| table.measured_once("row", unit, &all))
        };
        for (unit, within, beyond, told) in [
            (Unit::Seconds, 1.9, 2.1, "2.10"),
            (Unit::PerSecond, 0.6, 0.4, "0.40"),
        ] {
            let before = once(1.0, unit);
            assert_eq!(worse(&before, &once(within, unit)), NOTHING);
            let told = format!("suite, table, row, theirs: {told}, was 1.00");
            assert_eq!(worse(&before, &once(beyond, unit)), [told]);
        }
    }

    #[test]
    fn what_no_peer_has_is_named_and_not_compared() {
        let alone = |ours| measured_beside(ours, [], Unit::Seconds);
        let (before, now) = (alone(1.0), alone(5.0));
        assert_eq!(super::worse(&before, &now), []);
        assert_eq!(without_peers(&before, &now), ["suite, table, row"]);
        let with = measured(1.0, 1.0, Unit::Seconds);
        assert_eq!(without_peers(&with, &with), NOTHING);
        assert_eq!(
            without_peers(
                &counted(1.0, 0.0, Unit::Count),
                &counted(1.0, 0.0, Unit::Count)
            ),
            NOTHING
        );
    }

    #[test]
    fn beside_peers_another_arm_of_ours_says_nothing_of_a_ratio() {
        let run = |ours: f64| {
            let mut chapters = measured_beside(ours, [1.0, ours], Unit::Seconds);
            chapters[0].tables[0].arms[2] = "diesel-neon, set up".into();
            chapters
        };
        let told = ["suite, table, row, theirs: 3.10, was 1.00"];
        assert_eq!(worse(&run(1.0), &run(3.1)), told);
        assert_eq!(worse(&run(1.0), &run(2.9)), NOTHING);
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
            rows(2, |table| {
                table.measured("row", Unit::PerSecond, &[rounds.into(), vec![1.0; 5]])
            })
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
        let now = rows(2, |table| {
            table.counted("row", Unit::Instructions, &[None, None])
        });
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
