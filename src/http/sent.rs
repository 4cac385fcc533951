//! [`Sent`]: a statement as it is sent, and where it stands in the caller's SQL.
//!
//! Parameters have the types that Diesel gives them, as over TCP: the server takes the type of a parameter from where it first
//! meets it.
//!
//! - A statement with rows gets a common table expression in front that is never run, and names each parameter with its type. The
//!   statement itself becomes another if its rows are wanted, and each of its rows becomes one value in Postgres's binary form.
//! - In any other, each parameter is cast where it stands. There it cannot be the name of a column.

use std::ops::Range;

use super::parts::{Kind, Parts, only_statement};
use crate::util::statements::{is_word, tokens};

/// A statement as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) sql: String,
    pub(super) form: Form,
    pub(super) kind: Kind,
    /// The pieces of the caller's SQL: where they begin in what is sent, and in the caller's SQL.
    pieces: Vec<Piece>,
}

/// What a statement's rows look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Each row is one value, with the types of its columns.
    Binary,
    /// The same, and columns that are always NULL tell the names.
    BinaryWithNames,
    /// Each value is text.
    Text,
}

/// What the caller wants of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// How many rows it has changed.
    Count,
    /// Its rows, by the positions of their columns.
    Rows,
    /// Its rows, by the names of their columns.
    NamedRows,
}

/// Returns what is wanted of rows of an SQL type: those of `sql_query`, and of types that Diesel does not know, are read by the
/// names of their columns.
pub(super) fn wanted<SqlType>() -> Wanted {
    let name = std::any::type_name::<SqlType>();
    let known = ["(", "diesel::sql_types::", "diesel::pg::types::"];
    let is_known = known.iter().any(|start| name.starts_with(start));
    match is_known && name != std::any::type_name::<diesel::sql_types::Untyped>() {
        true => Wanted::Rows,
        false => Wanted::NamedRows,
    }
}

/// A piece of the caller's SQL, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    sent_at: usize,
    callers_at: usize,
    length: usize,
}

impl Sent {
    /// Composes a statement whose parameters have these `types`, each the name of a type in SQL or nothing.
    pub(super) fn new(sql: &str, types: &[Option<String>], wanted: Wanted) -> Self {
        let Some(only) = only_statement(sql) else {
            // The server knows better what is wrong with several, or with none.
            return Composer::new(sql, Kind::Other).finish(0..sql.len(), Form::Text);
        };
        let statement = &sql[only.clone()];
        let parts = Parts::of(statement);
        let typed = types.iter().any(Option::is_some);
        let form = match (wanted, parts.kind) {
            (Wanted::Rows, Kind::Rows) => Form::Binary,
            (Wanted::NamedRows, Kind::Rows) => Form::BinaryWithNames,
            _ => Form::Text,
        };
        let mut sent = Composer::new(sql, parts.kind);
        if !typed && form == Form::Text {
            return sent.finish(only, form);
        }
        if matches!(parts.kind, Kind::Other | Kind::NoRows) {
            let rest = sent.push_casts(only, types);
            return sent.finish(rest, form);
        }
        let start = only.start;
        let (list, main) = match parts.with {
            Some(with) => (
                start + with..start + parts.main,
                start + parts.main..only.end,
            ),
            None => (start..start, only.clone()),
        };
        // What the statement's own WITH begins with, RECURSIVE included.
        match parts.with {
            Some(with) => sent.push_callers(start..start + with),
            None => sent.push("WITH"),
        }
        let mut separator = " ";
        if typed {
            let name = unused_name("types_", sql);
            sent.push(&format!("{separator}{name} AS (SELECT {})", casts(types)));
            separator = ", ";
        }
        if !list.is_empty() {
            sent.push(separator);
            sent.push_callers(list);
            separator = ", ";
        }
        if form == Form::Text {
            sent.push(" ");
            return sent.finish(main, form);
        }
        let rows = unused_name("rows_", sql);
        sent.push(&format!("{separator}{rows} AS ("));
        sent.push_callers(main);
        // The newline ends a comment.
        sent.push(&format!(
            "\n) SELECT pg_catalog.encode(pg_catalog.record_send({rows}.*), 'base64')"
        ));
        sent.push(&match form {
            Form::BinaryWithNames => {
                format!(", names.* FROM {rows} LEFT JOIN {rows} AS names ON false")
            }
            _ => format!(" FROM {rows}"),
        });
        sent.finish(only.end..only.end, form)
    }

