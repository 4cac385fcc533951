//! [`Repeats`]: which statements come again.

use std::collections::VecDeque;

use crate::util::statements::words;

/// The statements that have lately run for the first time, by their hashes.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    seen: VecDeque<u64>,
}

impl Repeats {
    /// Records a statement; returns whether it has come before, and forgets it then.
    pub(super) fn record(&mut self, hash: u64) -> bool {
        if let Some(at) = self.seen.iter().position(|seen| *seen == hash) {
            self.seen.remove(at);
            return true;
        }
        if self.seen.len() == MAX_SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(hash);
        false
    }
}

/// Returns whether a statement that Diesel does not cache is worth a name: the server plans it, and it is not too long.
pub(super) fn may_have_name(sql: &str) -> bool {
    let first = words(sql).next();
    let is_planned = |word: &str| PLANNED.iter().any(|known| word.eq_ignore_ascii_case(known));
    sql.len() <= MAX_LEN && first.is_some_and(is_planned)
}

/// How the statements begin that the server plans.
const PLANNED: [&str; 8] = [
    "select", "insert", "update", "delete", "with", "merge", "values", "table",
];
/// How many statements are remembered.
const MAX_SEEN: usize = 256;
/// The longest SQL that is named though Diesel does not cache it: a batch of many rows is not worth the server's memory.
const MAX_LEN: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_came_long_ago_are_forgotten() {
        let mut repeats = Repeats::default();
        for hash in 0..=MAX_SEEN as u64 {
            assert!(!repeats.record(hash));
        }
        assert!(!repeats.record(0));
        assert!(repeats.record(MAX_SEEN as u64));
        assert!(!repeats.record(MAX_SEEN as u64));
        assert!(repeats.seen.len() <= MAX_SEEN);
    }

    #[test]
    fn statements_that_the_server_plans_are_worth_a_name() {
        for sql in [
            "SELECT 1",
            "\n-- a\n/* b */ select 1",
            "((SELECT 1) UNION SELECT 2)",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "MERGE INTO a USING b ON true WHEN MATCHED THEN DO NOTHING",
        ] {
            assert!(may_have_name(sql), "{sql}");
        }
        let long = format!("SELECT '{}'", "a".repeat(MAX_LEN));
        for sql in [
            "",
            "DEALLOCATE ALL",
            "COMMIT",
            "SET a = 1",
            "SELECTED",
            &long,
        ] {
            assert!(!may_have_name(sql), "{sql}");
        }
    }
}
