//! Splits SQL into statements, to look at them: the server gets the SQL as a whole.

use std::ops::Range;

use super::comment;

/// Returns the statements of `sql` without the comments around them, split as psql does: at semicolons
/// outside of quotes, comments, parentheses, and the `BEGIN ATOMIC` bodies of functions.
pub(crate) fn statements(sql: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut lexer = Lexer { sql, at: 0 };
    let mut statement: Option<Range<usize>> = None;
    let (mut parentheses, mut blocks) = (0_usize, 0_usize);
    let mut words = 0;
    let (mut creates_routine, mut after_begin) = (false, false);
    while let Some((token, range)) = lexer.next() {
        let begins = token == Token::Word && sql[range.clone()].eq_ignore_ascii_case("begin");
        match token {
            Token::Semicolon if parentheses == 0 && blocks == 0 => {
                found.extend(statement.take());
                (words, creates_routine) = (0, false);
                continue;
            }
            Token::Open => parentheses += 1,
            Token::Close => parentheses = parentheses.saturating_sub(1),
            Token::Word if parentheses == 0 => {
                let word = sql[range.clone()].to_ascii_lowercase();
                match (words, word.as_str()) {
                    (1..=3, "function" | "procedure") => creates_routine = true,
                    (_, "atomic") if creates_routine && after_begin => blocks += 1,
                    (_, "case") if blocks > 0 => blocks += 1,
                    (_, "end") => blocks = blocks.saturating_sub(1),
                    _ => {}
                }
                words += 1;
            }
            Token::Word | Token::Semicolon | Token::Other | Token::Unclosed => {}
        }
        after_begin = begins;
        let start = statement.map_or(range.start, |statement| statement.start);
        statement = Some(start..range.end);
    }
    found.extend(statement);
    found
}

/// Returns the tokens of `sql` that are neither blank nor comments, and where they are.
#[cfg(feature = "http")]
pub(crate) fn tokens(sql: &str) -> impl Iterator<Item = (Token, Range<usize>)> {
    let mut lexer = Lexer { sql, at: 0 };
    std::iter::from_fn(move || lexer.next())
}

/// Returns the words of a statement outside of quotes and comments.
pub(crate) fn words(sql: &str) -> impl Iterator<Item = &str> {
    let mut lexer = Lexer { sql, at: 0 };
    let tokens = std::iter::from_fn(move || lexer.next());
    let words = tokens.filter(|(token, _)| *token == Token::Word);
    words.map(|(_, range)| &sql[range])
}

/// A piece of SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Word,
    Semicolon,
    Open,
    Close,
    Other,
    /// A quotation or a comment without its end.
    Unclosed,
}

struct Lexer<'a> {
    sql: &'a str,
    at: usize,
}

impl Lexer<'_> {
    /// Returns the next token that is neither blank nor a comment.
    fn next(&mut self) -> Option<(Token, Range<usize>)> {
        loop {
            let start = self.at;
            let rest = &self.sql[start..];
            let first = rest.chars().next()?;
            let (token, length) = match first {
                _ if first.is_whitespace() => (None, first.len_utf8()),
                _ if rest.starts_with("--") => {
                    (None, rest.find(['\n', '\r']).unwrap_or(rest.len()))
                }
                _ if rest.starts_with("/*") => match comment::end(rest) {
                    Some(length) => (None, length),
                    None => (Some(Token::Unclosed), rest.len()),
                },
                ';' => (Some(Token::Semicolon), 1),
                '(' => (Some(Token::Open), 1),
                ')' => (Some(Token::Close), 1),
                '\'' | '"' => quotation(quoted(rest, first, false), rest),
                'e' | 'E' if rest[1..].starts_with('\'') => {
                    let length = quoted(&rest[1..], '\'', true);
                    quotation(length.map(|length| 1 + length), rest)
                }
                '$' => match dollar_tag(rest) {
                    Some(tag) => quotation(dollar_quoted(rest, tag), rest),
                    None => (Some(Token::Other), 1),
                },
                // Not a part of the word behind it, which may be the E of a string.
                _ if first.is_ascii_digit() => {
                    let end = rest.find(|c: char| !c.is_ascii_digit());
                    (Some(Token::Other), end.unwrap_or(rest.len()))
                }
                _ if is_word(first) => {
                    let end = rest.find(|c| !is_word(c) && c != '$');
                    (Some(Token::Word), end.unwrap_or(rest.len()))
                }
                _ => (Some(Token::Other), first.len_utf8()),
            };
            self.at += length;
            if let Some(token) = token {
                return Some((token, start..self.at));
            }
        }
    }
}

