use std::fmt;
use std::str::FromStr;

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::models::Book;
use super::schema::books;

/// A query for a page of books: its filters, its order, and its start.
///
/// A page starts behind a key, not at a count: each page costs the same, and a book that is added or
/// deleted in between neither repeats nor hides another one.
///
/// ```no_run
/// # use diesel_neon::books::{BookList, Order};
/// # async fn example(mut conn: diesel_async::AsyncPgConnection) -> diesel::QueryResult<()> {
/// let page = BookList::new(Order::PublicationYear)
///     .author("J.R.R. Tolkien")
///     .published_from(1937)
///     .load(&mut conn)
///     .await?;
/// if let Some(next) = page.next {
///     BookList::after(next).author("J.R.R. Tolkien").published_from(1937).load(&mut conn).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct BookList<'a> {
    start: Start,
    limit: PageSize,
    author: Option<&'a str>,
    title: Option<&'a str>,
    in_stock: Option<bool>,
    published_from: Option<i32>,
    published_to: Option<i32>,
}

impl<'a> BookList<'a> {
    /// Lists all books, from the first one in this order.
    pub fn new(order: Order) -> Self {
        Self::starting(Start::First(order))
    }

    /// Lists the books behind the cursor, in the cursor's order.
    pub fn after(cursor: Cursor) -> Self {
        Self::starting(Start::After(cursor))
    }

    /// Sets the largest number of books on the page. Default: 20.
    pub fn limit(self, limit: PageSize) -> Self {
        Self { limit, ..self }
    }

    /// Keeps only books by this author.
    pub fn author(self, author: impl Into<Option<&'a str>>) -> Self {
        Self {
            author: author.into(),
            ..self
        }
    }

    /// Keeps only books with this text in their title, in upper or lower case.
    pub fn title_contains(self, text: impl Into<Option<&'a str>>) -> Self {
        Self {
            title: text.into(),
            ..self
        }
    }

    /// Keeps only books that are in stock, or only those that are not.
    pub fn in_stock(self, in_stock: impl Into<Option<bool>>) -> Self {
        Self {
            in_stock: in_stock.into(),
            ..self
        }
    }

    /// Keeps only books published in this year or later.
    pub fn published_from(self, year: impl Into<Option<i32>>) -> Self {
        Self {
            published_from: year.into(),
            ..self
        }
    }

    /// Keeps only books published in this year or earlier.
    pub fn published_to(self, year: impl Into<Option<i32>>) -> Self {
        Self {
            published_to: year.into(),
            ..self
        }
    }

    /// Reads the page.
    ///
    /// # Errors
    ///
    /// Returns the database's errors.
    pub async fn load<C>(self, conn: &mut C) -> QueryResult<BookPage>
    where
        C: AsyncConnection<Backend = Pg>,
    {
        // No text in Postgres has a NUL, so that nothing can match; the query would be an error.
        if [self.author, self.title]
            .into_iter()
            .flatten()
            .any(|text| text.contains('\0'))
        {
            return Ok(BookPage::default());
        }

        let order = self.start.order();
        let limit = usize::from(self.limit.0);
        // One more book than the limit tells whether there is a next page.
        let mut books: Vec<Book> = self.query().limit(limit as i64 + 1).load(conn).await?;
        let next = (books.len() > limit).then(|| Cursor::behind(&books[limit - 1], order));
        books.truncate(limit);
        Ok(BookPage { books, next })
    }

    fn starting(start: Start) -> Self {
        Self {
            start,
            limit: PageSize::default(),
            author: None,
            title: None,
            in_stock: None,
            published_from: None,
            published_to: None,
        }
    }

    fn query(self) -> Query<'a> {
        use books::{author, id, in_stock, publication_year as year, title};

        let mut query = books::table.select(Book::as_select()).into_boxed();
        if let Some(name) = self.author {
            query = query.filter(author.eq(name));
        }
        if let Some(text) = self.title {
            query = query.filter(title.ilike(format!("%{}%", escape_like(text))));
        }
        if let Some(wanted) = self.in_stock {
            query = query.filter(in_stock.eq(wanted));
        }
        if let Some(first) = self.published_from {
            query = query.filter(year.ge(first));
        }
        if let Some(last) = self.published_to {
            query = query.filter(year.le(last));
        }
        if let Start::After(Cursor(key)) = self.start {
            query = match key {
                Key::Id(last) => query.filter(id.gt(last)),
                Key::Year(Some(y), last) => query.filter(
                    year.gt(y)
                        .or(year.eq(y).and(id.gt(last)))
                        .or(year.is_null()),
                ),
                Key::Year(None, last) => query.filter(year.is_null().and(id.gt(last))),
            };
        }
        match self.start.order() {
            Order::Id => query.order(id.asc()),
            Order::PublicationYear => query.order((year.asc().nulls_last(), id.asc())),
        }
    }
}

