//! [`PoolerSupport`]: whether a pool's statements may have names.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use crate::policy::{NamedStatements, Policy};
use crate::url::{DatabaseUrl, Endpoint};

/// What is known of the other side; shared by all of a pool's connections.
#[derive(Debug)]
pub(crate) struct PoolerSupport {
    endpoint: Endpoint,
    capacity: usize,
    answer: AtomicU8,
    /// Part of every name: should a pooler mix statements up after all, a foreign one is not found.
    salt: u64,
    /// How often statements had to become new ones to the pooler.
    generation: AtomicU32,
}

/// Whether statements may have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Names {
    Unknown,
    /// A connection is about to find out.
    Asking,
    Never,
    /// The session is one server's, and statements stay where they are.
    Direct,
    /// The pooler takes them to whichever server runs them.
    Tracked,
}

impl PoolerSupport {
    pub(crate) fn new(url: &DatabaseUrl, policy: &Policy) -> Self {
        let endpoint = url.endpoint();
        let answer = match (policy.named_statements(), endpoint) {
            _ if policy.statement_cache() == 0 => Names::Never,
            (NamedStatements::Never, _) => Names::Never,
            (NamedStatements::Always, Endpoint::Pooled) => Names::Tracked,
            (NamedStatements::Always, Endpoint::Direct) => Names::Direct,
            (NamedStatements::Detect, _) if url.is_direct_by_name() => Names::Direct,
            (NamedStatements::Detect, _) => Names::Unknown,
        };
        Self {
            endpoint,
            capacity: policy.statement_cache(),
            answer: AtomicU8::new(answer as u8),
            salt: fastrand::u64(..),
            generation: AtomicU32::new(0),
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// How many named statements a connection keeps.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn names(&self) -> Names {
        const KNOWN: [Names; 4] = [Names::Asking, Names::Never, Names::Direct, Names::Tracked];
        let answer = self.answer.load(Ordering::Acquire);
        let known = KNOWN.into_iter().find(|names| *names as u8 == answer);
        known.unwrap_or(Names::Unknown)
    }

    /// A name for the `number`th statement of a connection.
    pub(super) fn name(&self, number: u64) -> String {
        match self.names() {
            Names::Direct => format!("d{number}"),
            _ => format!("{}{number}", self.prefix(self.generation())),
        }
    }

    /// Returns what to prepare so that `sql` is planned anew.
    ///
    /// A pooler that tracks statements prepares each text once a server, whoever it is for and however
    /// it is named, and keeps it when it is closed. What makes it another text stands behind the SQL, so that the
    /// positions in errors stay the SQL's own.
    pub(super) fn text<'a>(&self, sql: &'a str) -> Cow<'a, str> {
        match self.generation() {
            0 => sql.into(),
            generation => format!("{sql} /* {generation} */").into(),
        }
    }

    /// The statement of that name is stale, and with it its text.
    pub(super) fn renew(&self, name: &str) {
        let generation = self.generation();
        // Not again for what others have found out already.
        if self.names() == Names::Tracked && name.starts_with(&self.prefix(generation)) {
            let (next, order) = (generation.wrapping_add(1), Ordering::Relaxed);
            let _ = self
                .generation
                .compare_exchange(generation, next, order, order);
        }
    }

    fn generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }

    fn prefix(&self, generation: u32) -> String {
        format!("d{:x}_{generation}_", self.salt)
    }

    /// The right to ask, if nobody has asked yet.
    pub(super) fn ask(&self) -> Option<Probe<'_>> {
        let (unknown, asking) = (Names::Unknown as u8, Names::Asking as u8);
        let order = Ordering::AcqRel;
        let asks = self
            .answer
            .compare_exchange(unknown, asking, order, Ordering::Acquire);
        asks.is_ok().then(|| Probe {
            pooler: self,
            answer: Names::Unknown,
        })
    }

    /// The server does not know a name that it was given, or knows one that the pooler gave up.
    pub(super) fn downgrade(&self) {
        if self.names() == Names::Tracked {
            tracing::warn!(
                "the pooler does not keep track of prepared statements after all: none gets a name any more"
            );
            self.answer.store(Names::Never as u8, Ordering::Release);
        }
    }
}

/// Asks on behalf of a pool; unanswered, the next connection may.
#[derive(Debug)]
pub(super) struct Probe<'a> {
    pooler: &'a PoolerSupport,
    answer: Names,
}

impl Probe<'_> {
    /// A name and a statement that nobody else uses.
    pub(super) fn probe(&self) -> (String, String) {
        let salt = self.pooler.salt;
        (
            format!("p{salt:x}"),
            format!("SELECT 1 /* diesel-neon {salt:x} */"),
        )
    }

    pub(super) fn answer(mut self, names: Names) {
        tracing::debug!(?names, "asked whether statements may have names");
        self.answer = names;
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.pooler
            .answer
            .store(self.answer as u8, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pooler(url: &str, names: NamedStatements) -> PoolerSupport {
        let policy = Policy::builder().named_statements(names).build().unwrap();
        PoolerSupport::new(&DatabaseUrl::parse(url).unwrap(), &policy)
    }

    #[test]
    fn only_neons_direct_endpoints_are_known_by_name() {
        let names = |url: &str| pooler(url, NamedStatements::Detect).names();
        assert_eq!(
            names("postgres://u:p@ep-a-b-1.eu.aws.neon.tech/d"),
            Names::Direct
        );
        assert_eq!(
            names("postgres://u:p@ep-a-b-1-pooler.eu.aws.neon.tech/d"),
            Names::Unknown
        );
        assert_eq!(names("postgres://u:p@127.0.0.1/d"), Names::Unknown);
    }

    #[test]
    fn the_policy_overrides() {
        let pooled = "postgres://u:p@ep-a-b-1-pooler.eu.aws.neon.tech/d";
        assert_eq!(
            pooler(pooled, NamedStatements::Always).names(),
            Names::Tracked
        );
        assert_eq!(pooler(pooled, NamedStatements::Never).names(), Names::Never);
    }

    #[test]
    fn one_asks_and_an_unanswered_question_can_be_asked_again() {
        let pooler = pooler("postgres://u:p@127.0.0.1/d", NamedStatements::Detect);
        let question = pooler.ask().unwrap();
        assert!(pooler.ask().is_none());
        drop(question);
        pooler.ask().unwrap().answer(Names::Tracked);
        assert!(pooler.ask().is_none());
        assert_eq!(pooler.names(), Names::Tracked);
        pooler.downgrade();
        assert_eq!(pooler.names(), Names::Never);
    }

    #[test]
    fn what_has_gone_stale_is_renewed_once_and_behind_a_pooler_only() {
        let url = "postgres://u:p@ep-a-b-1-pooler.eu.aws.neon.tech/d";
        let pooled = pooler(url, NamedStatements::Always);
        let (one, two) = (pooled.name(1), pooled.name(2));
        assert_eq!(pooled.text("SELECT 1"), "SELECT 1");
        pooled.renew(&one);
        pooled.renew(&two);
        assert_eq!(pooled.text("SELECT 1"), "SELECT 1 /* 1 */");
        pooled.renew(&pooled.name(3));
        assert_eq!(pooled.text("SELECT 1"), "SELECT 1 /* 2 */");

        let direct = pooler("postgres://u:p@127.0.0.1/d", NamedStatements::Always);
        direct.renew(&direct.name(1));
        assert_eq!(direct.text("SELECT 1"), "SELECT 1");
    }
}
