//! [`Names`]: the statements of a connection that have names, and which are to get one.

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::mem;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::repeats::{Repeats, may_have_name};
use super::rows::Rows;
use crate::query::Binds;

/// The statements that have names, bounded: the least recently used one is evicted first.
#[derive(Debug, Default)]
pub(super) struct Names {
    is_disabled: bool,
    named: HashMap<Key, Named, FixedState>,
    /// Counts the uses of statements.
    clock: u64,
    /// Counts the names given.
    numbers: u64,
    /// The names that the next request closes.
    evicted: Vec<Arc<str>>,
    repeats: Repeats,
}

/// Identifies a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A type of Diesel's that has one SQL.
    Type(TypeId),
    /// A hash of the SQL and of the types of its parameters.
    Text(u64),
}

/// A statement that is about to run, and may have a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    /// The query's type, if that determines the SQL.
    pub(super) id: Option<TypeId>,
    pub(super) sql: &'a Arc<str>,
    pub(super) binds: &'a Binds,
    /// Whether Diesel caches the statement: it gets a name at once, others when they come again.
    pub(super) cacheable: bool,
    /// How many changes of the schema were sent before the types of the binds were looked up, if they were.
    pub(super) changes: Option<u64>,
}

impl Candidate<'_> {
    pub(super) fn key(&self) -> Key {
        let hash = || FixedState::default().hash_one((&**self.sql, self.binds.oids()));
        self.id.map_or_else(|| Key::Text(hash()), Key::Type)
    }
}

struct Named {
    sql: Arc<str>,
    oids: Box<[u32]>,
    /// Distinguishes the statement from earlier ones with the same key.
    name: Arc<str>,
    state: State,
    /// The value of the clock at the last use.
    used: u64,
}

enum State {
    /// A request that prepares the statement is under way.
    Preparing,
    /// The server has prepared the statement.
    Ready(Rows),
}

/// Whether a statement has a name.
#[derive(Debug)]
pub(super) enum Choice {
    None,
    /// The statement is to be prepared under a new name.
    New(Arc<str>),
    /// The server has prepared the statement under this name.
    Known(Arc<str>, Rows),
}

impl Names {
    /// Stops or allows naming statements.
    pub(super) fn set_disabled(&mut self, is_disabled: bool) {
        self.is_disabled = is_disabled;
        if is_disabled {
            self.clear();
        }
    }

    /// Returns the SQL of the statement of a type.
    pub(super) fn sql(&self, id: TypeId) -> Option<Arc<str>> {
        let named = self.named.get(&Key::Type(id))?;
        Some(Arc::clone(&named.sql))
    }

    /// Chooses a statement's name. A new one evicts the least recently used one if there is no room.
    pub(super) fn choose(
        &mut self,
        key: Key,
        candidate: &Candidate<'_>,
        capacity: usize,
        name: impl FnOnce(u64) -> String,
    ) -> Choice {
        self.clock += 1;
        if let Some(named) = self.named.get_mut(&key) {
            match &named.state {
                State::Ready(rows) if named.is(candidate) => {
                    named.used = self.clock;
                    return Choice::Known(Arc::clone(&named.name), rows.clone());
                }
                // Its types were made anew, and so is the statement.
                State::Ready(_) if candidate.id.is_some() => self.evict(key),
                _ => return Choice::None,
            }
        }
        if !self.note(key, candidate) || self.named.len() >= capacity && !self.make_room() {
            return Choice::None;
        }
        self.numbers += 1;
        let name: Arc<str> = name(self.numbers).into();
        let named = Named {
            sql: Arc::clone(candidate.sql),
            oids: candidate.binds.oids().into(),
            name: Arc::clone(&name),
            state: State::Preparing,
            used: self.clock,
        };
        self.named.insert(key, named);
        Choice::New(name)
    }

    /// Notes a statement that has no name; returns whether it is to get one.
    pub(super) fn note(&mut self, key: Key, candidate: &Candidate<'_>) -> bool {
        match key {
            _ if self.is_disabled => false,
            _ if candidate.cacheable => true,
            Key::Text(hash) => may_have_name(candidate.sql) && self.repeats.record(hash),
            Key::Type(_) => false,
        }
    }

