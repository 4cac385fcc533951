//! [`SchemaChanges`]: what a session changes of the tables, views and types that plans depend on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::protocol::{Group, Request};

/// Tells whether plans and types may be kept: not while a change is open, which the server may yet undo; and none of before it
/// once it is settled, whether it was committed or not.
#[derive(Debug, Default)]
pub(crate) struct SchemaChanges {
    /// Counts the requests that were sent and may make a change.
    sent: AtomicU64,
    /// The number of the last of them, or 0 if all are answered.
    unanswered: AtomicU64,
    /// Whether the open transaction has made a change.
    is_open: AtomicBool,
    /// Whether that makes plans of before it fail.
    outdates_plans: AtomicBool,
    /// Counts the settled changes that make plans of before them fail.
    version: AtomicU64,
}

impl SchemaChanges {
    /// Returns what identifies the schema, as far as this session has changed it; none while a change is open.
    pub(crate) fn version(&self) -> Option<u64> {
        let is_settled =
            self.unanswered.load(Ordering::Acquire) == 0 && !self.is_open.load(Ordering::Acquire);
        is_settled.then(|| self.version.load(Ordering::Acquire))
    }

    /// Returns how many requests were sent that may make a change.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// Returns whether a request has a name or types of before a change that was sent meanwhile.
    pub(super) fn outdates(&self, request: &Request) -> bool {
        match request {
            Request::Extended(Group { changes, .. }) => changes.is_some_and(|of| of != self.sent()),
            Request::Simple(_) | Request::Copy(_) => false,
        }
    }

    /// Notes that the request of this number is sent, and may make a change.
    pub(super) fn note_sent(&self, request: u64) {
        // Whoever counts it finds it unanswered.
        self.unanswered.store(request, Ordering::Release);
        self.sent.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes a command that is complete.
    ///
    /// A change that only adds to the schema outdates no plan: each goes on to mean the tables that it was made for.
    pub(super) fn note_command(&self, tag: &[u8]) {
        let is = |verb: &&str| tag.starts_with(verb.as_bytes());
        // The first letter rules out nearly every command.
        if !matches!(tag, [b'A' | b'C' | b'D', ..]) {
            return;
        }
        if is(&"DEALLOCATE ALL") {
            // No transaction undoes it.
            self.version.fetch_add(1, Ordering::AcqRel);
        } else if CHANGES.iter().any(is) {
            if OUTDATING.iter().any(is) {
                self.outdates_plans.store(true, Ordering::Release);
            }
            self.is_open.store(true, Ordering::Release);
        }
    }

    /// Notes that the response of this number is complete, and whether a transaction is open behind it.
    pub(super) fn note_response(&self, response: u64, is_idle: bool) {
        if is_idle && self.is_open.load(Ordering::Acquire) {
            if self.outdates_plans.swap(false, Ordering::AcqRel) {
                self.version.fetch_add(1, Ordering::AcqRel);
            }
            self.is_open.store(false, Ordering::Release);
        }
        let unanswered = self.unanswered.load(Ordering::Acquire);
        if unanswered != 0 && response >= unanswered {
            self.unanswered.store(0, Ordering::Release);
        }
    }
}

/// How the tags begin of commands that make changes.
const CHANGES: [&str; 4] = ["ALTER ", "CREATE ", "DROP ", "DISCARD "];
/// Those behind which plans of before fail, or names are not known.
const OUTDATING: [&str; 4] = ["ALTER ", "CREATE VIEW", "DROP ", "DISCARD "];

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_change_is_open_until_the_end_of_its_transaction() {
        let changes = SchemaChanges::default();
        assert_eq!(changes.version(), Some(0));
        changes.note_sent(3);
        // The response to a statement in front of it.
        changes.note_response(2, true);
        assert_eq!(changes.version(), None);
        changes.note_command(b"ALTER TABLE\0");
        changes.note_response(3, false);
        assert_eq!(changes.version(), None);
        changes.note_response(5, true);
        assert_eq!(changes.version(), Some(1));
    }

    #[test]
    fn who_counts_a_change_finds_it_unanswered() {
        const CHANGES: u64 = 1_000_000;
        let (changes, answered) = (SchemaChanges::default(), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                for request in 1..=CHANGES {
                    changes.note_sent(request);
                    answered.store(request, Ordering::Release);
                    changes.note_response(request, true);
                }
            });
            loop {
                let sent = changes.sent();
                if changes.version().is_some() {
                    assert!(answered.load(Ordering::Acquire) >= sent);
                }
                if sent == CHANGES {
                    break;
                }
            }
        });
    }

    #[test]
    fn what_has_failed_is_no_change() {
        let changes = SchemaChanges::default();
        changes.note_sent(3);
        changes.note_response(3, false);
        assert_eq!(changes.version(), Some(0));
    }

    #[test]
    fn what_changes_no_plan_changes_no_version() {
        let changes = SchemaChanges::default();
        for (tag, version) in [
            ("SELECT 1", 0),
            ("CREATE TABLE", 0),
            ("DELETE 1", 0),
            ("DROP TYPE", 1),
            ("DEALLOCATE ALL", 2),
        ] {
            changes.note_command(tag.as_bytes());
            changes.note_response(3, true);
            assert_eq!(changes.version(), Some(version), "{tag}");
        }
    }
}