/// Returns whether a word may have this character.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || !c.is_ascii()
}

/// Returns the token and the length of a quotation, which takes all of the `rest` if it has no end.
fn quotation(length: Option<usize>, rest: &str) -> (Option<Token>, usize) {
    match length {
        Some(length) => (Some(Token::Other), length),
        None => (Some(Token::Unclosed), rest.len()),
    }
}

/// Returns the length of a quoted string, if it ends. A doubled quote may end one string and begin the next: the
/// statement ends at the same place.
fn quoted(text: &str, quote: char, backslashes: bool) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if backslashes && c == '\\' {
            escaped = true;
        } else if c == quote {
            return Some(at + 1);
        }
    }
    None
}

/// Returns the tag that a dollar-quoted string begins with.
fn dollar_tag(text: &str) -> Option<&str> {
    let tag = &text[..text[1..].find('$')? + 2];
    let inside = &tag[1..tag.len() - 1];
    if !inside.chars().all(is_word) || inside.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    Some(tag)
}

/// Returns the length of a dollar-quoted string, if it ends.
fn dollar_quoted(text: &str, tag: &str) -> Option<usize> {
    let end = text[tag.len()..].find(tag)?;
    Some(tag.len() + end + tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_where_psql_ends_them() {
        for (sql, expected) in [
            ("", vec![]),
            (" ;; -- nothing\n /* at /* all; */ ; */", vec![]),
            ("select 1", vec!["select 1"]),
            (
                "-- one; two\nselect 1; -- and\nselect 2;\n",
                vec!["select 1", "select 2"],
            ),
            (
                "insert into t values ('a;''b', \"c;d\", E'it\\'s;'); select 2",
                vec![
                    "insert into t values ('a;''b', \"c;d\", E'it\\'s;')",
                    "select 2",
                ],
            ),
            (
                "do $$ begin raise 'a;b'; end $$; do $x$ select $1; $$;$$ $x$; select a$b;",
                vec![
                    "do $$ begin raise 'a;b'; end $$",
                    "do $x$ select $1; $$;$$ $x$",
                    "select a$b",
                ],
            ),
            (
                "create or replace function f() returns int begin atomic \
                 select case when true then 1 end; select 2; end; select 3",
                vec![
                    "create or replace function f() returns int begin atomic \
                     select case when true then 1 end; select 2; end",
                    "select 3",
                ],
            ),
            (
                "create rule r as on insert to t do also (select 1; select 2); begin; commit; end;",
                vec![
                    "create rule r as on insert to t do also (select 1; select 2)",
                    "begin",
                    "commit",
                    "end",
                ],
            ),
            ("select 'open; end", vec!["select 'open; end"]),
            ("select $a; $b$ open", vec!["select $a", "$b$ open"]),
            ("wählen 'ß'; é", vec!["wählen 'ß'", "é"]),
            // For Postgres a carriage return ends a line too.
            (
                "-- one\rselect 1; -- two\r\nselect 2",
                vec!["select 1", "select 2"],
            ),
            (
                "create function begin() returns int language sql as 'select 1'; commit",
                vec![
                    "create function begin() returns int language sql as 'select 1'",
                    "commit",
                ],
            ),
        ] {
            let found: Vec<_> = statements(sql).into_iter().map(|r| &sql[r]).collect();
            assert_eq!(found, expected, "{sql}");
        }
    }
}