    /// Notes that the server has prepared a statement.
    pub(super) fn set_prepared(&mut self, key: Key, name: &Arc<str>) {
        match self.find(key, name) {
            Some(named) => named.state = State::Ready(Rows::Unknown),
            None => self.evicted.push(Arc::clone(name)),
        }
    }

    /// Notes that a statement may not have been prepared.
    pub(super) fn set_unprepared(&mut self, key: Key, name: &Arc<str>) {
        if self.find(key, name).is_some() {
            self.named.remove(&key);
        }
        // The server may have prepared the statement all the same.
        self.evicted.push(Arc::clone(name));
    }

    /// Remembers the rows of a statement.
    pub(super) fn describe(&mut self, key: Key, name: &str, rows: &Rows) {
        if let Some(Named {
            state: State::Ready(known),
            ..
        }) = self.find(key, name)
        {
            *known = rows.clone();
        }
    }

    /// Evicts all statements.
    pub(super) fn clear(&mut self) {
        for (_, named) in self.named.drain() {
            if let State::Ready(_) = named.state {
                self.evicted.push(named.name);
            }
        }
    }

    /// Takes the names to close, but for those of statements that are yet to be sent.
    pub(super) fn take_evicted(&mut self) -> Vec<Arc<str>> {
        let evicted = mem::take(&mut self.evicted);
        // Until it is answered, a statement's plan has the name too.
        let (free, planned) = evicted
            .into_iter()
            .partition(|name| Arc::strong_count(name) == 1);
        self.evicted = planned;
        free
    }

    /// Takes back names that were not closed.
    pub(super) fn return_evicted(&mut self, mut names: Vec<Arc<str>>) {
        self.evicted.append(&mut names);
    }

    fn find(&mut self, key: Key, name: &str) -> Option<&mut Named> {
        let named = self.named.get_mut(&key);
        named.filter(|named| *named.name == *name)
    }

    /// Evicts the least recently used statement; returns false if all of them are being prepared.
    fn make_room(&mut self) -> bool {
        let is_ready = |named: &Named| matches!(named.state, State::Ready(_));
        let ready = self.named.iter().filter(|(_, named)| is_ready(named));
        let oldest = ready.min_by_key(|(_, named)| named.used);
        let oldest = oldest.map(|(key, _)| *key);
        oldest.inspect(|key| self.evict(*key)).is_some()
    }

    fn evict(&mut self, key: Key) {
        let evicted = self.named.remove(&key);
        self.evicted.extend(evicted.map(|named| named.name));
    }
}

impl Named {
    /// Returns whether this is the candidate: two texts may have one hash, a type has one text. The types of the parameters may
    /// have been made anew.
    fn is(&self, candidate: &Candidate<'_>) -> bool {
        let is_same_text = candidate.id.is_some() || *self.sql == **candidate.sql;
        is_same_text && *self.oids == *candidate.binds.oids()
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

    #[test]
    fn two_texts_with_one_hash_are_two_statements() {
        let mut names = Names::default();
        let candidate = |sql, binds| Candidate {
            id: None,
            sql,
            binds,
            cacheable: true,
            changes: None,
        };
        let (one, other): (Arc<str>, Arc<str>) = ("SELECT 1".into(), "SELECT 2".into());
        let (int4, int8) = (Binds::of_types(&[23]), Binds::of_types(&[20]));
        let one = candidate(&one, &int4);
        let key = one.key();
        let mut is_known = |candidate: &Candidate<'_>| {
            let choice = names.choose(key, candidate, 2, |n| format!("d{n}"));
            if let Choice::New(name) = &choice {
                names.set_prepared(key, name);
            }
            matches!(choice, Choice::Known(..))
        };
        assert!(!is_known(&one));
        assert!(is_known(&one));
        assert!(!is_known(&candidate(&other, &int4)));
        assert!(!is_known(&candidate(one.sql, &int8)));
        assert!(is_known(&one));
    }
}
