//! SQL that may begin a transaction, end one, or change the schema.

use super::comment;

/// Returns whether `sql` may end the transaction that it runs in; if in doubt, `true`. With `several`, the text may be
/// more than one statement, so that each of its words may begin one.
pub(crate) fn may_end_transaction(sql: &str, several: bool) -> bool {
    may(sql, several, b"ceapr", is_end)
}

/// As [`may_end_transaction`], of one that it may begin.
pub(crate) fn may_begin_transaction(sql: &str, several: bool) -> bool {
    may(sql, several, b"bs", |sql| {
        starts_with_one(sql, &["begin", "start"])
    })
}

/// As [`may_end_transaction`], of a table, a view or a type that it may change, or of a prepared statement that it may drop.
pub(crate) fn may_change_schema(sql: &str, several: bool) -> bool {
    const COMMANDS: [&str; 5] = ["alter", "create", "drop", "discard", "deallocate"];
    may(sql, several, b"acd", |sql| starts_with_one(sql, &COMMANDS))
}

/// Returns whether a command that `is_it` may begin in `sql`. The `letters` that it may begin with rule out nearly every
/// statement, and nearly every word.
fn may(sql: &str, several: bool, letters: &[u8], is_it: impl Fn(&str) -> bool) -> bool {
    let sql = without_blanks(sql);
    let bytes = sql.as_bytes();
    let is_letter = |at: usize| letters.contains(&bytes[at].to_ascii_lowercase());
    match several && is_several(sql) {
        true => {
            let mut starts =
                (0..bytes.len()).filter(|at| is_letter(*at) && !sql[..*at].ends_with(is_word));
            starts.any(|at| is_it(&sql[at..]))
        }
        false => !sql.is_empty() && is_letter(0) && is_it(sql),
    }
}

/// Returns whether `sql` starts with one of these words.
fn starts_with_one(sql: &str, words: &[&str]) -> bool {
    let starts_with = |word: &str| {
        let (start, behind) = sql.as_bytes().split_at_checked(word.len())?;
        let ends = behind.first().is_none_or(|byte| !is_word_byte(*byte));
        Some(ends && start.eq_ignore_ascii_case(word.as_bytes()))
    };
    words
        .iter()
        .any(|word| starts_with(word).unwrap_or_default())
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn is_several(sql: &str) -> bool {
    let end = sql.trim_end_matches(|c| c == ';' || SPACE.contains(&c));
    end.contains(';')
}

/// Returns `sql` without the space, semicolons and comments in front of its first command.
pub(crate) fn without_blanks(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c| c == ';' || SPACE.contains(&c));
        if let Some(line) = rest.strip_prefix("--") {
            rest = line.split_once(['\n', '\r']).map_or("", |(_, rest)| rest);
        } else if rest.starts_with("/*") {
            match comment::end(rest) {
                Some(end) => rest = &rest[end..],
                None => return rest,
            }
        } else {
            return rest;
        }
    }
}

/// Returns whether the command that `sql` begins with ends a transaction; ROLLBACK TO a savepoint does not, if no comment
/// stands in between: to look behind the comments of each word would take too long.
fn is_end(sql: &str) -> bool {
    if !starts_with_one(sql, &["rollback"]) {
        return starts_with_one(sql, &["commit", "end", "abort", "prepare"]);
    }
    let mut rest = sql["rollback".len()..].trim_start_matches(SPACE);
    for noise in ["work", "transaction"] {
        if starts_with_one(rest, &[noise]) {
            rest = rest[noise.len()..].trim_start_matches(SPACE);
        }
    }
    !starts_with_one(rest, &["to"])
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || !c.is_ascii()
}

