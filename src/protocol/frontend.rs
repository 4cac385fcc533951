//! [`Request`]: the messages to the server that one ReadyForQuery answers.

use super::tag::frontend as tag;

/// A group of messages of the extended protocol, or one simple query.
#[derive(Debug)]
pub(crate) enum Request {
    Extended(Group),
    Simple(String),
    /// A simple query that copies data.
    Copy(String),
}

/// A group of messages of the extended protocol up to its Sync.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// Closes names. Other commands are sent behind it: the server skips what is behind one that fails.
    pub(crate) closes: Messages,
    pub(crate) messages: Messages,
    /// Whether it may change a table, a view or a type.
    pub(crate) may_change_schema: bool,
    /// How many changes were sent before its name was chosen, or the types of its parameters were looked up.
    pub(crate) changes: Option<u64>,
}

impl From<Messages> for Request {
    fn from(messages: Messages) -> Self {
        Self::Extended(Group {
            messages,
            ..Group::default()
        })
    }
}

/// Encoded messages. They are encoded here, and not by postgres-protocol, which takes three times as long for a Bind.
#[derive(Debug, Default)]
pub(crate) struct Messages(Vec<u8>);

/// Why the protocol cannot carry a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsendable {
    /// A zero byte would end the text.
    ZeroByte,
    TooManyBinds(usize),
    TooLong,
}

impl Unsendable {
    pub(crate) fn text(self) -> String {
        match self {
            Self::ZeroByte => "a statement cannot contain a zero byte".to_owned(),
            Self::TooManyBinds(count) => format!(
                "a statement has {count} bind parameters, the protocol allows {}: split it, or bind an array",
                u16::MAX
            ),
            Self::TooLong => "a statement with its bind parameters is longer than 2 GiB".to_owned(),
        }
    }
}

impl Messages {
    /// Reserves room for about `bytes` bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Prepares a statement.
    pub(crate) fn parse(&mut self, name: &str, sql: &str, types: &[u32]) -> Result<(), Unsendable> {
        let count = count(types.len())?;
        self.message(tag::PARSE, |body| {
            text(body, name)?;
            text(body, sql)?;
            body.extend_from_slice(&count);
            for oid in types {
                body.extend_from_slice(&oid.to_be_bytes());
            }
            Ok(())
        })
    }

    /// Binds the unnamed portal; all parameters and columns are binary.
    pub(crate) fn bind(
        &mut self,
        statement: &str,
        binds: &[Option<Vec<u8>>],
    ) -> Result<(), Unsendable> {
        let count = count(binds.len())?;
        self.message(tag::BIND, |body| {
            text(body, "")?;
            text(body, statement)?;
            body.extend_from_slice(&ALL_BINARY);
            body.extend_from_slice(&count);
            for bind in binds {
                let Some(bytes) = bind else {
                    body.extend_from_slice(&NULL);
                    continue;
                };
                let len = i32::try_from(bytes.len()).map_err(|_| Unsendable::TooLong)?;
                body.extend_from_slice(&len.to_be_bytes());
                body.extend_from_slice(bytes);
            }
            body.extend_from_slice(&ALL_BINARY);
            Ok(())
        })
    }

    /// Describes the unnamed portal.
    pub(crate) fn describe(&mut self) {
        self.short(tag::DESCRIBE, b"P\0");
    }

    /// Runs the unnamed portal to its end.
    pub(crate) fn execute(&mut self) {
        self.short(tag::EXECUTE, b"\0\0\0\0\0");
    }

    /// Runs a portal that does not exist.
    pub(crate) fn fail(&mut self) {
        self.short(tag::EXECUTE, b"behind a failed COPY\0\0\0\0\0");
    }

    /// Closes a prepared statement.
    pub(crate) fn close(&mut self, statement: &str) -> Result<(), Unsendable> {
        self.message(tag::CLOSE, |body| {
            body.push(b'S');
            text(body, statement)
        })
    }

    /// Ends a group.
    pub(crate) fn sync(&mut self) {
        self.short(tag::SYNC, b"");
    }

    /// Runs SQL through the simple protocol.
    pub(crate) fn query(&mut self, sql: &str) -> Result<(), Unsendable> {
        self.message(tag::QUERY, |body| text(body, sql))
    }

    /// Ends a COPY with an error.
    pub(crate) fn copy_fail(&mut self, reason: &str) -> Result<(), Unsendable> {
        self.message(tag::COPY_FAIL, |body| text(body, reason))
    }

    /// Begins a message with data of a COPY: so many bytes follow.
    pub(crate) fn begin_copy_data(&mut self, len: usize) -> Result<(), Unsendable> {
        self.0.push(tag::COPY_DATA);
        self.0.extend_from_slice(&length(len)?);
        Ok(())
    }

