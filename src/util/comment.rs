//! Comments in SQL.

/// Returns the end of the comment that `sql` begins with, nested ones included; `None` if it does not end.
pub(crate) fn end(sql: &str) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = sql.as_bytes().get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth = depth.saturating_sub(1);
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::end;

    #[test]
    fn comments_nest() {
        for (sql, comment) in [
            ("/**/ x", Some("/**/")),
            ("/* é */*/", Some("/* é */")),
            ("/* /* a */ b */ c */", Some("/* /* a */ b */")),
            // The second slash begins a nested comment.
            ("/*/*/ a */ b */ c", Some("/*/*/ a */ b */")),
            ("/*/", None),
            ("/* /* */", None),
        ] {
            assert_eq!(end(sql).map(|end| &sql[..end]), comment, "{sql}");
        }
    }
}
