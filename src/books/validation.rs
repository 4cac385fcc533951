use std::fmt;
use std::ops::RangeInclusive;

/// The largest number of characters of a title or an author: the columns are `VARCHAR(255)`.
pub const MAX_CHARACTERS: usize = 255;

/// The valid years of publication: from the first writing to the announcements of publishers.
pub const YEARS: RangeInclusive<i32> = -3000..=2100;

/// A rule that a book can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Rule {
    /// The text is blank. An unknown author is null.
    #[error("must not be blank")]
    NotBlank,
    /// The text is longer than the column.
    #[error("must have at most {MAX_CHARACTERS} characters")]
    Length,
    /// The text has the one character that Postgres cannot store.
    #[error("must not contain the character NUL")]
    NoNul,
    /// The year is outside of [`YEARS`], most likely by a typing error.
    #[error("must be between {} and {}", YEARS.start(), YEARS.end())]
    Year,
}

/// A field and the rule that it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{field} {rule}")]
#[non_exhaustive]
pub struct Violation {
    /// The name of the column.
    pub field: &'static str,
    /// The rule that the field breaks.
    pub rule: Rule,
}

/// The violations of a book: at least one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Invalid(Vec<Violation>);

impl Invalid {
    /// Returns the violations, in the order of the columns.
    pub fn violations(&self) -> &[Violation] {
        &self.0
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, violation) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}{violation}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

/// Collects all violations, so that a form can show them at once.
#[derive(Default)]
pub(super) struct Validator(Vec<Violation>);

impl Validator {
    pub(super) fn text(mut self, field: &'static str, value: Option<&str>) -> Self {
        let Some(value) = value else { return self };
        let rules = [
            (Rule::NotBlank, value.trim().is_empty()),
            (Rule::Length, value.chars().count() > MAX_CHARACTERS),
            (Rule::NoNul, value.contains('\0')),
        ];
        for (rule, broken) in rules {
            if broken {
                self.0.push(Violation { field, rule });
            }
        }
        self
    }

    pub(super) fn year(mut self, field: &'static str, value: Option<i32>) -> Self {
        if value.is_some_and(|year| !YEARS.contains(&year)) {
            let rule = Rule::Year;
            self.0.push(Violation { field, rule });
        }
        self
    }

    pub(super) fn finish<T>(self, value: T) -> Result<T, Invalid> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(Invalid(self.0))
        }
    }
}

crate::util::debug_is_chain!(Invalid);

#[cfg(test)]
mod tests {
    use crate::books::{BookChanges, NewBook};

    #[test]
    fn length_is_counted_in_characters_as_postgres_does() {
        assert!(NewBook::new("ß".repeat(255)).validated().is_ok());
        assert!(NewBook::new("a".repeat(256)).validated().is_err());
    }

    #[test]
    fn every_violation_is_named() {
        let error = NewBook::new(" ")
            .author("a\0".repeat(128))
            .publication_year(19650)
            .validated()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "title must not be blank, author must have at most 255 characters, \
             author must not contain the character NUL, publication_year must be between -3000 and 2100"
        );
    }

    #[test]
    fn changes_are_held_to_the_same_rules() {
        assert!(BookChanges::new().author(None).validated().is_ok());
        assert!(
            BookChanges::new()
                .author(String::new())
                .validated()
                .is_err()
        );
        assert!(
            BookChanges::new()
                .publication_year(2101)
                .validated()
                .is_err()
        );
    }
}
