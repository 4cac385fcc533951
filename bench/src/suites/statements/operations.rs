//! What is asked of each client, as its users would write it.

use std::fmt::Debug;
use std::sync::LazyLock;

pub use crate::pools::LOOK_UP;
use crate::suites::dial::Failed;

#[derive(Clone, Copy, PartialEq)]
pub enum Operation {
    LookUp,
    Insert,
    Update,
    Batch,
    Join,
    SqlQuery,
    Transaction,
    ReadAndUpdate,
    ManyRows,
    CopyIn,
    Pipeline,
}

impl Operation {
    pub const ALL: [Self; 11] = [
        Self::LookUp,
        Self::Insert,
        Self::Update,
        Self::Batch,
        Self::Join,
        Self::SqlQuery,
        Self::Transaction,
        Self::ReadAndUpdate,
        Self::ManyRows,
        Self::CopyIn,
        Self::Pipeline,
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
            Self::ReadAndUpdate => "transaction of a look-up and an UPDATE",
            Self::ManyRows => "10,000 rows",
            Self::CopyIn => "COPY of 10,000 rows",
            Self::Pipeline => "100 look-ups at once",
        }
    }

    /// Returns how often it has to run until its single runs do not show.
    pub fn repetitions(self) -> i32 {
        match self {
            Self::ManyRows | Self::CopyIn => 3,
            Self::Pipeline => 10,
            _ => 200,
        }
    }
}

/// A connection, and its users' ways.
pub trait Peer: Send + Sized + 'static {
    fn connect(url: &str) -> impl Future<Output = Result<Self, Failed>> + Send;

    /// Returns whether its users can do this with it.
    fn has(_operation: Operation) -> bool {
        true
    }

    /// Runs it, reads what it returns, and looks at it.
    fn run(
        &mut self,
        operation: Operation,
        id: i32,
    ) -> impl Future<Output = Result<(), Failed>> + Send;
}

pub type Book = (i32, i32, String, i32, f64, Option<String>);
pub type Line = (i32, f64, String);

/// What the operations need on top of the suites' common tables.
pub const TABLES: &str = "\
    CREATE TABLE lines (id INTEGER PRIMARY KEY, number DOUBLE PRECISION NOT NULL, line TEXT NOT NULL); \
    INSERT INTO lines SELECT n, n / 8.0, 'Line ' || n FROM generate_series(1, 10000) n; \
    CREATE UNLOGGED TABLE copied (id INTEGER NOT NULL, number DOUBLE PRECISION NOT NULL, line TEXT NOT NULL); \
    GRANT ALL ON lines, copied TO PUBLIC; \
    ANALYZE";
/// So that no later operation finds more rows than an earlier one.
pub const CLEAN: &str = "TRUNCATE inserted, copied";

pub const INSERT: &str = "INSERT INTO inserted (author_id, title, pages, rating) \
     VALUES ($1, $2, $3, $4) RETURNING id, author_id, title, pages, rating, note";
pub const BATCH: &str = "INSERT INTO inserted (author_id, title, pages, rating) VALUES \
     ($1, $2, $3, $4), ($5, $6, $7, $8), ($9, $10, $11, $12), ($13, $14, $15, $16), \
     ($17, $18, $19, $20), ($21, $22, $23, $24), ($25, $26, $27, $28), ($29, $30, $31, $32), \
     ($33, $34, $35, $36), ($37, $38, $39, $40)";
pub const BATCH_ROWS: i32 = 10;
pub const UPDATE: &str =
    "UPDATE books SET title = $1, pages = $2, rating = $3, note = $4 WHERE id = $5";
pub const JOIN: &str = "SELECT books.title, books.pages, authors.name FROM books \
     INNER JOIN authors ON books.author_id = authors.id WHERE authors.id = $1";
pub const INCREMENT: &str = "UPDATE books SET pages = pages + 1 WHERE id = $1";
pub const SET_PAGES: &str = "UPDATE books SET pages = $1 WHERE id = $2";
pub const LINES: &str = "SELECT id, number, line FROM lines";
pub const COPY: &str = "COPY copied FROM STDIN";

pub const AUTHOR: i32 = 7;
pub const TITLE: &str = "The Left Hand of Darkness";
pub const RATING: f64 = 4.5;
pub const NOTE: &str = "a classic";
pub const MANY: usize = 10_000;
pub const LOOK_UPS: i32 = 100;

/// Returns the book of the `n`th look-up of a pipeline.
pub fn nth_book(id: i32, n: i32) -> i32 {
    1 + (id + n) % 2000
}

/// Fails if what was read is something else: a pooler may hand a statement to a server that has another one by that name.
pub fn same<T: Debug + PartialEq<E>, E: Debug>(read: T, expected: E) -> Result<(), Failed> {
    match read == expected {
        true => Ok(()),
        false => Err(format!("a wrong answer: {read:?} instead of {expected:?}").into()),
    }
}

/// Returns the rows of a COPY in pieces, as they would be read from a file.
pub fn pieces() -> impl Iterator<Item = &'static [u8]> {
    static ROWS: LazyLock<String> = LazyLock::new(|| {
        let row = |n| format!("{n}\t{}\tLine {n}\n", f64::from(n) / 8.0);
        (1..=MANY as i32).map(row).collect()
    });
    ROWS.as_bytes().chunks(64 * 1024)
}
