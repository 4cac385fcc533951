//! The limit: a client that is written by hand for these statements alone. It has a thread to itself, sends messages that were made
//! before, with the values written into them, and reads the answers into the same types as the others.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use diesel_neon::DatabaseUrl;
use tokio_postgres::NoTls;
use tokio_postgres::config::Host;

use super::operations::{
    AUTHOR, BATCH, BATCH_ROWS, Book, COPY, INCREMENT, INSERT, JOIN, LINES, LOOK_UP, LOOK_UPS, Line,
    MANY, NOTE, Operation, Peer, RATING, SET_PAGES, TITLE, UPDATE, nth_book, pieces, same,
};
use crate::suites::dial::Failed;

pub struct ByHand {
    wire: Wire,
    look_up: Messages,
    insert: Messages,
    update: Messages,
    batch: Messages,
    join: Messages,
    increment: Messages,
    begin_look_up: Messages,
    set_pages_commit: Messages,
    lines: Messages,
    look_ups: Messages,
    piece: Vec<u8>,
}

const STATEMENTS: [(&str, &str); 9] = [
    ("look_up", LOOK_UP),
    ("insert", INSERT),
    ("update", UPDATE),
    ("batch", BATCH),
    ("join", JOIN),
    ("increment", INCREMENT),
    ("set_pages", SET_PAGES),
    ("lines", LINES),
    ("begin", "BEGIN"),
];

impl Peer for ByHand {
    async fn connect(url: &str) -> Result<Self, Failed> {
        let mut wire = Wire::connect(url).await?;
        let mut prepare = Vec::new();
        for (name, sql) in STATEMENTS.into_iter().chain([("commit", "COMMIT")]) {
            let body = [name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"];
            message(&mut prepare, b'P', &body.concat());
        }
        message(&mut prepare, b'S', b"");
        wire.ask(&prepare, |_, _| Ok(()))?;
        let (title, rating) = (TITLE.as_bytes(), RATING.to_be_bytes());
        let (author, note) = (AUTHOR.to_be_bytes(), NOTE.as_bytes());
        let row = [Some(&author[..]), Some(title), None, Some(&rating[..])];
        let update = [Some(title), None, Some(&rating[..]), Some(note), None];
        let look_ups =
            (0..LOOK_UPS).fold(Messages::default(), |all, _| all.run("look_up", &[None]));
        let transaction = || Messages::default().run("begin", &[]);
        Ok(Self {
            wire,
            look_up: Messages::of("look_up", &[None]),
            insert: Messages::of("insert", &row),
            update: Messages::of("update", &update),
            batch: Messages::of("batch", &row.repeat(BATCH_ROWS as usize)),
            join: Messages::of("join", &[None]),
            increment: transaction()
                .run("increment", &[None])
                .run("commit", &[])
                .end(),
            begin_look_up: transaction().run("look_up", &[None]).end(),
            set_pages_commit: Messages::default()
                .run("set_pages", &[None, None])
                .run("commit", &[])
                .end(),
            lines: Messages::of("lines", &[]),
            look_ups: look_ups.end(),
            piece: Vec::new(),
        })
    }

    async fn run(&mut self, operation: Operation, id: i32) -> Result<(), Failed> {
        let wire = &mut self.wire;
        match operation {
            Operation::LookUp => {
                let book = wire.book(self.look_up.with([id]))?;
                same(book.0, id)
            }
            Operation::Insert => {
                let book = wire.book(self.insert.with([id]))?;
                same(&book.2[..], TITLE)
            }
            Operation::Update => wire.change(self.update.with([id, id]), b"UPDATE 1\0"),
            Operation::Batch => {
                let pages = (0..BATCH_ROWS).map(|n| id + n);
                wire.change(self.batch.with(pages), b"INSERT 0 10\0")
            }
            Operation::Join | Operation::SqlQuery => {
                let mut rows: Vec<(String, i32, String)> = Vec::new();
                wire.ask(self.join.with([1 + id % 200]), |tag, body| {
                    if tag == b'D' {
                        let mut row = Fields::of(body);
                        rows.push((row.text()?, row.number()?, row.text()?));
                    }
                    Ok(())
                })?;
                same(rows.len(), 10)
            }
            Operation::Transaction => wire.change(self.increment.with([id]), b"UPDATE 1\0"),
            Operation::ReadAndUpdate => {
                let book = wire.book(self.begin_look_up.with([id]))?;
                same(book.0, id)?;
                let values = [book.3 + 1, id];
                wire.change(self.set_pages_commit.with(values), b"UPDATE 1\0")
            }
            Operation::ManyRows => {
                let mut rows: Vec<Line> = Vec::new();
                wire.ask(self.lines.with([]), |tag, body| {
                    if tag == b'D' {
                        let mut row = Fields::of(body);
                        rows.push((row.number()?, row.double()?, row.text()?));
                    }
                    Ok(())
                })?;
                same(rows.len(), MANY)
            }
            Operation::CopyIn => wire.copy(&mut self.piece),
            Operation::Pipeline => {
                let mut n = 0;
                let ids = (0..LOOK_UPS).map(|n| nth_book(id, n));
                wire.ask(self.look_ups.with(ids), |tag, body| {
                    if tag == b'D' {
                        same(Fields::of(body).book()?.0, nth_book(id, n))?;
                        n += 1;
                    }
                    Ok(())
                })?;
                same(n, LOOK_UPS)
            }
        }
    }
}

/// Messages with places for numbers.
#[derive(Default)]
struct Messages {
    bytes: Vec<u8>,
    places: Vec<usize>,
}

impl Messages {
    /// Returns those that run a statement with these values; none is a place.
    fn of(statement: &str, values: &[Option<&[u8]>]) -> Self {
        Self::default().run(statement, values).end()
    }

