//! What serves the pooled endpoint.

/// What serves the pooled endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pooler {
    /// PgBouncer, as on Neon; it is an error if there is none on this machine.
    #[default]
    PgBouncer,
    /// PgBouncer if there is one on this machine, else PostgreSQL itself.
    PgBouncerIfFound,
    /// PostgreSQL itself: a session keeps its state, as it would not on Neon.
    Direct,
}
