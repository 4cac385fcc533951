//! [`Fault`]: why a migration's SQL cannot be run.

use std::fmt;

use crate::migration::place::Place;
use crate::migration::script::Script;
use crate::util::statements::{statements, words};

/// The reason why a migration's SQL cannot be run as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The SQL has no statement, as the `diesel` CLI generates it.
    Empty,
    /// The SQL begins with a byte order mark.
    ByteOrderMark,
    /// The SQL is in another encoding than UTF-8.
    NotUtf8,
    /// The SQL has a zero byte, which Postgres takes in no text.
    #[non_exhaustive]
    ZeroByte {
        /// The line, counted from one.
        line: usize,
    },
    /// The migration runs in a transaction together with its entry in `__diesel_schema_migrations`, and has
    /// a statement that ends that transaction.
    #[non_exhaustive]
    EndsTransaction {
        /// The statement.
        statement: String,
        /// The line, counted from one.
        line: usize,
    },
    /// The migration runs outside of a transaction, and rolls back one of its own: it would be recorded as
    /// applied, and be undone.
    #[non_exhaustive]
    RollsBack {
        /// The statement.
        statement: String,
        /// The line, counted from one.
        line: usize,
    },
    /// The migration has ended the transaction that it was run in, by a statement that does not show it.
    EndedTransaction,
    /// The migration runs outside of a transaction, and begins one that it does not end.
    LeavesTransactionOpen,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str(
                "has no statement in it; write its SQL, or remove the migration if it is applied nowhere",
            ),
            Self::ByteOrderMark => f.write_str(
                "begins with a byte order mark, which Postgres takes for a part of the first word; save it \
                 as UTF-8 without the mark",
            ),
            Self::NotUtf8 => f.write_str("is not UTF-8; save it as UTF-8"),
            Self::ZeroByte { line } => write!(
                f,
                "has a zero byte in line {line}, which Postgres takes in no text; remove it"
            ),
            Self::EndsTransaction { statement, line } => write!(
                f,
                "ends the transaction that it runs in, with {statement} in line {line}; remove that, and the \
                 BEGIN before it, or put `run_in_transaction = false` into its metadata.toml"
            ),
            Self::RollsBack { statement, line } => write!(
                f,
                "undoes its own changes, with {statement} in line {line}; remove that"
            ),
            Self::EndedTransaction => f.write_str(
                "has ended the transaction that it was run in; its changes up to there may have stayed, and \
                 it is not recorded: undo them by hand, and remove the statement that ends the transaction",
            ),
            Self::LeavesTransactionOpen => f.write_str(
                "begins a transaction and does not end it, so that its changes were lost; end it with COMMIT",
            ),
        }
    }
}

impl Fault {
    /// Returns the first fault of a script that shows without running it.
    pub(in crate::migration) fn of(script: &Script) -> Option<Self> {
        let batches = &script.batches;
        // A migration that is written in Rust may have no SQL.
        if !batches.is_empty() && batches.iter().all(|sql| statements(sql).is_empty()) {
            return Some(Self::Empty);
        }
        batches.iter().find_map(|sql| {
            if sql.starts_with('\u{feff}') {
                return Some(Self::ByteOrderMark);
            }
            if let Some(at) = sql.find('\0') {
                let line = Place::of(sql, at).line;
                return Some(Self::ZeroByte { line });
            }
            statements(sql).into_iter().find_map(|range| {
                let statement = &sql[range.clone()];
                // Lines are counted for a fault alone: to count them for each statement of a large file takes hours.
                let line = || Place::of(sql, range.start).line;
                Self::ends_transaction(statement, line, script.in_transaction)
            })
        })
    }