    fn run(mut self, statement: &str, values: &[Option<&[u8]>]) -> Self {
        // All values are binary, and so are all results.
        let mut bind = [b"\0", statement.as_bytes(), b"\0\0\x01\0\x01"].concat();
        bind.extend((values.len() as u16).to_be_bytes());
        for value in values {
            let value = value.unwrap_or_else(|| {
                self.places.push(self.bytes.len() + HEAD + bind.len() + 4);
                &[0; 4]
            });
            bind.extend((value.len() as u32).to_be_bytes());
            bind.extend(value);
        }
        bind.extend(*b"\0\x01\0\x01");
        message(&mut self.bytes, b'B', &bind);
        message(&mut self.bytes, b'E', &[0; 5]);
        self
    }

    fn end(mut self) -> Self {
        message(&mut self.bytes, b'S', b"");
        self
    }

    fn with(&mut self, numbers: impl IntoIterator<Item = i32>) -> &[u8] {
        for (place, number) in self.places.iter().zip(numbers) {
            self.bytes[*place..place + 4].copy_from_slice(&number.to_be_bytes());
        }
        &self.bytes
    }
}

/// A message's tag and length.
const HEAD: usize = 5;

fn message(messages: &mut Vec<u8>, tag: u8, body: &[u8]) {
    messages.push(tag);
    messages.extend((body.len() as u32 + 4).to_be_bytes());
    messages.extend(body);
}

struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    /// Logs in as tokio-postgres does, and takes the stream from it.
    async fn connect(url: &str) -> Result<Self, Failed> {
        let config = DatabaseUrl::parse(url)?.to_tokio_postgres();
        let [Host::Tcp(host)] = config.get_hosts() else {
            return Err("it is not on one TCP host".into());
        };
        let stream = TcpStream::connect((&host[..], config.get_ports()[0]))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let lent = tokio::net::TcpStream::from_std(stream.try_clone()?)?;
        drop(config.connect_raw(lent, NoTls).await?);
        stream.set_nonblocking(false)?;
        let buffer = vec![0; 64 * 1024];
        Ok(Self { stream, buffer })
    }

    /// Sends messages, and calls `read` with each that comes back.
    fn ask(
        &mut self,
        messages: &[u8],
        read: impl FnMut(u8, &[u8]) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        self.stream.write_all(messages)?;
        self.read_until(b'Z', read)
    }