    /// Takes a statement out of a text of several, as it is.
    pub(super) fn of_text(text: &str, statement: Range<usize>) -> Self {
        let kind = Parts::of(&text[statement.clone()]).kind;
        Composer::new(text, kind).finish(statement, Form::Text)
    }

    /// Returns whether a character with this number is sent; the first is 1, and the end has one too.
    pub(super) fn has(&self, position: usize) -> bool {
        (1..=self.sql.chars().count().saturating_add(1)).contains(&position)
    }

    /// Returns where a character of what is sent stands in the caller's SQL; both count from 1.
    pub(super) fn callers_position(&self, position: usize) -> Option<usize> {
        let at = position.checked_sub(1)?;
        self.pieces.iter().find_map(|piece| {
            let within = at.checked_sub(piece.sent_at)?;
            // The end of the caller's SQL is a place too.
            (within <= piece.length).then(|| piece.callers_at + within + 1)
        })
    }
}

/// Returns a name that the SQL does not contain, so that it means nothing there.
fn unused_name(name: &str, sql: &str) -> String {
    let sql = sql.to_ascii_lowercase();
    let mut name = name.to_owned();
    while sql.contains(&name) {
        name.push('_');
    }
    name
}

/// Returns the parameters that have a type, each with it.
fn casts(types: &[Option<String>]) -> String {
    let casts = types.iter().enumerate().filter_map(|(index, name)| {
        let name = name.as_ref()?;
        Some(format!("${}::{name}", index + 1))
    });
    casts.collect::<Vec<_>>().join(", ")
}

/// Puts together what is sent, and notes where pieces of the caller's SQL are.
struct Composer<'a> {
    callers: &'a str,
    sql: String,
    kind: Kind,
    pieces: Vec<Piece>,
}

impl<'a> Composer<'a> {
    fn new(callers: &'a str, kind: Kind) -> Self {
        Self {
            callers,
            kind,
            sql: String::with_capacity(callers.len() + ROOM),
            pieces: Vec::new(),
        }
    }

    fn push(&mut self, sql: &str) {
        self.sql.push_str(sql);
    }

    fn push_callers(&mut self, range: Range<usize>) {
        let piece = &self.callers[range.clone()];
        self.pieces.push(Piece {
            sent_at: self.sql.chars().count(),
            callers_at: self.callers[..range.start].chars().count(),
            length: piece.chars().count(),
        });
        self.sql.push_str(piece);
    }

    /// Casts the parameters of a statement to their types; returns what is left behind the last of them.
    fn push_casts(&mut self, statement: Range<usize>, types: &[Option<String>]) -> Range<usize> {
        let callers = self.callers;
        let (mut done, mut dollar) = (statement.start, None);
        for (_, token) in tokens(&callers[statement.clone()]) {
            let token = statement.start + token.start..statement.start + token.end;
            let text = &callers[token.clone()];
            let start = dollar.take().filter(|start| start + 1 == token.start);
            if text == "$" {
                dollar = Some(token.start);
            }
            let number = start.and_then(|_| text.parse::<usize>().ok()?.checked_sub(1));
            // With a letter behind it the number is a syntax error, and stays one.
            let behind = callers[token.end..].chars().next();
            let is_whole = !behind.is_some_and(is_word);
            let name = number.filter(|_| is_whole);
            let name = name.and_then(|number| types.get(number)?.as_deref());
            if let (Some(start), Some(name)) = (start, name) {
                self.push_callers(done..start);
                self.push("(");
                self.push_callers(start..token.end);
                self.push(&format!("::{name})"));
                done = token.end;
            }
        }
        done..statement.end
    }

    fn finish(mut self, rest: Range<usize>, form: Form) -> Sent {
        if !rest.is_empty() {
            self.push_callers(rest);
        }
        Sent {
            sql: self.sql,
            form,
            kind: self.kind,
            pieces: self.pieces,
        }
    }
}

