//! What the text of a statement tells without its values: its command and its table.

use crate::util::statements::{statements, words};

/// Returns the command of `sql`, if it is known: a word that is not known may be a piece of anything.
pub(super) fn operation(sql: &str) -> Option<&'static str> {
    if sql.contains(';') && statements(sql).len() > 1 {
        return Some("BATCH");
    }
    let first = words(sql).next()?;
    let mut known = COMMANDS.iter();
    known
        .find(|known| first.eq_ignore_ascii_case(known))
        .copied()
}

/// Returns the table that a statement with this command names first, without its quotation marks.
pub(super) fn collection(sql: &str, operation: &str) -> Option<Box<str>> {
    let before = match operation {
        "SELECT" | "DELETE" => "FROM",
        "INSERT" => "INTO",
        "UPDATE" => "UPDATE",
        _ => return None,
    };
    let word = words(sql).find(|word| word.eq_ignore_ascii_case(before))?;
    let at = word.as_ptr() as usize - sql.as_ptr() as usize;
    // A FROM inside of parentheses may be one of `extract(epoch FROM …)`.
    let (open, rest) = (&sql[..at], &sql[at + word.len()..]);
    if open.matches('(').count() != open.matches(')').count() {
        return None;
    }
    let rest = rest.trim_start();
    let rest = match rest.get(..5) {
        Some(only) if only.eq_ignore_ascii_case("ONLY ") => rest[5..].trim_start(),
        _ => rest,
    };
    let mut quoted = false;
    let end = rest.find(|c: char| {
        quoted ^= c == '"';
        !(quoted || c == '"' || c == '.' || c == '_' || c.is_alphanumeric())
    });
    let name = rest[..end.unwrap_or(rest.len())].replace('"', "");
    let is_name = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
    (is_name && name.len() <= LONGEST).then(|| name.into())
}

/// A schema's name and a table's are this long together.
const LONGEST: usize = 127;

const COMMANDS: &[&str] = &[
    "ABORT",
    "ALTER",
    "ANALYZE",
    "BEGIN",
    "CALL",
    "CHECKPOINT",
    "CLOSE",
    "CLUSTER",
    "COMMENT",
    "COMMIT",
    "COPY",
    "CREATE",
    "DEALLOCATE",
    "DECLARE",
    "DELETE",
    "DISCARD",
    "DO",
    "DROP",
    "END",
    "EXECUTE",
    "EXPLAIN",
    "FETCH",
    "GRANT",
    "IMPORT",
    "INSERT",
    "LISTEN",
    "LOAD",
    "LOCK",
    "MERGE",
    "MOVE",
    "NOTIFY",
    "PREPARE",
    "REASSIGN",
    "REFRESH",
    "REINDEX",
    "RELEASE",
    "RESET",
    "REVOKE",
    "ROLLBACK",
    "SAVEPOINT",
    "SECURITY",
    "SELECT",
    "SET",
    "SHOW",
    "START",
    "TABLE",
    "TRUNCATE",
    "UNLISTEN",
    "UPDATE",
    "VACUUM",
    "VALUES",
    "WITH",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_tells_its_command_and_its_table() {
        for (sql, command, table) in [
            (
                r#"SELECT "books"."id" FROM "books" WHERE "books"."id" = $1"#,
                Some("SELECT"),
                Some("books"),
            ),
            (
                "select count(*) from public.books",
                Some("SELECT"),
                Some("public.books"),
            ),
            (
                r#"SELECT 'FROM secret', * FROM "a b"."c" x"#,
                Some("SELECT"),
                Some("a b.c"),
            ),
            ("SELECT extract(epoch FROM now())", Some("SELECT"), None),
            ("SELECT * FROM (SELECT 1) AS x", Some("SELECT"), None),
            ("SELECT 1", Some("SELECT"), None),
            (
                r#"INSERT INTO "books" ("title") VALUES ($1)"#,
                Some("INSERT"),
                Some("books"),
            ),
            (
                r#"UPDATE ONLY "books" SET "title" = $1"#,
                Some("UPDATE"),
                Some("books"),
            ),
            (r#"DELETE  FROM "books""#, Some("DELETE"), Some("books")),
            ("/* a */ COMMIT", Some("COMMIT"), None),
            ("ALTER ROLE a PASSWORD 'secret'", Some("ALTER"), None),
            ("SET x = 'secret'; SELECT 1", Some("BATCH"), None),
            ("SELECT ';'", Some("SELECT"), None),
            ("secret", None, None),
            ("", None, None),
            ("SELECT * FROM \"é", Some("SELECT"), Some("é")),
        ] {
            let found = operation(sql);
            assert_eq!(found, command, "{sql}");
            let found = found.and_then(|found| collection(sql, found));
            assert_eq!(found.as_deref(), table, "{sql}");
        }
    }
}
