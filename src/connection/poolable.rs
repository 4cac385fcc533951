//! For the pools that diesel-async knows.

use diesel_async::TransactionManager as _;
use diesel_async::pooled_connection::PoolableConnection;

use super::{Connection, TransactionManager};
use crate::manager::is_in_test_transaction;

/// Lets diesel-async's own manager, `AsyncDieselConnectionManager`, keep it in deadpool, mobc or bb8.
impl PoolableConnection for Connection {
    /// Whether it has ended, has an unread answer, or is in a transaction that is not a test's.
    fn is_broken(&mut self) -> bool {
        self.link.change_hands();
        self.link.look();
        let observed = self.link.observed();
        let open = observed.in_transaction();
        observed.has_ended()
            || self.link.is_abandoned()
            || TransactionManager::is_broken_transaction_manager(self)
            || (open && !is_in_test_transaction(self))
    }
}