/// What Postgres takes for space.
const SPACE: &[char] = &[' ', '\t', '\n', '\r', '\x0b', '\x0c'];

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::{may_begin_transaction, may_change_schema, may_end_transaction, without_blanks};

    #[test]
    fn only_space_and_comments_are_nothing_to_run() {
        for sql in [
            "",
            " ;\n; ",
            "-- é",
            "-- a\n;-- b",
            "/* a */ ;",
            "/* /* é */ */-- b\n",
            "/**/",
            "/*/*/ a */ b */",
        ] {
            assert_eq!(without_blanks(sql), "", "{sql:?}");
        }
        for sql in [
            "SELECT",
            "-- a\nSELECT",
            "/* a */ SELECT",
            "/* /* */",
            "/*/",
            "-",
            "\0",
        ] {
            assert_ne!(without_blanks(sql), "", "{sql:?}");
        }
    }

    #[test]
    fn whatever_may_end_a_transaction_is_told() {
        for sql in [
            "COMMIT",
            "commit and chain",
            " ;; -- done\n/* and */ end;",
            "Abort",
            "ROLLBACK",
            "rollback work",
            "rollback transaction and chain;",
            "ROLLBACK /* to the start */",
            "ROLLBACK -- to\n WORK; SELECT 1",
            // It does not, but a comment is not worth a look behind it.
            "rollback/**/to a",
            "PREPARE TRANSACTION 'a'",
        ] {
            for several in [false, true] {
                assert!(may_end_transaction(sql, several), "{sql}");
            }
            let one_of_several = format!("SELECT 'é;' /* ; */; {sql}; SELECT 1");
            assert!(may_end_transaction(&one_of_several, true), "{sql}");
        }
        for sql in [
            "",
            "SELECT CASE WHEN true THEN 1 END",
            "INSERT INTO commits VALUES (1)",
            "ROLLBACK TO a",
            "ROLLBACK\n\tTO -- b\n a",
            "rollback work to savepoint a; release a;",
            "RELEASE a",
            "CREATE TABLE ends (id INTEGER); SAVEPOINT a",
            "DO $$ BEGIN PERFORM 1",
        ] {
            assert!(!may_end_transaction(sql, true), "{sql}");
        }
    }

    #[test]
    fn a_large_text_is_looked_through_once() {
        for (word, end) in [("rollback -- ", "\nto a"), ("rollback /* to ", "")] {
            let sql = format!("SELECT 1; {}{end}", word.repeat(300_000));
            let (send, receive) = mpsc::channel();
            thread::spawn(move || send.send(may_end_transaction(&sql, true)));
            // A bound between linear time, which is milliseconds, and quadratic time, which is hours.
            let may = receive.recv_timeout(Duration::from_secs(60));
            assert_eq!(may, Ok(true), "{word}");
        }
    }

    #[test]
    fn whatever_may_begin_a_transaction_is_told() {
        for sql in [
            "BEGIN",
            "begin isolation level serializable",
            " ;; -- now\n/* and */ Begin;",
            "START TRANSACTION READ ONLY",
            "BEGIN/* a */WORK",
        ] {
            for several in [false, true] {
                assert!(may_begin_transaction(sql, several), "{sql}");
            }
            let one_of_several = format!("SELECT 'é'; {sql}; SELECT 1");
            assert!(may_begin_transaction(&one_of_several, true), "{sql}");
        }
        for sql in [
            "",
            "SELECT 1",
            "beginning",
            "START_",
            "begé",
            "COMMIT",
            "SAVEPOINT begin",
        ] {
            assert!(!may_begin_transaction(sql, true), "{sql}");
        }
    }

    #[test]
    fn whatever_may_change_the_schema_is_told() {
        for sql in [
            "ALTER TABLE a ADD b INTEGER",
            " ;; -- now\n/* and */ create type a AS ENUM ()",
            "Drop/* it */TABLE a",
            "DISCARD ALL",
            "deallocate all;",
        ] {
            for several in [false, true] {
                assert!(may_change_schema(sql, several), "{sql}");
            }
            let one_of_several = format!("SELECT 'é'; {sql}; SELECT 1");
            assert!(may_change_schema(&one_of_several, true), "{sql}");
        }
        for sql in [
            "",
            "DELETE FROM a",
            "COPY a FROM STDIN",
            "created",
            "SELECT a AS drop",
            "SELECT 1; ANALYZE; CALL a()",
        ] {
            assert!(!may_change_schema(sql, true), "{sql}");
        }
    }
}
