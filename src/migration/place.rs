//! [`Place`]: where in a script a statement stands.

/// A place in a text, both counted from one, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Place {
    /// Returns the place of a byte offset.
    pub(super) fn of(sql: &str, offset: usize) -> Self {
        let before = &sql[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// Returns the byte offset of the server's `position`, which counts characters from one.
pub(super) fn offset(sql: &str, position: u32) -> usize {
    let characters = (position as usize).saturating_sub(1);
    let offset = sql.char_indices().nth(characters);
    offset.map_or(sql.len(), |(offset, _)| offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_from_one() {
        let sql = "-- für\nselect ä, x;";
        let at = offset(sql, 18);
        assert_eq!(&sql[at..], "x;".trim_start());
        assert_eq!(
            Place::of(sql, at),
            Place {
                line: 2,
                column: 11
            }
        );
        assert_eq!(Place::of(sql, 0), Place { line: 1, column: 1 });
        assert_eq!(offset(sql, 1000), sql.len());
    }
}
