//! [`StatementCache`]: how the statements of a connection run, with names or without.

use std::any::TypeId;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Mutex, MutexGuard};

use super::names::{Candidate, Choice, Key, Names};
use super::rows::Rows;
use crate::util::lock;

/// The statements of a connection that have names.
#[derive(Debug, Default)]
pub(super) struct StatementCache {
    names: Mutex<Names>,
    /// The version of the schema that they are of.
    schema: AtomicU64,
}

/// How a statement is to run.
#[derive(Debug)]
pub(super) enum Plan<'a> {
    Unnamed,
    Prepare(Preparing<'a>),
    Named(Prepared),
}

/// A statement that the server has prepared.
#[derive(Debug)]
pub(super) struct Prepared {
    key: Key,
    name: Arc<str>,
    rows: Rows,
    changes: u64,
}

impl Plan<'_> {
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Unnamed => None,
            Self::Prepare(preparing) => Some(&preparing.name),
            Self::Named(prepared) => Some(&prepared.name),
        }
    }

    /// Returns how many changes of the schema were sent before the name was chosen.
    pub(super) fn changes(&self) -> Option<u64> {
        match self {
            Self::Unnamed => None,
            Self::Prepare(preparing) => Some(preparing.changes),
            Self::Named(prepared) => Some(prepared.changes),
        }
    }

    /// Returns what is known of the statement's rows.
    pub(super) fn rows(&self) -> &Rows {
        match self {
            Self::Named(prepared) => &prepared.rows,
            _ => &Rows::Unknown,
        }
    }
}

impl StatementCache {
    pub(super) fn disable(&self) {
        self.lock().set_disabled(true);
    }

    pub(super) fn enable(&self) {
        self.lock().set_disabled(false);
    }

    /// Returns the SQL of the statement of a type.
    pub(super) fn sql(&self, id: TypeId) -> Option<Arc<str>> {
        self.lock().sql(id)
    }

    /// Returns how a statement is to run. A new one evicts the least recently used one if the cache is full.
    pub(super) fn plan(
        &self,
        candidate: &Candidate<'_>,
        capacity: usize,
        changes: u64,
        name: impl FnOnce(u64) -> String,
    ) -> Plan<'_> {
        let key = candidate.key();
        match self.lock().choose(key, candidate, capacity, name) {
            Choice::None => Plan::Unnamed,
            Choice::Known(name, rows) => Plan::Named(Prepared {
                key,
                name,
                rows,
                changes,
            }),
            Choice::New(name) => Plan::Prepare(Preparing {
                statements: self,
                key,
                name,
                changes,
                is_prepared: false,
            }),
        }
    }

    /// Notes a statement that runs while it is unknown whether it may have a name.
    pub(super) fn note(&self, candidate: &Candidate<'_>) {
        self.lock().note(candidate.key(), candidate);
    }

    /// Remembers the rows of the statement that has run by `plan`.
    pub(super) fn describe(&self, plan: &Plan<'_>, rows: &Rows) {
        let (key, name) = match plan {
            Plan::Unnamed => return,
            Plan::Named(prepared) if prepared.rows.is_same(rows) => return,
            Plan::Named(prepared) => (prepared.key, &prepared.name),
            Plan::Prepare(preparing) => (preparing.key, &preparing.name),
        };
        self.lock().describe(key, name, rows);
    }

    /// Takes the names that the next request is to close.
    pub(super) fn take_evicted(&self) -> Evicted<'_> {
        Evicted {
            names: self.lock().take_evicted(),
            statements: self,
        }
    }

    /// Evicts all statements that are of another version of the schema than this; returns whether it has.
    pub(super) fn keep_up_with(&self, schema: u64) -> bool {
        if self.schema.load(Acquire) == schema {
            return false;
        }
        let mut names = self.lock();
        names.clear();
        // Whoever sees it finds none of the names.
        self.schema.store(schema, Release);
        true
    }

    /// Evicts all statements.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        lock(&self.names)
    }
}

/// The names that a request is to close. If they are dropped before the request is sent, the next request closes them.
#[derive(Debug)]
pub(super) struct Evicted<'a> {
    statements: &'a StatementCache,
    names: Vec<Arc<str>>,
}

impl Evicted<'_> {
    pub(super) fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// Notes that the request is sent.
    pub(super) fn set_closed(mut self) {
        self.names.clear();
    }
}