    /// Ends the data of a COPY.
    pub(crate) fn copy_done(&mut self) {
        self.short(tag::COPY_DONE, b"");
    }

    /// Answers the request for a password in clear.
    #[cfg(feature = "websocket")]
    pub(crate) fn password(&mut self, password: &[u8]) {
        let length = length(password.len().saturating_add(1)).expect("a URL is short");
        self.0.push(tag::PASSWORD);
        self.0.extend_from_slice(&length);
        self.0.extend_from_slice(password);
        self.0.push(0);
    }

    /// Ends the session.
    pub(crate) fn terminate(&mut self) {
        self.short(tag::TERMINATE, b"");
    }

    /// Runs a statement that has no bind parameters, and whose rows are not read.
    pub(crate) fn command(&mut self, sql: &str) -> Result<(), Unsendable> {
        self.parse("", sql, &[])?;
        self.bind("", &[])?;
        self.execute();
        Ok(())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Appends a message whose length is known once its body is written.
    fn message(
        &mut self,
        tag: u8,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Unsendable>,
    ) -> Result<(), Unsendable> {
        self.0.extend_from_slice(&[tag, 0, 0, 0, 0]);
        let start = self.0.len();
        write(&mut self.0)?;
        let length = length(self.0.len() - start)?;
        self.0[start - length.len()..start].copy_from_slice(&length);
        Ok(())
    }

    /// Appends a message with a fixed, short body.
    fn short(&mut self, tag: u8, body: &'static [u8]) {
        self.0.push(tag);
        self.0
            .extend_from_slice(&length(body.len()).expect("the body is short"));
        self.0.extend_from_slice(body);
    }
}

/// Returns the length of a message, which counts itself.
fn length(body: usize) -> Result<[u8; 4], Unsendable> {
    let whole = i32::try_from(body.saturating_add(4)).map_err(|_| Unsendable::TooLong)?;
    Ok(whole.to_be_bytes())
}

/// Returns the count of parameters.
fn count(parameters: usize) -> Result<[u8; 2], Unsendable> {
    let count = u16::try_from(parameters).map_err(|_| Unsendable::TooManyBinds(parameters))?;
    Ok(count.to_be_bytes())
}

/// Writes a text, which a zero byte ends.
fn text(body: &mut Vec<u8>, text: &str) -> Result<(), Unsendable> {
    if text.as_bytes().contains(&0) {
        return Err(Unsendable::ZeroByte);
    }
    body.extend_from_slice(text.as_bytes());
    body.push(0);
    Ok(())
}

/// One format code, which stands for all: binary.
const ALL_BINARY: [u8; 4] = [0, 1, 0, 1];
/// The length of a parameter that is NULL.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

#[cfg(test)]
mod tests {
    use super::super::backend::{Fields, Message, Next};
    use super::*;
    use bytes::BytesMut;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn messages_are_what_the_protocol_says() {
        let mut messages = Messages::default();
        messages.parse("n", "SELECT $1", &[23]).unwrap();
        messages.bind("n", &[Some(vec![0, 0, 0, 7]), None]).unwrap();
        messages.execute();
        messages.sync();
        let expected: &[u8] = b"P\0\0\0\x16n\0SELECT $1\0\0\x01\0\0\0\x17\
            B\0\0\0\x1d\0n\0\0\x01\0\x01\0\x02\0\0\0\x04\0\0\0\x07\xff\xff\xff\xff\0\x01\0\x01\
            E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04";
        assert_eq!(messages.as_bytes(), expected);
    }

    #[test]
    fn what_the_protocol_cannot_carry_is_refused() {
        let mut messages = Messages::default();
        for refused in [
            messages.query("SELECT '\0'"),
            messages.parse("a\0", "SELECT 1", &[]),
            messages.parse("a", "SELECT '\0'", &[]),
            messages.bind("a\0", &[]),
            messages.close("a\0"),
            messages.copy_fail("\0"),
        ] {
            assert_eq!(refused, Err(Unsendable::ZeroByte));
        }
        assert_eq!(
            messages.parse("", "SELECT 1", &vec![0; 65_536]),
            Err(Unsendable::TooManyBinds(65_536))
        );
        let many = vec![None; 65_536];
        assert_eq!(
            messages.bind("", &many),
            Err(Unsendable::TooManyBinds(65_536))
        );
    }

    /// One message, in the terms of [`Messages`].
    #[derive(Clone, Debug)]
    enum Written {
        Parse(String, String, Vec<u32>),
        Bind(String, Vec<Option<Vec<u8>>>),
        Describe,
        Execute,
        Close(String),
        Sync,
        Query(String),
        CopyData(Vec<u8>),
        CopyDone,
        CopyFail(String),
        Terminate,
    }

