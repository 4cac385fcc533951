//! Lets the pools that diesel-async supports keep a [`Connection`].

use diesel_async::TransactionManager as _;
use diesel_async::pooled_connection::PoolableConnection;

use super::{Connection, TransactionManager};
use crate::connect::is_in_test_transaction;

#[cfg(feature = "r2d2")]
impl Connection {
    /// Returns whether the session has ended, as far as is known.
    pub(crate) fn has_ended(&self) -> bool {
        self.session.status().has_ended()
    }
}

/// Lets diesel-async's own manager, `AsyncDieselConnectionManager`, keep a connection in deadpool, mobc or bb8.
impl PoolableConnection for Connection {
    /// Returns whether the session has ended, an abandoned response is outstanding, or a transaction is open that
    /// `begin_test_transaction` has not begun. Voids the connection's cancel tokens: the pool asks when it is given back.
    fn is_broken(&mut self) -> bool {
        self.session.change_holder();
        self.session.read_available();
        let status = self.session.status();
        let is_open = status.in_transaction();
        status.has_ended()
            || self.session.is_abandoned()
            || TransactionManager::is_broken_transaction_manager(self)
            || (is_open && !is_in_test_transaction(self))
    }
}