    fn ends_transaction(
        statement: &str,
        line: impl Fn() -> usize,
        in_transaction: bool,
    ) -> Option<Self> {
        let first = words(statement).take(3).map(str::to_ascii_uppercase);
        let first: Vec<_> = first.collect();
        let first: Vec<_> = first.iter().map(String::as_str).collect();
        let rolls_back = match first.as_slice() {
            // These end a savepoint, or a prepared transaction, which has its own name.
            ["ROLLBACK", "TO" | "PREPARED", ..]
            | ["ROLLBACK", "WORK" | "TRANSACTION", "TO"]
            | ["COMMIT", "PREPARED", ..] => return None,
            ["ROLLBACK" | "ABORT", ..] => true,
            ["COMMIT" | "END", ..] | ["PREPARE", "TRANSACTION", ..] => false,
            _ => return None,
        };
        let statement = statement.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = line();
        match (in_transaction, rolls_back) {
            (true, _) => Some(Self::EndsTransaction { statement, line }),
            (false, true) => Some(Self::RollsBack { statement, line }),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::report::Direction;

    fn script(sql: &str, in_transaction: bool) -> Script {
        Script {
            name: "1_a".to_owned(),
            version: "1".to_owned(),
            direction: Direction::Up,
            in_transaction,
            batches: vec![sql.to_owned()],
        }
    }

    #[test]
    fn what_ends_a_transaction_is_found_and_nothing_else() {
        for statement in [
            "commit",
            "COMMIT WORK",
            "Commit And Chain",
            "end",
            "END TRANSACTION",
            "rollback",
            "ROLLBACK AND CHAIN",
            "abort",
            "PREPARE TRANSACTION 'x'",
            "rollback /* to */ work",
        ] {
            let sql = format!("select 1;\n-- then\n{statement}; select 2");
            let fault = Fault::of(&script(&sql, true));
            let line = 3;
            let statement = statement.to_owned();
            assert_eq!(fault, Some(Fault::EndsTransaction { statement, line }));
        }
        for sql in [
            "savepoint a; rollback to a",
            "savepoint a; rollback work to savepoint a; release a",
            "rollback /* not all */ to savepoint a",
            "commit prepared 'x'; rollback prepared 'x'",
            "prepare p as select 1",
            "create function f() returns int begin atomic select 1; end",
            "do $$ begin perform 1; end $$",
            "select 'x; commit; '",
            "-- commit;\nselect 1",
            "create table t (x int) on commit drop",
            "begin; select 1",
        ] {
            assert_eq!(Fault::of(&script(sql, true)), None, "{sql}");
        }
        let own = "begin; select 1; commit";
        assert_eq!(Fault::of(&script(own, false)), None);
        let undone = "begin;\nselect 1;\nrollback";
        assert_eq!(
            Fault::of(&script(undone, false)),
            Some(Fault::RollsBack {
                statement: "rollback".to_owned(),
                line: 3
            })
        );
    }

    #[test]
    fn a_large_file_is_looked_through_once() {
        let statements = 200_000;
        let sql = format!("{}commit", "insert into a values (1);\n".repeat(statements));
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || send.send(Fault::of(&script(&sql, true))));
        // A bound between linear time, which is seconds, and quadratic time, which is hours.
        let fault = receive.recv_timeout(std::time::Duration::from_secs(60));
        let statement = "commit".to_owned();
        let line = statements + 1;
        assert_eq!(fault, Ok(Some(Fault::EndsTransaction { statement, line })));
    }

    #[test]
    fn what_is_no_sql_is_found() {
        for empty in ["", " \n", "-- Your SQL goes here\n", "/* a /* b */ */;;"] {
            assert_eq!(Fault::of(&script(empty, true)), Some(Fault::Empty));
        }
        assert_eq!(
            Fault::of(&script("\u{feff}select 1", true)),
            Some(Fault::ByteOrderMark)
        );
        assert_eq!(
            Fault::of(&script("select 1;\nselect '\0'", true)),
            Some(Fault::ZeroByte { line: 2 })
        );
        let nothing = Script {
            batches: Vec::new(),
            ..script("", true)
        };
        assert_eq!(Fault::of(&nothing), None);
    }
}
