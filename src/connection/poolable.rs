//! For the pools that diesel-async knows.

use diesel_async::TransactionManager as _;
use diesel_async::pooled_connection::PoolableConnection;

use super::{Connection, TransactionManager};
use crate::connect::is_in_test_transaction;

/// Lets diesel-async's own manager, `AsyncDieselConnectionManager`, keep it in deadpool, mobc or bb8.
impl PoolableConnection for Connection {
    /// Whether it has ended, has an unread answer, or is in a transaction that is not a test's.
    fn is_broken(&mut self) -> bool {
        self.session.change_hands();
        self.session.look();
        let status = self.session.status();
        let open = status.in_transaction();
        status.has_ended()
            || self.session.is_abandoned()
            || TransactionManager::is_broken_transaction_manager(self)
            || (open && !is_in_test_transaction(self))
    }
}
