//! [`Parts`]: what a statement consists of, as far as it matters for its rows.

use std::ops::Range;

use crate::util::statements::{Token, statements, tokens};

/// The parts of one statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// The end of `WITH` or `WITH RECURSIVE`, if the statement begins with it.
    pub(super) with: Option<usize>,
    /// The start of what comes behind the common table expressions.
    pub(super) main: usize,
    pub(super) kind: Kind,
}

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It returns rows: SELECT, VALUES, TABLE, or DML with RETURNING.
    Rows,
    /// It is DML without rows. With a WITH in front it would fail on tables whose rules make several statements of it.
    NoRows,
    /// It is SELECT INTO.
    Into,
    /// Neither is known: DDL, EXPLAIN, SHOW and the like, and what may end where it should not.
    Other,
}

/// Returns the place of the one statement in `sql`, without the comments around it; `None` if there are several or none.
pub(super) fn only_statement(sql: &str) -> Option<Range<usize>> {
    let mut found = statements(sql).into_iter();
    let only = found.next()?;
    found.next().is_none().then_some(only)
}

/// Returns whether a statement begins, ends or prepares a transaction, which has no effect on the next request.
pub(super) fn is_transaction_control(sql: &str) -> bool {
    // Semicolons alone mean nothing.
    let first = statements(sql).into_iter().next().unwrap_or(0..0);
    let sql = &sql[first];
    let mut words = tokens(sql)
        .take_while(|(token, _)| *token == Token::Word)
        .map(|(_, range)| &sql[range]);
    let is = |word: Option<&str>, known: &[&str]| {
        word.is_some_and(|word| known.iter().any(|known| word.eq_ignore_ascii_case(known)))
    };
    let first = words.next();
    if is(first, &["prepare"]) {
        return is(words.next(), &["transaction"]);
    }
    if is(first, &["rollback", "commit"]) {
        let second = match words.next() {
            noise if is(noise, &["work", "transaction"]) => words.next(),
            second => second,
        };
        // A savepoint is one of a batch, and what was prepared is another session's.
        return !is(second, &["to", "prepared"]);
    }
    is(first, &["begin", "start", "end", "abort"])
}

impl Parts {
    /// Takes a statement apart.
    pub(super) fn of(sql: &str) -> Self {
        let mut scanner = Scanner {
            sql,
            tokens: tokens(sql).collect(),
            at: 0,
        };
        if !scanner.is_closed() {
            return Self::other();
        }
        let (with, main) = match scanner.skip_word(&["with"]) {
            false => (None, 0),
            true => {
                scanner.skip_word(&["recursive"]);
                let with = scanner.end_of_last();
                match scanner.skip_list() {
                    Some(main) => (Some(with), main),
                    None => return Self::other(),
                }
            }
        };
        let outermost = scanner.outermost();
        let has = |word: &str| {
            let mut words = outermost.iter();
            words.any(|found| found.eq_ignore_ascii_case(word))
        };
        let first = scanner.peek().map(|(token, range)| (token, &sql[range]));
        let kind = match first {
            Some((Token::Open, _)) => Kind::Rows,
            Some((Token::Word, word)) => match word.to_ascii_lowercase().as_str() {
                "select" if has("into") => Kind::Into,
                "select" | "values" | "table" => Kind::Rows,
                "insert" | "update" | "delete" | "merge" if has("returning") => Kind::Rows,
                "insert" | "update" | "delete" | "merge" => Kind::NoRows,
                _ => Kind::Other,
            },
            _ => Kind::Other,
        };
        match kind {
            Kind::Other => Self::other(),
            kind => Self { with, main, kind },
        }
    }

    fn other() -> Self {
        Self {
            with: None,
            main: 0,
            kind: Kind::Other,
        }
    }
}

/// The tokens of a statement, from left to right.
struct Scanner<'a> {
    sql: &'a str,
    tokens: Vec<(Token, Range<usize>)>,
    at: usize,
}

