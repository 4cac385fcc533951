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
