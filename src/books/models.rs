use diesel::pg::Pg;
use diesel::prelude::*;

use super::schema::books;
use super::validation::{Invalid, Validator};

/// One row of `books`.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, Queryable, QueryableByName, Selectable, Identifiable,
)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[diesel(table_name = books, check_for_backend(Pg))]
#[non_exhaustive]
pub struct Book {
    /// The id, given by the database.
    pub id: i32,
    /// The title.
    pub title: String,
    /// The author, if one is known.
    pub author: Option<String>,
    /// The year of publication, if it is known; negative before the common era.
    pub publication_year: Option<i32>,
    /// Whether a copy is in stock.
    pub in_stock: bool,
}

/// A book that has no id yet.
///
/// ```
/// # use diesel_neon::books::NewBook;
/// let dune = NewBook::new("Dune").author("Frank Herbert").publication_year(1965).in_stock(false);
/// ```
///
/// With the feature `serde`, every field but the title may be absent, and an unknown field is an error.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Insertable)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[diesel(table_name = books, check_for_backend(Pg))]
#[non_exhaustive]
pub struct NewBook {
    /// The title.
    pub title: String,
    /// The author, if one is known.
    #[cfg_attr(feature = "serde", serde(default))]
    pub author: Option<String>,
    /// The year of publication, if it is known; negative before the common era.
    #[cfg_attr(feature = "serde", serde(default, deserialize_with = "year"))]
    pub publication_year: Option<i32>,
    /// Whether a copy is in stock. Default: `true`.
    #[cfg_attr(feature = "serde", serde(default = "in_stock"))]
    pub in_stock: bool,
}

impl NewBook {
    /// Returns a book in stock with this title and nothing else known.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            author: None,
            publication_year: None,
            in_stock: true,
        }
    }

    /// Sets the author.
    #[must_use]
    pub fn author(self, author: impl Into<String>) -> Self {
        Self {
            author: Some(author.into()),
            ..self
        }
    }

    /// Sets the year of publication.
    #[must_use]
    pub fn publication_year(self, year: i32) -> Self {
        Self {
            publication_year: Some(year),
            ..self
        }
    }

    /// Sets whether a copy is in stock.
    #[must_use]
    pub fn in_stock(self, in_stock: bool) -> Self {
        Self { in_stock, ..self }
    }

    /// Returns the same book, if it keeps the [rules](super::Rule).
    ///
    /// # Errors
    ///
    /// Returns every rule that is broken, not only the first one.
    pub fn validated(self) -> Result<Self, Invalid> {
        Validator::default()
            .text("title", Some(&self.title))
            .text("author", self.author.as_deref())
            .year("publication_year", self.publication_year)
            .finish(self)
    }
}

/// The changes to a book; a field that is `None` stays as it is.
///
/// A column that may be null takes two options: `None` leaves it alone, `Some(None)` empties it.
///
/// ```
/// # use diesel_neon::books::BookChanges;
/// let changes = BookChanges::new().in_stock(true).author(None);
/// assert_eq!(changes.author, Some(None));
/// assert_eq!(changes.publication_year, None);
/// ```
///
/// With the feature `serde`, an absent field stays, `null` empties it (or is an error, for the title and
/// `in_stock`), and an unknown field is an error. That is a JSON Merge Patch (RFC 7396).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, AsChangeset)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[diesel(table_name = books)]
#[non_exhaustive]
pub struct BookChanges {
    /// Another title.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "present"))]
    pub title: Option<String>,
    /// Another author, or none.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "present"))]
    pub author: Option<Option<String>>,
    /// Another year, or none.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "present_year"))]
    pub publication_year: Option<Option<i32>>,
    /// Whether a copy is in stock.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "present"))]
    pub in_stock: Option<bool>,
}

impl BookChanges {
    /// Returns no changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets another title.
    #[must_use]
    pub fn title(self, title: impl Into<String>) -> Self {
        Self {
            title: Some(title.into()),
            ..self
        }
    }

    /// Sets another author, or none.
    #[must_use]
    pub fn author(self, author: impl Into<Option<String>>) -> Self {
        Self {
            author: Some(author.into()),
            ..self
        }
    }

    /// Sets another year of publication, or none.
    #[must_use]
    pub fn publication_year(self, year: impl Into<Option<i32>>) -> Self {
        Self {
            publication_year: Some(year.into()),
            ..self
        }
    }

    /// Sets whether a copy is in stock.
    #[must_use]
    pub fn in_stock(self, in_stock: bool) -> Self {
        Self {
            in_stock: Some(in_stock),
            ..self
        }
    }

    /// Returns whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the same changes, if they keep the [rules](super::Rule).
    ///
    /// # Errors
    ///
    /// Returns every rule that is broken, not only the first one.
    pub fn validated(self) -> Result<Self, Invalid> {
        Validator::default()
            .text("title", self.title.as_deref())
            .text("author", self.author.as_ref().and_then(Option::as_deref))
            .year("publication_year", self.publication_year.flatten())
            .finish(self)
    }
}

/// Replaces every column: a field that the new book lacks becomes null.
impl From<NewBook> for BookChanges {
    fn from(book: NewBook) -> Self {
        Self {
            title: Some(book.title),
            author: Some(book.author),
            publication_year: Some(book.publication_year),
            in_stock: Some(book.in_stock),
        }
    }
}

#[cfg(feature = "serde")]
fn in_stock() -> bool {
    true
}

/// Reads a field that is present. Serde by itself reads `null` as an absent `Option`.
#[cfg(feature = "serde")]
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(feature = "serde")]
fn present_year<'de, D>(deserializer: D) -> Result<Option<Option<i32>>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    year(deserializer).map(Some)
}

/// Reads a year, if there is one. Serde's own error for an `i32` would show that type to the client.
#[cfg(feature = "serde")]
fn year<'de, D>(deserializer: D) -> Result<Option<i32>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    use serde::Deserialize;
    use serde::de::{Deserializer, Error, Unexpected, Visitor};

    struct Year(i32);

    impl<'de> Deserialize<'de> for Year {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_i32(Number).map(Self)
        }
    }

    struct Number;

    impl Visitor<'_> for Number {
        type Value = i32;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a year as a whole number")
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<i32, E> {
            let wrong = |_| E::invalid_value(Unexpected::Signed(number), &self);
            number.try_into().map_err(wrong)
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<i32, E> {
            let wrong = |_| E::invalid_value(Unexpected::Unsigned(number), &self);
            number.try_into().map_err(wrong)
        }
    }

    Ok(Option::<Year>::deserialize(deserializer)?.map(|year| year.0))
}