    impl Written {
        fn write(&self, messages: &mut Messages) {
            match self {
                Self::Parse(name, sql, types) => messages.parse(name, sql, types).unwrap(),
                Self::Bind(name, binds) => messages.bind(name, binds).unwrap(),
                Self::Describe => messages.describe(),
                Self::Execute => messages.execute(),
                Self::Close(name) => messages.close(name).unwrap(),
                Self::Sync => messages.sync(),
                Self::Query(sql) => messages.query(sql).unwrap(),
                Self::CopyData(data) => {
                    messages.begin_copy_data(data.len()).unwrap();
                    messages.0.extend_from_slice(data);
                }
                Self::CopyDone => messages.copy_done(),
                Self::CopyFail(reason) => messages.copy_fail(reason).unwrap(),
                Self::Terminate => messages.terminate(),
            }
        }

        /// Reads it as a server does, to the last byte.
        fn assert_is(&self, message: &Message) {
            let mut body = Fields(&message.body);
            match self {
                Self::Parse(name, sql, types) => {
                    assert_eq!(message.tag, tag::PARSE);
                    assert_eq!((body.text(), body.text()), (Ok(&**name), Ok(&**sql)));
                    assert_eq!(body.u16().map(usize::from), Ok(types.len()));
                    for oid in types {
                        assert_eq!(body.bytes(4), Ok(&oid.to_be_bytes()[..]));
                    }
                }
                Self::Bind(name, binds) => {
                    assert_eq!(message.tag, tag::BIND);
                    assert_eq!((body.text(), body.text()), (Ok(""), Ok(&**name)));
                    assert_eq!((body.u16(), body.u16()), (Ok(1), Ok(1)));
                    assert_eq!(body.u16().map(usize::from), Ok(binds.len()));
                    for bind in binds {
                        let len = usize::try_from(body.i32().unwrap()).ok();
                        let bytes = len.map(|len| body.bytes(len).unwrap());
                        assert_eq!(bytes, bind.as_deref());
                    }
                    assert_eq!((body.u16(), body.u16()), (Ok(1), Ok(1)));
                }
                Self::Close(name) => {
                    assert_eq!(message.tag, tag::CLOSE);
                    assert_eq!((body.bytes(1), body.text()), (Ok(&b"S"[..]), Ok(&**name)));
                }
                Self::Query(text) | Self::CopyFail(text) => {
                    assert!(matches!(message.tag, tag::QUERY | tag::COPY_FAIL));
                    assert_eq!(body.text(), Ok(&**text));
                }
                Self::CopyData(data) => {
                    assert_eq!(message.tag, tag::COPY_DATA);
                    assert_eq!(body.bytes(data.len()), Ok(&**data));
                }
                Self::Describe => {
                    assert_eq!(message.tag, tag::DESCRIBE);
                    assert_eq!(body.bytes(2), Ok(&b"P\0"[..]));
                }
                Self::Execute => {
                    assert_eq!(message.tag, tag::EXECUTE);
                    assert_eq!(body.bytes(5), Ok(&[0; 5][..]));
                }
                Self::Sync => assert_eq!(message.tag, tag::SYNC),
                Self::CopyDone => assert_eq!(message.tag, tag::COPY_DONE),
                Self::Terminate => assert_eq!(message.tag, tag::TERMINATE),
            }
            assert!(body.0.is_empty(), "{self:?} is longer than it says");
        }
    }

    fn written() -> impl Strategy<Value = Written> {
        let text = || "[^\0]{0,40}";
        let bytes = || vec(any::<u8>(), 0..60);
        prop_oneof![
            (text(), text(), vec(any::<u32>(), 0..5)).prop_map(|(n, s, t)| Written::Parse(n, s, t)),
            (text(), vec(proptest::option::of(bytes()), 0..5))
                .prop_map(|(n, b)| Written::Bind(n, b)),
            Just(Written::Describe),
            Just(Written::Execute),
            text().prop_map(Written::Close),
            Just(Written::Sync),
            text().prop_map(Written::Query),
            bytes().prop_map(Written::CopyData),
            Just(Written::CopyDone),
            text().prop_map(Written::CopyFail),
            Just(Written::Terminate),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(all in vec(written(), 0..20)) {
            let mut messages = Messages::default();
            all.iter().for_each(|one| one.write(&mut messages));
            let mut stream = BytesMut::from(messages.as_bytes());
            for one in &all {
                let Ok(Next::Message(message)) = Message::take(&mut stream) else {
                    panic!("{one:?} is missing");
                };
                one.assert_is(&message);
            }
            prop_assert!(stream.is_empty());
        }
    }
}
