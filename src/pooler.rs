//! [`PoolerSupport`]: whether the statements of a pool may have names.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use foldhash::fast::FixedState;

use crate::policy::{NamedStatements, Policy};
use crate::session::Pipelining;
use crate::url::{DatabaseUrl, Endpoint};

/// What the server, or the pooler in front of it, supports; shared by all connections of a pool.
#[derive(Debug)]
pub(crate) struct PoolerSupport {
    endpoint: Endpoint,
    capacity: usize,
    /// Whether there is but one server: Neon's endpoints have one compute.
    has_one_server: bool,
    /// Whether each session is known to stay with one server, whatever number a proxy invents for it.
    is_direct_by_name: bool,
    /// A [`Support`].
    support: AtomicU8,
    pipelining: Arc<Pipelining>,
    /// Part of every name, so that a pooler that mixes clients up does not find another client's statement.
    salt: u64,
    /// Counts how often the statements had to become new ones to the pooler.
    generation: AtomicU32,
}

/// Where named statements are supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Support {
    Unknown,
    /// A connection is finding out.
    Probing,
    /// No statement may have a name.
    Unnamed,
    /// The session stays with one server, and so do its statements.
    Direct,
    /// The pooler prepares a statement on each server that runs it.
    Tracked,
}

impl PoolerSupport {
    pub(crate) fn new(url: &DatabaseUrl, policy: &Policy) -> Self {
        let endpoint = url.endpoint();
        let support = match (policy.named_statements(), endpoint) {
            _ if policy.statement_cache() == 0 => Support::Unnamed,
            (NamedStatements::Never, _) => Support::Unnamed,
            (NamedStatements::Always, Endpoint::Pooled) => Support::Tracked,
            (NamedStatements::Always, Endpoint::Direct) => Support::Direct,
            (NamedStatements::Detect, _) if url.is_direct_by_name() => Support::Direct,
            (NamedStatements::Detect, _) => Support::Unknown,
        };
        let pooler = Self {
            endpoint,
            capacity: policy.statement_cache(),
            has_one_server: url.is_direct_by_name() && url.hosts().len() == 1,
            is_direct_by_name: url.is_direct_by_name(),
            support: AtomicU8::new(support as u8),
            pipelining: Arc::default(),
            salt: fastrand::u64(..),
            generation: AtomicU32::new(0),
        };
        pooler.set(support);
        pooler
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Returns whether every session is one with the same server, which may begin anew.
    pub(crate) fn has_one_server(&self) -> bool {
        self.has_one_server
    }

    /// Returns whether each session is known to stay with one server.
    pub(crate) fn is_direct_by_name(&self) -> bool {
        self.is_direct_by_name
    }

    /// Returns how many named statements a connection may keep.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn support(&self) -> Support {
        const KNOWN: [Support; 4] = [
            Support::Probing,
            Support::Unnamed,
            Support::Direct,
            Support::Tracked,
        ];
        let stored = self.support.load(Ordering::Acquire);
        let known = KNOWN.into_iter().find(|known| *known as u8 == stored);
        known.unwrap_or(Support::Unknown)
    }

    /// Returns how much the sessions may send behind a request that is unanswered.
    pub(super) fn pipelining(&self) -> Arc<Pipelining> {
        Arc::clone(&self.pipelining)
    }

    fn set(&self, support: Support) {
        self.pipelining.set_keeps_server(match support {
            _ if self.is_direct_by_name => Some(true),
            Support::Direct | Support::Tracked => Some(true),
            Support::Unnamed => Some(false),
            Support::Unknown | Support::Probing => None,
        });
        self.support.store(support as u8, Ordering::Release);
    }

    /// Returns the name of the `number`th statement of a connection. No two statements of a pool share one: if the pooler ceased
    /// to track them, one would run as the other.
    pub(super) fn name(&self, number: u64, sql: &str, oids: &[u32]) -> String {
        match self.support() {
            Support::Direct => format!("d{number}"),
            _ => {
                let hash = FixedState::with_seed(self.salt).hash_one((sql, oids));
                format!("{}{hash:x}_{number}", self.prefix(self.generation()))
            }
        }
    }

