//! The same operations, as each of them would be written by its users.

mod with_diesel;
mod with_sqlx;
mod with_tokio_postgres;

pub use self::with_diesel::{Ours, Stock};
pub use self::with_sqlx::Sqlx;
pub use self::with_tokio_postgres::TokioPostgres;

#[derive(Clone, Copy)]
pub enum Operation {
    LookUp,
    Insert,
    Update,
    Batch,
    Join,
    SqlQuery,
    Transaction,
}

impl Operation {
    pub const ALL: [Self; 7] = [
        Self::LookUp,
        Self::Insert,
        Self::Update,
        Self::Batch,
        Self::Join,
        Self::SqlQuery,
        Self::Transaction,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::LookUp => "key look-up",
            Self::Insert => "INSERT … RETURNING",
            Self::Update => "changeset update",
            Self::Batch => "batch of 10 rows",
            Self::Join => "join, 10 rows",
            Self::SqlQuery => "`sql_query`, 10 rows",
            Self::Transaction => "transaction of one UPDATE",
        }
    }
}

pub trait Peer: Send + Sized + 'static {
    fn connect(url: &str) -> impl Future<Output = Self> + Send;

    fn run(&mut self, operation: Operation, id: i32) -> impl Future<Output = ()> + Send;
}

type Book = (i32, i32, String, i32, f64, Option<String>);

pub const LOOK_UP: &str =
    "SELECT id, author_id, title, pages, rating, note FROM books WHERE id = $1";
const INSERT: &str = "INSERT INTO inserted (author_id, title, pages, rating) \
     VALUES ($1, $2, $3, $4) RETURNING id, author_id, title, pages, rating, note";
const BATCH: &str = "INSERT INTO inserted (author_id, title, pages, rating) VALUES \
     ($1, $2, $3, $4), ($5, $6, $7, $8), ($9, $10, $11, $12), ($13, $14, $15, $16), \
     ($17, $18, $19, $20), ($21, $22, $23, $24), ($25, $26, $27, $28), ($29, $30, $31, $32), \
     ($33, $34, $35, $36), ($37, $38, $39, $40)";
const ROWS: i32 = 10;
const UPDATE: &str =
    "UPDATE books SET title = $1, pages = $2, rating = $3, note = $4 WHERE id = $5";
const JOIN: &str = "SELECT books.title, books.pages, authors.name FROM books \
     INNER JOIN authors ON books.author_id = authors.id WHERE authors.id = $1";
const INCREMENT: &str = "UPDATE books SET pages = pages + 1 WHERE id = $1";

pub const AUTHOR: i32 = 7;
pub const TITLE: &str = "The Left Hand of Darkness";
pub const RATING: f64 = 4.5;
const NOTE: &str = "a classic";
pub const OK: &str = "an answer";