impl Scanner<'_> {
    /// Returns whether all that is opened is closed: what is put around the statement stays outside of it.
    fn is_closed(&self) -> bool {
        let depth = self
            .tokens
            .iter()
            .try_fold(0_usize, |depth, (token, _)| match token {
                Token::Open => depth.checked_add(1),
                Token::Close => depth.checked_sub(1),
                Token::Unclosed => None,
                _ => Some(depth),
            });
        depth == Some(0)
    }

    fn peek(&self) -> Option<(Token, Range<usize>)> {
        self.tokens.get(self.at).cloned()
    }

    fn is_word(&self, known: &[&str]) -> bool {
        self.peek().is_some_and(|(token, range)| {
            let text = &self.sql[range];
            token == Token::Word && known.iter().any(|known| text.eq_ignore_ascii_case(known))
        })
    }

    /// Skips one of these words, if it comes next.
    fn skip_word(&mut self, known: &[&str]) -> bool {
        let is_next = self.is_word(known);
        self.at += usize::from(is_next);
        is_next
    }

    fn end_of_last(&self) -> usize {
        let last = self.at.checked_sub(1).and_then(|at| self.tokens.get(at));
        last.map_or(0, |(_, range)| range.end)
    }

    /// Skips what is in parentheses, if that comes next.
    fn skip_parentheses(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()?.0 {
                Token::Open => depth += 1,
                Token::Close => depth = depth.checked_sub(1)?,
                _ if depth == 0 => return None,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// Skips everything up to this word, and the name behind it.
    fn skip_past(&mut self, word: &str) -> Option<()> {
        while !self.skip_word(&[word]) {
            self.peek()?;
            self.at += 1;
        }
        self.at += 1;
        Some(())
    }

    /// Skips a list of common table expressions; returns where the statement behind it begins.
    fn skip_list(&mut self) -> Option<usize> {
        loop {
            // The name.
            self.peek()?;
            self.at += 1;
            if self.peek()?.0 == Token::Open {
                self.skip_parentheses()?;
            }
            if !self.skip_word(&["as"]) {
                return None;
            }
            self.skip_word(&["not"]);
            self.skip_word(&["materialized"]);
            self.skip_parentheses()?;
            if self.skip_word(&["search"]) {
                self.skip_past("set")?;
            }
            if self.skip_word(&["cycle"]) {
                self.skip_past("using")?;
            }
            let (_, next) = self.peek()?;
            if &self.sql[next.clone()] != "," {
                return Some(next.start);
            }
            self.at += 1;
        }
    }

    /// Returns the words that are left outside of parentheses, but for names that may be any word.
    fn outermost(&self) -> Vec<&str> {
        let (mut depth, mut before) = (0_usize, "");
        let mut words = Vec::new();
        for (token, range) in &self.tokens[self.at..] {
            let text = &self.sql[range.clone()];
            let is_name = before == "." || before.eq_ignore_ascii_case("as");
            match token {
                Token::Open => depth += 1,
                Token::Close => depth = depth.saturating_sub(1),
                Token::Word if depth == 0 && !is_name => words.push(text),
                _ => {}
            }
            before = text;
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_told_apart_by_what_they_return() {
        for (sql, kind) in [
            ("SELECT 1", Kind::Rows),
            ("/* a */ select 'into'", Kind::Rows),
            ("(SELECT 1) UNION (SELECT 2)", Kind::Rows),
            ("VALUES (1)", Kind::Rows),
            ("TABLE t", Kind::Rows),
            ("SELECT (SELECT 1) INTO t", Kind::Into),
            ("SELECT a AS b INTO t", Kind::Into),
            ("SELECT now() AS into, t.into FROM t", Kind::Rows),
            ("INSERT INTO t SELECT a AS returning FROM u", Kind::NoRows),
            ("INSERT INTO t VALUES ('returning')", Kind::NoRows),
            (
                "INSERT INTO t (\"returning\") VALUES (1) -- RETURNING",
                Kind::NoRows,
            ),
            ("insert into t values (1) returning id", Kind::Rows),
            ("UPDATE t SET a = (1) RETURNING *", Kind::Rows),
            (
                "DELETE FROM t WHERE a IN (SELECT returning FROM u)",
                Kind::NoRows,
            ),
            ("EXPLAIN SELECT 1", Kind::Other),
            ("CREATE TABLE t AS SELECT 1", Kind::Other),
            ("SHOW work_mem", Kind::Other),
            ("SELECT 1) , z AS (DELETE FROM t RETURNING 1", Kind::Other),
            ("SELECT (1", Kind::Other),
            ("SELECT 1 /* /* */", Kind::Other),
            ("SELECT 'a", Kind::Other),
            ("SELECT E'a\\'", Kind::Other),
            ("SELECT 1E'\\' ' ) '", Kind::Other),
            ("SELECT \"a", Kind::Other),
            ("SELECT $a$ $$", Kind::Other),
            ("", Kind::Other),
        ] {
            let parts = Parts::of(sql);
            assert_eq!((parts.kind, parts.with), (kind, None), "{sql}");
        }
    }

    #[test]
    fn the_statement_behind_a_with_is_found() {
        for (list, main, kind) in [
            ("WITH|a AS (SELECT 1) ", "SELECT * FROM a", Kind::Rows),
            (
                "WITH RECURSIVE|a (b, c) AS NOT MATERIALIZED (SELECT ')'), select AS (SELECT 2) ",
                "TABLE a",
                Kind::Rows,
            ),
            (
                "with|\"a(\" as materialized (select 1)/* select */",
                "insert into t select 1",
                Kind::NoRows,
            ),
            (
                "WITH|a AS (DELETE FROM t RETURNING *) ",
                "UPDATE t SET b = 1 RETURNING b",
                Kind::Rows,
            ),
            (
                "WITH RECURSIVE|a AS (SELECT 1) SEARCH DEPTH FIRST BY b, c SET d CYCLE b, c SET e TO 1 DEFAULT 0 USING f ",
                "(SELECT 1)",
                Kind::Rows,
            ),
        ] {
            let with = list.find('|').unwrap();
            let sql = [&list.replace('|', " "), main].concat();
            let parts = Parts::of(&sql);
            assert_eq!(&sql[parts.main..], main);
            assert_eq!((parts.with, parts.kind), (Some(with), kind), "{sql}");
        }
        for broken in [
            "WITH",
            "WITH a",
            "WITH a AS",
            "WITH a AS (SELECT 1",
            "WITH a AS (SELECT 1)",
            "WITH a AS (SELECT 1) SEARCH x",
        ] {
            assert_eq!(Parts::of(broken), Parts::other(), "{broken}");
        }
    }

    #[test]
    fn transactions_are_told_from_savepoints() {
        for sql in [
            "BEGIN",
            "start transaction",
            "/**/ COMMIT",
            "End",
            "ROLLBACK WORK",
            "abort",
            "PREPARE TRANSACTION 'a'",
            "; /* ; */ ;COMMIT;",
        ] {
            assert!(is_transaction_control(sql), "{sql}");
        }
        for sql in [
            "SAVEPOINT a",
            "COMMIT PREPARED 'a'",
            "ROLLBACK PREPARED 'a'",
            "ROLLBACK TO a",
            "ROLLBACK TRANSACTION TO SAVEPOINT a",
            "RELEASE a",
            "PREPARE a AS SELECT 1",
            "SELECT 1",
            "",
        ] {
            assert!(!is_transaction_control(sql), "{sql}");
        }
    }
}