/// About what is put around a statement.
const ROOM: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(sql: &str, types: &[Option<&str>], wanted: Wanted) -> String {
        let types: Vec<_> = types.iter().map(|name| name.map(str::to_owned)).collect();
        Sent::new(sql, &types, wanted).sql
    }

    #[test]
    fn what_cannot_be_wrapped_is_sent_as_it_is() {
        for (sql, expected) in [
            ("EXPLAIN SELECT $2, '$1'", "EXPLAIN SELECT $2, '$1'"),
            (
                "CALL p(-$1[1],$1+$1a, $1_, $1ä, $10) -- $1",
                "CALL p(-($1::int4)[1],($1::int4)+$1a, $1_, $1ä, $10)",
            ),
            (" SHOW work_mem ; -- why", "SHOW work_mem"),
            ("SELECT 1; SELECT 2", "SELECT 1; SELECT 2"),
            ("-- nothing", "-- nothing"),
        ] {
            for wanted in [Wanted::Count, Wanted::Rows] {
                assert_eq!(sent(sql, &[Some("int4")], wanted), expected);
            }
        }
        assert_eq!(sent("SELECT 1;", &[], Wanted::Count), "SELECT 1");
        assert_eq!(sent("DELETE FROM t", &[], Wanted::Rows), "DELETE FROM t");
        assert_eq!(
            sent(
                "DELETE FROM t WHERE a = $2",
                &[None, Some("int4")],
                Wanted::Rows
            ),
            "DELETE FROM t WHERE a = ($2::int4)"
        );
    }

    #[test]
    fn rows_become_values_and_parameters_have_types() {
        let tail = "SELECT pg_catalog.encode(pg_catalog.record_send(rows_.*), 'base64')";
        assert_eq!(
            sent("SELECT 1 -- one\n;", &[], Wanted::Rows),
            format!("WITH rows_ AS (SELECT 1\n) {tail} FROM rows_")
        );
        assert_eq!(
            sent("TABLE t", &[], Wanted::NamedRows),
            format!(
                "WITH rows_ AS (TABLE t\n) {tail}, names.* FROM rows_ LEFT JOIN rows_ AS names ON false"
            )
        );
        assert_eq!(
            sent("SELECT $1", &[Some("int4")], Wanted::Rows),
            format!("WITH types_ AS (SELECT $1::int4), rows_ AS (SELECT $1\n) {tail} FROM rows_")
        );
        assert_eq!(
            sent(
                "WITH RECURSIVE a AS (SELECT 1) TABLE a",
                &[Some("x"), Some("y")],
                Wanted::Rows
            ),
            format!(
                "WITH RECURSIVE types_ AS (SELECT $1::x, $2::y),  a AS (SELECT 1) , rows_ AS (TABLE a\n) {tail} FROM rows_"
            )
        );
        let other = sent("SELECT 1 AS Rows_", &[], Wanted::Rows);
        assert!(other.ends_with(" FROM rows__"), "{other}");
    }

    #[test]
    fn each_position_is_one_in_the_callers_sql() {
        let all = [None, Some("pg_catalog.\"int4\"".to_owned())];
        for sql in [
            "/* ä */ SELECT ö, x FROM t -- end",
            " WITH a AS (SELECT ä) , b AS (DELETE FROM t RETURNING x) SELECT x FROM a;",
            "EXPLAIN SELECT x, $2, x, ö $2 x",
            "UPDATE t SET x = $2 WHERE x",
            "SELECT x INTO x FROM t WHERE x = $2",
            "INSERT INTO t VALUES (x)",
            "SELECT x; SELECT 2",
        ] {
            for types in [&all[..1], &all] {
                for wanted in [Wanted::Count, Wanted::Rows, Wanted::NamedRows] {
                    let sent = Sent::new(sql, types, wanted);
                    let of = |text: &str, at: usize| text[..at].chars().count() + 1;
                    for (found, _) in sent.sql.match_indices('x') {
                        let Some(position) = sent.callers_position(of(&sent.sql, found)) else {
                            panic!("{sent:?}");
                        };
                        assert_eq!(sql.chars().nth(position - 1), Some('x'), "{sent:?}");
                    }
                    assert_eq!(sent.callers_position(0), None);
                    assert_eq!(sent.callers_position(usize::MAX), None);
                }
            }
        }
        let sent = Sent::new("SELECT 1", &all, Wanted::Rows);
        assert_eq!(sent.callers_position(1), None);
    }
}
