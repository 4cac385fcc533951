//! [`StatementCache`]: the statements of a connection that have names.

use std::any::TypeId;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::protocol::Column;
use crate::util::lock;

/// The named statements of a connection, bounded: the least recently used one is evicted first.
#[derive(Debug, Default)]
pub(super) struct StatementCache {
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    disabled: bool,
    named: HashMap<Key, Named>,
    /// Counts the uses of statements.
    clock: u64,
    /// Counts the names given.
    numbers: u64,
    /// The names that the next request closes.
    evicted: Vec<Arc<str>>,
    /// The hashes of statements that have run once without a name, lately.
    seen: VecDeque<u64>,
}

/// Identifies a statement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A type of Diesel's that has one SQL.
    Type(TypeId),
    /// The SQL and the types of its parameters.
    Sql(Arc<str>, Box<[u32]>),
}

struct Named {
    sql: Arc<str>,
    /// Distinguishes the statement from earlier ones with the same key.
    name: Arc<str>,
    state: State,
    /// The value of the clock at the last use.
    used: u64,
}

enum State {
    /// A request that prepares the statement is under way.
    Preparing,
    Ready(Prepared),
}

/// A statement that the server has prepared.
#[derive(Clone)]
pub(super) struct Prepared {
    pub(super) name: Arc<str>,
    /// The columns of its rows; None if they were not described yet.
    pub(super) columns: Option<Arc<[Column]>>,
}

/// How a statement is to run.
pub(super) enum Plan<'a> {
    Unnamed,
    Prepare(Preparing<'a>),
    Named(Prepared),
}

impl Plan<'_> {
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Unnamed => None,
            Self::Prepare(preparing) => Some(&preparing.name),
            Self::Named(prepared) => Some(&prepared.name),
        }
    }
}

impl StatementCache {
    pub(super) fn disable(&self) {
        let mut cache = self.lock();
        cache.disabled = true;
        cache.clear();
    }

    pub(super) fn enable(&self) {
        self.lock().disabled = false;
    }

    /// Returns the SQL of the statement of a type.
    pub(super) fn sql(&self, id: TypeId) -> Option<Arc<str>> {
        let cache = self.lock();
        let named = cache.named.get(&Key::Type(id))?;
        Some(Arc::clone(&named.sql))
    }

    /// Records that a statement runs without a name; returns whether it has lately done so before.
    pub(super) fn record_repeat(&self, sql: &str, oids: &[u32]) -> bool {
        let mut cache = self.lock();
        let hash = cache.named.hasher().hash_one((sql, oids));
        if cache.seen.contains(&hash) {
            return true;
        }
        if cache.seen.len() == MAX_SEEN {
            cache.seen.pop_front();
        }
        cache.seen.push_back(hash);
        false
    }

    /// Returns how a statement is to run. A new one evicts the least recently used one if the cache is full.
    pub(super) fn plan(
        &self,
        key: &Key,
        sql: &Arc<str>,
        capacity: usize,
        name: impl FnOnce(u64) -> String,
    ) -> Plan<'_> {
        let mut cache = self.lock();
        if cache.disabled {
            return Plan::Unnamed;
        }
        cache.clock += 1;
        let clock = cache.clock;
        if let Some(named) = cache.named.get_mut(key) {
            named.used = clock;
            return match &named.state {
                State::Preparing => Plan::Unnamed,
                State::Ready(prepared) => Plan::Named(prepared.clone()),
            };
        }
        if cache.named.len() >= capacity && !cache.make_room() {
            return Plan::Unnamed;
        }
        cache.numbers += 1;
        let name: Arc<str> = name(cache.numbers).into();
        let named = Named {
            sql: Arc::clone(sql),
            name: Arc::clone(&name),
            state: State::Preparing,
            used: clock,
        };
        cache.named.insert(key.clone(), named);
        Plan::Prepare(Preparing {
            statements: self,
            key: key.clone(),
            name,
            is_prepared: false,
        })
    }

    /// Remembers the columns of the statement `name`.
    pub(super) fn describe(&self, key: &Key, name: &str, columns: &Arc<[Column]>) {
        if let Some(named) = self.lock().named(key, name) {
            if let State::Ready(prepared) = &mut named.state {
                prepared.columns = Some(Arc::clone(columns));
            }
        }
    }

    /// Takes the names that the next request is to close.
    pub(super) fn take_evicted(&self) -> Evicted<'_> {
        Evicted {
            names: std::mem::take(&mut self.lock().evicted),
            statements: self,
        }
    }

    /// Notes a command that is complete: DEALLOCATE and DISCARD drop the names, and behind a pooler that tracks
    /// statements, the use of a dropped name ends the session.
    pub(super) fn note_command(&self, tag: &str) {
        if matches!(tag, "DEALLOCATE ALL" | "DISCARD ALL") {
            self.clear();
        }
    }

    /// Evicts all statements.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        lock(&self.cache)
    }
}

/// How many statements without a name are remembered.
const MAX_SEEN: usize = 64;

