//! [`Rows`]: what is known of a statement's rows.

use std::sync::Arc;

use crate::protocol::Columns;

/// What is known of a statement's rows.
#[derive(Clone, Debug)]
pub(super) enum Rows {
    /// The server has not described them.
    Unknown,
    /// The statement returns none.
    None,
    Columns(Arc<Columns>),
}

impl Rows {
    pub(super) fn columns(self) -> Arc<Columns> {
        match self {
            Self::Unknown | Self::None => Arc::default(),
            Self::Columns(columns) => columns,
        }
    }

    /// Returns whether the server has described the same rows, and not only equal ones.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Columns(one), Self::Columns(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}