type Query<'a> = books::BoxedQuery<'a, Pg, diesel::dsl::SqlTypeOf<diesel::dsl::AsSelect<Book, Pg>>>;

/// The books of a page, and the start of the next one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct BookPage {
    /// The books, in order.
    pub books: Vec<Book>,
    /// The cursor for [`BookList::after`]; `None` on the last page.
    pub next: Option<Cursor>,
}

/// The order of a [`BookList`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Order {
    /// By id, in the order in which the books were added.
    #[default]
    Id,
    /// By year, books without one last; within a year by id.
    PublicationYear,
}

/// A place between two books, from which a [`BookList`] can go on.
///
/// A cursor has the key of the book before it, not the book, which may be deleted later. As text a cursor
/// is `17` in the order of the ids and `1965:4` (or `:4`, without a year) in the order of the years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "String", try_from = "String"))]
pub struct Cursor(Key);

impl Cursor {
    /// Returns the place behind this book.
    pub fn behind(book: &Book, order: Order) -> Self {
        Self(match order {
            Order::Id => Key::Id(book.id),
            Order::PublicationYear => Key::Year(book.publication_year, book.id),
        })
    }

    /// Returns the order of the list that the cursor belongs to.
    pub fn order(self) -> Order {
        match self.0 {
            Key::Id(_) => Order::Id,
            Key::Year(..) => Order::PublicationYear,
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Key::Id(id) => write!(f, "{id}"),
            Key::Year(Some(year), id) => write!(f, "{year}:{id}"),
            Key::Year(None, id) => write!(f, ":{id}"),
        }
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let number = |text: &str| text.parse().map_err(|_| InvalidCursor);
        Ok(Self(match text.split_once(':') {
            None => Key::Id(number(text)?),
            Some(("", id)) => Key::Year(None, number(id)?),
            Some((year, id)) => Key::Year(Some(number(year)?), number(id)?),
        }))
    }
}

impl TryFrom<String> for Cursor {
    type Error = InvalidCursor;

    fn try_from(text: String) -> Result<Self, InvalidCursor> {
        text.parse()
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
    }
}

/// The text is not a [`Cursor`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("no such place in the list: take the `next` of another page")]
#[non_exhaustive]
pub struct InvalidCursor;

/// The largest number of books on a page: 1 to 100, by default 20.
///
/// The number is bounded because it often comes from a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "u32"))]
pub struct PageSize(u8);

impl PageSize {
    /// The largest page.
    pub const MAX: Self = Self(100);
}

impl Default for PageSize {
    fn default() -> Self {
        Self(20)
    }
}

impl TryFrom<u32> for PageSize {
    type Error = InvalidPageSize;

    fn try_from(size: u32) -> Result<Self, InvalidPageSize> {
        match u8::try_from(size) {
            Ok(size @ 1..=100) => Ok(Self(size)),
            _ => Err(InvalidPageSize),
        }
    }
}

/// The number is not a valid [`PageSize`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("a page holds 1 to 100 books")]
#[non_exhaustive]
pub struct InvalidPageSize;

crate::util::debug_is_chain!(InvalidCursor, InvalidPageSize);

#[derive(Debug, Clone, Copy)]
enum Start {
    First(Order),
    After(Cursor),
}

impl Start {
    fn order(self) -> Order {
        match self {
            Self::First(order) => order,
            Self::After(cursor) => cursor.order(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Id(i32),
    Year(Option<i32>, i32),
}

/// Escapes the metacharacters of `LIKE`, the escape character included.
fn escape_like(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_the_way_through_text() {
        for key in [
            Key::Id(17),
            Key::Year(Some(1965), 4),
            Key::Year(Some(-750), 1),
            Key::Year(None, 9),
        ] {
            assert_eq!(Cursor(key).to_string().parse(), Ok(Cursor(key)));
        }
    }

    #[test]
    fn other_text_is_no_cursor() {
        for text in ["", ":", "x", "1:", "1:2:3", "99999999999"] {
            assert_eq!(text.parse::<Cursor>(), Err(InvalidCursor), "{text:?}");
        }
    }

    #[test]
    fn a_page_is_bounded() {
        assert!(PageSize::try_from(0).is_err());
        assert_eq!(PageSize::try_from(100), Ok(PageSize::MAX));
        assert!(PageSize::try_from(101).is_err());
        assert!(PageSize::try_from(257).is_err());
    }
}