    fn read_until(
        &mut self,
        last: u8,
        mut read: impl FnMut(u8, &[u8]) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let mut filled = 0;
        loop {
            filled += match self.stream.read(&mut self.buffer[filled..])? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                more => more,
            };
            let mut rest = &self.buffer[..filled];
            while let [tag, a, b, c, d, behind @ ..] = rest {
                let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize - 4;
                let Some((body, behind)) = behind.split_at_checked(length) else {
                    break;
                };
                match *tag {
                    b'E' => return Err(String::from_utf8_lossy(body).into()),
                    tag if tag == last => return Ok(()),
                    tag => read(tag, body)?,
                }
                rest = behind;
            }
            let begun = filled - rest.len();
            self.buffer.copy_within(begun..filled, 0);
            filled -= begun;
        }
    }

    fn book(&mut self, messages: &[u8]) -> Result<Book, Failed> {
        let mut book = None;
        self.ask(messages, |tag, body| {
            if tag == b'D' {
                book = Some(Fields::of(body).book()?);
            }
            Ok(())
        })?;
        Ok(book.ok_or("no row")?)
    }

    /// Fails if no command is complete that has this tag.
    fn change(&mut self, messages: &[u8], expected: &[u8]) -> Result<(), Failed> {
        let mut is_done = false;
        self.ask(messages, |tag, body| {
            is_done |= tag == b'C' && body == expected;
            Ok(())
        })?;
        same(is_done, true)
    }

    fn copy(&mut self, message: &mut Vec<u8>) -> Result<(), Failed> {
        message.clear();
        self::message(message, b'Q', &[COPY.as_bytes(), b"\0"].concat());
        self.stream.write_all(message)?;
        self.read_until(b'G', |_, _| Ok(()))?;
        let mut pieces = pieces().peekable();
        while let Some(piece) = pieces.next() {
            message.clear();
            self::message(message, b'd', piece);
            if pieces.peek().is_none() {
                self::message(message, b'c', b"");
            }
            self.stream.write_all(message)?;
        }
        let mut is_done = false;
        self.read_until(b'Z', |tag, body| {
            is_done |= tag == b'C' && body == b"COPY 10000\0";
            Ok(())
        })?;
        same(is_done, true)
    }
}

/// The values of a row.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn of(row: &'a [u8]) -> Self {
        Self(row.get(2..).unwrap_or_default())
    }

    fn next(&mut self) -> Result<Option<&'a [u8]>, Failed> {
        let (length, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.0 = rest;
            return Ok(None);
        };
        let (value, rest) = rest.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        Ok(Some(value))
    }

    fn number(&mut self) -> Result<i32, Failed> {
        let value = self.next()?.ok_or(SHORT)?;
        Ok(i32::from_be_bytes(value.try_into()?))
    }

    fn double(&mut self) -> Result<f64, Failed> {
        let value = self.next()?.ok_or(SHORT)?;
        Ok(f64::from_be_bytes(value.try_into()?))
    }

    fn text(&mut self) -> Result<String, Failed> {
        Ok(self.note()?.ok_or(SHORT)?)
    }

    fn note(&mut self) -> Result<Option<String>, Failed> {
        let value = self.next()?.map(|value| str::from_utf8(value));
        Ok(value.transpose()?.map(String::from))
    }

    fn book(&mut self) -> Result<Book, Failed> {
        Ok((
            self.number()?,
            self.number()?,
            self.text()?,
            self.number()?,
            self.double()?,
            self.note()?,
        ))
    }
}

const SHORT: &str = "a row with too few values";

#[cfg(test)]
mod tests {
    use super::super::operations::{CLEAN, TABLES};
    use super::*;
    use crate::stand_in::{self, SCHEMA};

    #[tokio::test(flavor = "multi_thread")]
    async fn it_does_every_operation_and_tells_a_wrong_answer() {
        let neon = stand_in::start().await;
        for sql in [SCHEMA, TABLES] {
            neon.sql(sql).await.unwrap();
        }
        let mut by_hand = ByHand::connect(&neon.postgres_url()).await.unwrap();
        for operation in Operation::ALL {
            for id in [1, 2000] {
                by_hand.run(operation, id).await.unwrap();
            }
        }
        let counted = "SELECT (SELECT count(*) FROM inserted), (SELECT count(*) FROM copied), \
                       (SELECT sum(pages) FROM books WHERE id IN (1, 2000))";
        let counted = neon.sql(counted).await.unwrap();
        // Two transactions have each added a page to what the update had set.
        let expected = ["22", "20000", "2005"].map(|count| Some(count.to_owned()));
        assert_eq!(counted, [expected]);
        neon.sql(CLEAN).await.unwrap();
        neon.sql("DELETE FROM books WHERE id = 1").await.unwrap();
        for operation in [Operation::LookUp, Operation::Update, Operation::Transaction] {
            assert!(by_hand.run(operation, 1).await.is_err());
        }
        by_hand.run(Operation::LookUp, 2).await.unwrap();
    }
}
