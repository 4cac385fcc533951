//! The status of a session that is in use before its login is answered.

use std::sync::atomic::Ordering;

use super::SessionStatus;
use crate::protocol::tag::{self, status};
use crate::util::lock;

impl SessionStatus {
    /// Returns whether the login is under way.
    pub(crate) fn is_logging_in(&self) -> bool {
        self.responses() == 0
    }

    /// Returns whether the answer to a login that is under way is all that the server owes.
    pub(crate) fn owes_login_alone(&self) -> bool {
        // The startup message is the first request.
        self.is_logging_in() && self.requests() <= 1
    }

    /// Waits until the login has ended, which has a bound of its own. Only one may wait, here or in
    /// [`until_settled`](Self::until_settled).
    pub(crate) async fn until_logged_in(&self) {
        self.until(|status| !status.is_logging_in()).await;
    }

    /// Takes over what the login has shown, which has succeeded with a status of its own.
    pub(in super::super) fn adopt(&self, login: &Self) {
        self.trace_login(login.login());
        let pid = login.backend_pid();
        self.backend_pid.store(pid, Ordering::Release);
        *lock(&self.parameters) = lock(&login.parameters).clone();
        self.mark_activity();
        self.received(tag::READY_FOR_QUERY, &[status::IDLE]);
    }
}
