//! [`Sent`]: a statement as it is sent, and where it stands in the caller's SQL.
//!
//! Two common table expressions are put in front of a statement where SQL allows it:
//!
//! - One that is never run names each parameter with its type. The server takes the type of a parameter from where it
//!   first meets it, so that parameters have the types that Diesel gives them, as over TCP.
//! - The statement itself becomes one if its rows are wanted, and each of its rows becomes one value in Postgres's binary form.

use std::ops::Range;

use super::parts::{Kind, Parts, only_statement};

/// A statement as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) sql: String,
    pub(super) form: Form,
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
            return Composer::new(sql).finish(0..sql.len(), Form::Text);
        };
        let statement = &sql[only.clone()];
        let parts = Parts::of(statement);
        let typed = types.iter().any(Option::is_some);
        let form = match (wanted, parts.kind) {
            (Wanted::Rows, Kind::Rows) => Form::Binary,
            (Wanted::NamedRows, Kind::Rows) => Form::BinaryWithNames,
            _ => Form::Text,
        };
        let mut sent = Composer::new(sql);
        if parts.kind == Kind::Other || !typed && form == Form::Text {
            return sent.finish(only, form);
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
    pieces: Vec<Piece>,
}

impl<'a> Composer<'a> {
    fn new(callers: &'a str) -> Self {
        Self {
            callers,
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

    fn finish(mut self, rest: Range<usize>, form: Form) -> Sent {
        if !rest.is_empty() {
            self.push_callers(rest);
        }
        Sent {
            sql: self.sql,
            form,
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
            ("EXPLAIN SELECT $1", "EXPLAIN SELECT $1"),
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
            "WITH types_ AS (SELECT $2::int4) DELETE FROM t WHERE a = $2"
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
            "EXPLAIN SELECT x",
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
