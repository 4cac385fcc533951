//! The type bytes of messages and of the fields of an error.

/// What clients send.
pub(crate) mod frontend {
    pub(crate) const BIND: u8 = b'B';
    pub(crate) const CLOSE: u8 = b'C';
    pub(crate) const COPY_DONE: u8 = b'c';
    pub(crate) const COPY_FAIL: u8 = b'f';
    pub(crate) const DESCRIBE: u8 = b'D';
    pub(crate) const EXECUTE: u8 = b'E';
    pub(crate) const FLUSH: u8 = b'H';
    pub(crate) const FUNCTION_CALL: u8 = b'F';
    pub(crate) const PARSE: u8 = b'P';
    /// A PasswordMessage, SASLInitialResponse or SASLResponse.
    pub(crate) const PASSWORD: u8 = b'p';
    pub(crate) const QUERY: u8 = b'Q';
    pub(crate) const SYNC: u8 = b'S';
    pub(crate) const TERMINATE: u8 = b'X';
}

/// What servers send.
pub(crate) mod backend {
    pub(crate) const AUTHENTICATION: u8 = b'R';
    pub(crate) const BACKEND_KEY_DATA: u8 = b'K';
    pub(crate) const COMMAND_COMPLETE: u8 = b'C';
    pub(crate) const COPY_BOTH_RESPONSE: u8 = b'W';
    pub(crate) const COPY_IN_RESPONSE: u8 = b'G';
    pub(crate) const COPY_OUT_RESPONSE: u8 = b'H';
    pub(crate) const DATA_ROW: u8 = b'D';
    pub(crate) const ERROR_RESPONSE: u8 = b'E';
    pub(crate) const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub(crate) const NOTICE_RESPONSE: u8 = b'N';
    pub(crate) const PARAMETER_STATUS: u8 = b'S';
    pub(crate) const READY_FOR_QUERY: u8 = b'Z';
    pub(crate) const ROW_DESCRIPTION: u8 = b'T';

    /// The transaction status of a ReadyForQuery outside of a transaction.
    pub(crate) const IDLE: u8 = b'I';
}

/// The fields of an ErrorResponse.
pub(crate) mod field {
    pub(crate) const SEVERITY: u8 = b'S';
    /// The severity in English.
    pub(crate) const SEVERITY_CODE: u8 = b'V';
    pub(crate) const SQLSTATE: u8 = b'C';
    pub(crate) const MESSAGE: u8 = b'M';
    pub(crate) const FILE: u8 = b'F';
    pub(crate) const LINE: u8 = b'L';
    pub(crate) const ROUTINE: u8 = b'R';
}

/// The kinds of authentication messages.
pub(crate) mod authentication {
    pub(crate) const OK: u32 = 0;
    pub(crate) const CLEARTEXT_PASSWORD: u32 = 3;
    pub(crate) const SASL: u32 = 10;
    pub(crate) const SASL_CONTINUE: u32 = 11;
    pub(crate) const SASL_FINAL: u32 = 12;
}

/// What a server answers to a request for encryption.
pub(crate) const ENCRYPTED: u8 = b'S';
/// What a server answers to a request for encryption that it does not grant.
pub(crate) const NOT_ENCRYPTED: u8 = b'N';
