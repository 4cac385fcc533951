//! [`StatementCache`]: the statements that a connection has named.

use std::any::TypeId;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::protocol::Column;

/// Bounded; what was not used for longest goes first.
#[derive(Debug, Default)]
pub(super) struct StatementCache {
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    disabled: bool,
    named: HashMap<Key, Named>,
    /// Counts uses.
    clock: u64,
    /// Counts names.
    numbers: u64,
    /// Names that the server may forget.
    retired: Vec<Arc<str>>,
    /// Hashes of statements that came lately and may come again.
    seen: VecDeque<u64>,
}

/// What makes two statements one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Diesel's name for it: one type, one SQL.
    Type(TypeId),
    Sql(Arc<str>, Box<[u32]>),
}

struct Named {
    sql: Arc<str>,
    /// Tells it from one before it with the same key.
    name: Arc<str>,
    state: State,
    used: u64,
}

enum State {
    /// Somebody waits for the server to take it in.
    Preparing,
    Ready(Prepared),
}

/// A statement that the server knows.
#[derive(Clone)]
pub(super) struct Prepared {
    pub(super) name: Arc<str>,
    /// None where it has not been described yet.
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

    /// The SQL of a statement of that type.
    pub(super) fn sql(&self, id: TypeId) -> Option<Arc<str>> {
        let cache = self.lock();
        let named = cache.named.get(&Key::Type(id))?;
        Some(Arc::clone(&named.sql))
    }

    /// Whether a statement has come before, of late.
    pub(super) fn comes_again(&self, sql: &str, oids: &[u32]) -> bool {
        let mut cache = self.lock();
        let hash = cache.named.hasher().hash_one((sql, oids));
        if cache.seen.contains(&hash) {
            return true;
        }
        if cache.seen.len() == SEEN {
            cache.seen.pop_front();
        }
        cache.seen.push_back(hash);
        false
    }

    /// How a statement is to run; a new one takes the place of an old one.
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
            done: false,
        })
    }

    /// Remembers what the rows of the statement of that name are made of.
    pub(super) fn describe(&self, key: &Key, name: &str, columns: &Arc<[Column]>) {
        if let Some(named) = self.lock().named(key, name) {
            if let State::Ready(prepared) = &mut named.state {
                prepared.columns = Some(Arc::clone(columns));
            }
        }
    }

    /// Names to close with the next request.
    pub(super) fn retired(&self) -> Evicted<'_> {
        Evicted {
            names: std::mem::take(&mut self.lock().retired),
            statements: self,
        }
    }

    /// Takes note of a command that is complete: it may have taken the names away, and behind a pooler that tracks
    /// them, using one that is gone ends the session.
    pub(super) fn completed(&self, tag: &str) {
        if matches!(tag, "DEALLOCATE ALL" | "DISCARD ALL") {
            self.clear();
        }
    }

    /// The server's statements are not what they were.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many statements are remembered that have come once.
const SEEN: usize = 64;

impl Cache {
    fn named(&mut self, key: &Key, name: &str) -> Option<&mut Named> {
        let named = self.named.get_mut(key);
        named.filter(|named| *named.name == *name)
    }

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
        self.retire(&key);
        true
    }

    fn retire(&mut self, key: &Key) {
        if let Some(named) = self.named.remove(key) {
            if let State::Ready(prepared) = named.state {
                self.retired.push(prepared.name);
            }
        }
    }

    fn clear(&mut self) {
        for (_, named) in self.named.drain() {
            if let State::Ready(prepared) = named.state {
                self.retired.push(prepared.name);
            }
        }
    }
}

/// Names that a request is to close; one that is not sent gives them back.
#[derive(Debug)]
pub(super) struct Evicted<'a> {
    statements: &'a StatementCache,
    names: Vec<Arc<str>>,
}

impl Evicted<'_> {
    pub(super) fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// The request is sent.
    pub(super) fn closed(mut self) {
        self.names.clear();
    }
}

impl Drop for Evicted<'_> {
    fn drop(&mut self) {
        if !self.names.is_empty() {
            self.statements.lock().retired.append(&mut self.names);
        }
    }
}

/// A statement on its way to the server.
#[derive(Debug)]
pub(super) struct Preparing<'a> {
    statements: &'a StatementCache,
    key: Key,
    name: Arc<str>,
    done: bool,
}

impl Preparing<'_> {
    /// The server has taken it in.
    pub(super) fn prepared(&mut self) {
        self.done = true;
        let name = Arc::clone(&self.name);
        let mut cache = self.statements.lock();
        match cache.named(&self.key, &name) {
            Some(named) => {
                named.state = State::Ready(Prepared {
                    name,
                    columns: None,
                });
            }
            None => cache.retired.push(name),
        }
    }
}

impl Drop for Preparing<'_> {
    fn drop(&mut self) {
        if !self.done {
            let mut cache = self.statements.lock();
            if cache.named(&self.key, &self.name).is_some() {
                cache.named.remove(&self.key);
            }
            // It may have arrived for all that.
            cache.retired.push(Arc::clone(&self.name));
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
            Plan::Prepare(mut preparing) => preparing.prepared(),
            _ => panic!("{sql} is known"),
        }
    }

    fn closed(statements: &StatementCache) -> Vec<Arc<str>> {
        // One that is not sent closes nothing.
        drop(statements.retired());
        let retired = statements.retired();
        let names = retired.names().to_vec();
        retired.closed();
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
    fn what_was_not_used_for_longest_makes_room() {
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
    fn a_preparation_that_is_given_up_leaves_only_a_name_to_close() {
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
    fn what_comes_late_does_not_touch_what_has_taken_its_place() {
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
