//! [`Effects`]: whether a text may begin a transaction, end one, or change the schema.

use super::comment;

/// What a text may do to its session; if in doubt, it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    pub(crate) begins_transaction: bool,
    pub(crate) ends_transaction: bool,
    /// Whether it changes a table, a view or a type, or drops a prepared statement.
    pub(crate) changes_schema: bool,
}

impl Effects {
    /// Returns those of one statement.
    pub(crate) fn of_one(sql: &str) -> Self {
        let mut effects = Self::default();
        effects.add(without_blanks(sql));
        effects
    }

    /// Returns those of what may be several statements, so that each word may begin one.
    pub(crate) fn of_several(sql: &str) -> Self {
        let sql = without_blanks(sql);
        let mut effects = Self::default();
        if !is_several(sql) {
            effects.add(sql);
            return effects;
        }
        let starts = (0..sql.len()).filter(|at| sql.as_bytes()[*at].is_ascii_alphabetic());
        for at in starts.filter(|at| !sql[..*at].ends_with(is_word)) {
            effects.add(&sql[at..]);
        }
        effects
    }

    /// Adds those of the command that may begin here.
    fn add(&mut self, sql: &str) {
        let starts_with = |words: &[&str]| starts_with_one(sql, words);
        // The first letter rules out nearly every statement, and nearly every word.
        match sql.as_bytes().first().map(u8::to_ascii_lowercase) {
            Some(b'b') => self.begins_transaction |= starts_with(&["begin"]),
            Some(b's') => self.begins_transaction |= starts_with(&["start"]),
            Some(b'e') => self.ends_transaction |= starts_with(&["end"]),
            Some(b'p') => self.ends_transaction |= starts_with(&["prepare"]),
            Some(b'r') => self.ends_transaction |= is_end_by_rollback(sql),
            Some(b'd') => self.changes_schema |= starts_with(&["drop", "discard", "deallocate"]),
            Some(b'a') => {
                self.ends_transaction |= starts_with(&["abort"]);
                self.changes_schema |= starts_with(&["alter"]);
            }
            Some(b'c') => {
                self.ends_transaction |= starts_with(&["commit"]);
                self.changes_schema |= starts_with(&["create"]);
            }
            _ => {}
        }
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

/// Returns whether `sql` begins with a ROLLBACK that ends a transaction. ROLLBACK TO a savepoint does not, if no comment
/// stands in between: to look behind the comments of each word would take too long.
fn is_end_by_rollback(sql: &str) -> bool {
    if !starts_with_one(sql, &["rollback"]) {
        return false;
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

    use super::{Effects, without_blanks};

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

    fn assert_told(sql: &str, is_told: fn(Effects) -> bool) {
        assert!(is_told(Effects::of_one(sql)), "{sql}");
        for text in [sql, &format!("SELECT 'é;' /* ; */; {sql}; SELECT 1")] {
            assert!(is_told(Effects::of_several(text)), "{text}");
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
            assert_told(sql, |effects| effects.ends_transaction);
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
            assert!(!Effects::of_several(sql).ends_transaction, "{sql}");
        }
    }

    #[test]
    fn a_large_text_is_looked_through_once() {
        for (word, end) in [("rollback -- ", "\nto a"), ("rollback /* to ", "")] {
            let sql = format!("SELECT 1; {}{end}", word.repeat(300_000));
            let (send, receive) = mpsc::channel();
            thread::spawn(move || send.send(Effects::of_several(&sql).ends_transaction));
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
            assert_told(sql, |effects| effects.begins_transaction);
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
            assert!(!Effects::of_several(sql).begins_transaction, "{sql}");
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
            assert_told(sql, |effects| effects.changes_schema);
        }
        for sql in [
            "",
            "DELETE FROM a",
            "COPY a FROM STDIN",
            "created",
            "SELECT a AS drop",
            "SELECT 1; ANALYZE; CALL a()",
        ] {
            assert!(!Effects::of_several(sql).changes_schema, "{sql}");
        }
    }
}