impl Drop for Evicted<'_> {
    fn drop(&mut self) {
        if !self.names.is_empty() {
            let names = std::mem::take(&mut self.names);
            self.statements.lock().return_evicted(names);
        }
    }
}

/// A statement whose preparation is under way. If it is dropped before it is prepared, its name is evicted.
#[derive(Debug)]
pub(super) struct Preparing<'a> {
    statements: &'a StatementCache,
    key: Key,
    name: Arc<str>,
    changes: u64,
    is_prepared: bool,
}

impl Preparing<'_> {
    /// Notes that the server has prepared the statement.
    pub(super) fn set_prepared(&mut self) {
        self.is_prepared = true;
        self.statements.lock().set_prepared(self.key, &self.name);
    }
}

impl Drop for Preparing<'_> {
    fn drop(&mut self) {
        if !self.is_prepared {
            self.statements.lock().set_unprepared(self.key, &self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Binds;

    fn plan<'a>(statements: &'a StatementCache, sql: &str, cacheable: bool) -> Plan<'a> {
        let candidate = Candidate {
            id: None,
            sql: &sql.into(),
            binds: &Binds::default(),
            cacheable,
            changes: None,
        };
        statements.plan(&candidate, 2, 0, |n| format!("d{n}"))
    }

    fn prepare(statements: &StatementCache, sql: &str) {
        match plan(statements, sql, true) {
            Plan::Prepare(mut preparing) => preparing.set_prepared(),
            _ => panic!("{sql} is known"),
        }
    }

    fn closed(statements: &StatementCache) -> Vec<Arc<str>> {
        // A request that is not sent closes nothing.
        drop(statements.take_evicted());
        let evicted = statements.take_evicted();
        let names = evicted.names().to_vec();
        evicted.set_closed();
        names
    }

    #[test]
    fn the_least_recently_used_statement_makes_room() {
        let statements = StatementCache::default();
        prepare(&statements, "a");
        prepare(&statements, "b");
        let is_named = |sql| matches!(plan(&statements, sql, false), Plan::Named(_));
        assert!(is_named("a"));
        prepare(&statements, "c");
        assert_eq!(closed(&statements), ["d2".into()]);
        assert!(is_named("a") && is_named("c"));
        assert!(!is_named("b"));
    }

    #[test]
    fn a_statement_that_diesel_does_not_cache_is_prepared_when_it_comes_again() {
        let statements = StatementCache::default();
        let is_prepared = |sql| match plan(&statements, sql, false) {
            Plan::Prepare(mut preparing) => {
                preparing.set_prepared();
                true
            }
            _ => false,
        };
        assert!(!is_prepared("SELECT 1"));
        assert!(!is_prepared("SELECT 2"));
        assert!(is_prepared("SELECT 1"));
        assert!(!is_prepared("SELECT 1"), "it has a name");
        assert!(matches!(
            plan(&statements, "SELECT 1", false),
            Plan::Named(_)
        ));
        // Without a name again, it is to come twice again.
        statements.clear();
        assert!(!is_prepared("SELECT 1"));
        assert!(is_prepared("SELECT 1"));
        // A transaction's end is nothing to plan.
        assert!(!is_prepared("COMMIT") && !is_prepared("COMMIT"));
    }

    #[test]
    fn a_dropped_preparation_leaves_only_a_name_to_close() {
        let statements = StatementCache::default();
        let first = plan(&statements, "a", true);
        assert!(matches!(plan(&statements, "a", true), Plan::Unnamed));
        drop(first);
        assert_eq!(closed(&statements), ["d1".into()]);
        prepare(&statements, "a");
        statements.clear();
        assert_eq!(closed(&statements), ["d2".into()]);
    }

    #[test]
    fn a_late_preparation_does_not_touch_its_successor() {
        let statements = StatementCache::default();
        let first = plan(&statements, "a", true);
        statements.clear();
        prepare(&statements, "a");
        statements.describe(&first, &Rows::None);
        drop(first);
        let second = plan(&statements, "a", true);
        assert_eq!(second.name(), Some("d2"));
        assert!(matches!(second.rows(), Rows::Unknown));
        assert_eq!(closed(&statements), ["d1".into()]);
        statements.describe(&second, &Rows::None);
        assert!(matches!(plan(&statements, "a", true).rows(), Rows::None));
    }
}