impl Cache {
    fn named(&mut self, key: &Key, name: &str) -> Option<&mut Named> {
        let named = self.named.get_mut(key);
        named.filter(|named| *named.name == *name)
    }

    /// Evicts the least recently used statement; returns false if all of them are being prepared.
    fn make_room(&mut self) -> bool {
        let ready = self
            .named
            .iter()
            .filter_map(|(key, named)| match named.state {
                State::Preparing => None,
                State::Ready(_) => Some((named.used, key)),
            });
        let Some(key) = ready
            .min_by_key(|(used, _)| *used)
            .map(|(_, key)| key.clone())
        else {
            return false;
        };
        self.evict(&key);
        true
    }

    fn evict(&mut self, key: &Key) {
        if let Some(named) = self.named.remove(key) {
            if let State::Ready(prepared) = named.state {
                self.evicted.push(prepared.name);
            }
        }
    }

    fn clear(&mut self) {
        for (_, named) in self.named.drain() {
            if let State::Ready(prepared) = named.state {
                self.evicted.push(prepared.name);
            }
        }
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
            self.statements.lock().evicted.append(&mut self.names);
        }
    }
}

/// A statement whose preparation is under way. If it is dropped before it is prepared, its name is evicted.
#[derive(Debug)]
pub(super) struct Preparing<'a> {
    statements: &'a StatementCache,
    key: Key,
    name: Arc<str>,
    is_prepared: bool,
}

impl Preparing<'_> {
    /// Notes that the server has prepared the statement.
    pub(super) fn set_prepared(&mut self) {
        self.is_prepared = true;
        let name = Arc::clone(&self.name);
        let mut cache = self.statements.lock();
        match cache.named(&self.key, &name) {
            Some(named) => {
                named.state = State::Ready(Prepared {
                    name,
                    columns: None,
                });
            }
            None => cache.evicted.push(name),
        }
    }
}

impl Drop for Preparing<'_> {
    fn drop(&mut self) {
        if !self.is_prepared {
            let mut cache = self.statements.lock();
            if cache.named(&self.key, &self.name).is_some() {
                cache.named.remove(&self.key);
            }
            // The server may have prepared the statement all the same.
            cache.evicted.push(Arc::clone(&self.name));
        }
    }
}

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named")
            .field("sql", &self.sql)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(sql: &str) -> (Key, Arc<str>) {
        let sql: Arc<str> = sql.into();
        (Key::Sql(Arc::clone(&sql), Box::default()), sql)
    }

    fn prepare(statements: &StatementCache, sql: &str, capacity: usize) {
        let (key, sql) = key(sql);
        match statements.plan(&key, &sql, capacity, |n| format!("d{n}")) {
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

    fn is_named(statements: &StatementCache, sql: &str) -> bool {
        let (key, sql) = key(sql);
        matches!(
            statements.plan(&key, &sql, 9, |n| format!("d{n}")),
            Plan::Named(_)
        )
    }

    #[test]
    fn the_least_recently_used_statement_makes_room() {
        let statements = StatementCache::default();
        prepare(&statements, "a", 2);
        prepare(&statements, "b", 2);
        assert!(is_named(&statements, "a"));
        prepare(&statements, "c", 2);
        assert_eq!(closed(&statements), ["d2".into()]);
        assert!(is_named(&statements, "a") && is_named(&statements, "c"));
        assert!(!is_named(&statements, "b"));
    }

    #[test]
    fn a_dropped_preparation_leaves_only_a_name_to_close() {
        let statements = StatementCache::default();
        let (key, sql) = key("a");
        let plan = statements.plan(&key, &sql, 2, |n| format!("d{n}"));
        let meanwhile = statements.plan(&key, &sql, 2, |n| format!("d{n}"));
        assert!(matches!(meanwhile, Plan::Unnamed));
        drop(plan);
        assert_eq!(closed(&statements), ["d1".into()]);
        prepare(&statements, "a", 2);
        statements.clear();
        assert_eq!(closed(&statements), ["d2".into()]);
    }

    #[test]
    fn a_late_preparation_does_not_touch_its_successor() {
        let statements = StatementCache::default();
        let (key, sql) = key("a");
        let name = |n| format!("d{n}");
        let Plan::Prepare(first) = statements.plan(&key, &sql, 2, name) else {
            panic!("it is new");
        };
        statements.clear();
        prepare(&statements, "a", 2);
        let columns: Arc<[Column]> = Arc::from([]);
        statements.describe(&key, "d1", &columns);
        drop(first);
        let Plan::Named(second) = statements.plan(&key, &sql, 2, name) else {
            panic!("it is named");
        };
        assert_eq!(&*second.name, "d2");
        assert!(second.columns.is_none());
        assert_eq!(closed(&statements), ["d1".into()]);
        statements.describe(&key, "d2", &columns);
        let described = statements.plan(&key, &sql, 2, name);
        assert!(matches!(
            described,
            Plan::Named(Prepared {
                columns: Some(_),
                ..
            })
        ));
    }
}