    /// Returns the text to prepare so that `sql` is planned anew.
    ///
    /// A pooler that tracks statements prepares each text once on each server, for all clients and names, and keeps it
    /// when it is closed. The text is made a new one behind the SQL, so that the positions in errors stay those of the
    /// SQL.
    pub(super) fn text<'a>(&self, sql: &'a str) -> Cow<'a, str> {
        match self.generation() {
            0 => sql.into(),
            generation => format!("{sql} /* {generation} */").into(),
        }
    }

    /// Makes the texts new ones to the pooler: a connection has changed the schema.
    pub(super) fn renew(&self) {
        if self.support() == Support::Tracked {
            self.generation.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// As [`renew`](Self::renew), because the statement `name` has a stale plan.
    pub(super) fn renew_stale(&self, name: &str) {
        let generation = self.generation();
        // A name of an earlier generation was renewed by another connection.
        if self.support() == Support::Tracked && name.starts_with(&self.prefix(generation)) {
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

    /// Begins a probe, unless another connection has.
    pub(super) fn probe(&self) -> Option<Probe<'_>> {
        let (unknown, probing) = (Support::Unknown as u8, Support::Probing as u8);
        let order = Ordering::AcqRel;
        let begun = self
            .support
            .compare_exchange(unknown, probing, order, Ordering::Acquire);
        begun.is_ok().then(|| Probe {
            pooler: self,
            result: Support::Unknown,
        })
    }

    /// Gives up named statements: the pooler has lost one, or has kept one that was closed.
    pub(super) fn downgrade(&self) {
        if self.support() == Support::Tracked {
            tracing::warn!(
                "the pooler does not track prepared statements reliably: statements have no names from now on"
            );
            self.set(Support::Unnamed);
        }
    }
}

/// Finds out, on behalf of a pool, whether statements may have names. If it is dropped without a result, another
/// connection may probe.
#[derive(Debug)]
pub(super) struct Probe<'a> {
    pooler: &'a PoolerSupport,
    result: Support,
}

impl Probe<'_> {
    /// Returns a name and a statement that no other client uses.
    pub(super) fn statement(&self) -> (String, String) {
        let salt = self.pooler.salt;
        (
            format!("p{salt:x}"),
            format!("SELECT 1 /* diesel-neon {salt:x} */"),
        )
    }

    /// Ends the probe with its result.
    pub(super) fn conclude(mut self, support: Support) {
        tracing::debug!(?support, "found out whether statements may have names");
        self.result = support;
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.pooler.set(self.result);
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
        let support = |url: &str| pooler(url, NamedStatements::Detect).support();
        assert_eq!(
            support("postgres://u:p@ep-a-b-1.eu.aws.neon.tech/d"),
            Support::Direct
        );
        assert_eq!(
            support("postgres://u:p@ep-a-b-1-pooler.eu.aws.neon.tech/d"),
            Support::Unknown
        );
        assert_eq!(support("postgres://u:p@127.0.0.1/d"), Support::Unknown);
    }

    #[test]
    fn the_policy_overrides() {
        let pooled = "postgres://u:p@ep-a-b-1-pooler.eu.aws.neon.tech/d";
        assert_eq!(
            pooler(pooled, NamedStatements::Always).support(),
            Support::Tracked
        );
        assert_eq!(
            pooler(pooled, NamedStatements::Never).support(),
            Support::Unnamed
        );
    }

    #[test]
    fn one_connection_probes_and_another_may_if_there_is_no_result() {
        let pooler = pooler("postgres://u:p@127.0.0.1/d", NamedStatements::Detect);
        let probe = pooler.probe().unwrap();
        assert!(pooler.probe().is_none());
        drop(probe);
        pooler.probe().unwrap().conclude(Support::Tracked);
        assert!(pooler.probe().is_none());
        assert_eq!(pooler.support(), Support::Tracked);
        pooler.downgrade();
        assert_eq!(pooler.support(), Support::Unnamed);
    }

    #[test]
    fn a_stale_text_is_renewed_once_and_behind_a_pooler_only() {
        let url = "postgres://u:p@ep-a-b-1-pooler.eu.aws.neon.tech/d";
        let pooled = pooler(url, NamedStatements::Always);
        let (one, two) = (pooled.name(1, "", &[]), pooled.name(2, "", &[]));
        assert_eq!(pooled.text("SELECT 1"), "SELECT 1");
        pooled.renew_stale(&one);
        pooled.renew_stale(&two);
        assert_eq!(pooled.text("SELECT 1"), "SELECT 1 /* 1 */");
        pooled.renew_stale(&pooled.name(3, "", &[]));
        assert_eq!(pooled.text("SELECT 1"), "SELECT 1 /* 2 */");
        pooled.renew();
        assert_eq!(pooled.text("SELECT 1"), "SELECT 1 /* 3 */");

        let direct = pooler("postgres://u:p@127.0.0.1/d", NamedStatements::Always);
        direct.renew_stale(&direct.name(1, "", &[]));
        direct.renew();
        assert_eq!(direct.text("SELECT 1"), "SELECT 1");
    }
}
