//! What the public types promise beside their methods: traits, `must_use`, and the crates whose types they take.
#![deny(unfulfilled_lint_expectations)]

use std::fmt::{Debug, Display};
use std::hash::Hash;

use diesel_neon::blocking;
use diesel_neon::diagnose::{Address, LoginMethod, Peer};
use diesel_neon::env::{EnvError, ResolvedUrl, Source};
use diesel_neon::migration::{Direction, Fault, Listed, Migrator, Report, State};
use diesel_neon::{
    AbandonedTransaction, ChannelBinding, Checks, Closed, ConnectErrorKind, ConnectionMetadata,
    Connects, CopyIn, CopyOut, Diagnosis, Encryption, Endpoint, EvictReason, Host, HostName,
    ListenUnsupported, NamedStatements, Policy, PolicyBuilder, PolicyError, PoolBuilder,
    QueryTelemetry, Retry, RootCertificates, RowStream, SslNegotiation, Status, TransactionBuilder,
    UnreadRows, UrlError,
};

/// A plain value.
fn value<T: Clone + Debug + Eq + Hash + Send + Sync + 'static>() {}
fn small<T: Copy>() {}
fn shown<T: Display>() {}

#[test]
fn plain_values_have_the_traits_of_plain_values() {
    value::<Address>();
    value::<AbandonedTransaction>();
    value::<ChannelBinding>();
    value::<Checks>();
    value::<Closed>();
    value::<ConnectErrorKind>();
    value::<ConnectionMetadata>();
    value::<Connects>();
    value::<Diagnosis>();
    value::<Direction>();
    value::<Encryption>();
    value::<Endpoint>();
    value::<EnvError>();
    value::<EvictReason>();
    value::<Fault>();
    value::<Host>();
    value::<HostName>();
    value::<Listed>();
    value::<ListenUnsupported>();
    value::<LoginMethod>();
    value::<NamedStatements>();
    value::<Peer>();
    value::<Policy>();
    value::<PolicyError>();
    value::<Report>();
    value::<RootCertificates>();
    value::<Source>();
    value::<SslNegotiation>();
    value::<State>();
    value::<UnreadRows>();
    value::<UrlError>();
    small::<Checks>();
    small::<Closed>();
    small::<ConnectionMetadata>();
    small::<Connects>();
    small::<Direction>();
    small::<Endpoint>();
    small::<Policy>();
    small::<PolicyBuilder>();
    small::<Retry<'_>>();
    small::<blocking::Retry<'_>>();
    small::<Retry<'_, diesel_async::AsyncPgConnection>>();
    shown::<Address>();
    shown::<ChannelBinding>();
    shown::<Checks>();
    shown::<Closed>();
    shown::<ConnectionMetadata>();
    shown::<Connects>();
    shown::<EvictReason>();
    shown::<Status>();
    shown::<Endpoint>();
    shown::<HostName>();
    shown::<LoginMethod>();
    shown::<SslNegotiation>();
    assert_eq!(ChannelBinding::Require.to_string(), "require");
    assert_eq!(SslNegotiation::Direct.to_string(), "direct");
    assert_eq!(Closed::default().to_string(), "none");
    fn equal<T: PartialEq + Clone>() {}
    equal::<ResolvedUrl>();
    equal::<PolicyBuilder>();
}

#[cfg(feature = "http")]
#[test]
fn the_connection_over_https_is_shared_freely() {
    use diesel_neon::http::{
        Batch, BatchResults, BuildError, HttpConnection, HttpConnectionBuilder,
        ParameterUnsupported, Rows, RowsUnsupported, Ticket, TransactionUnsupported,
    };

    fn sent<T: Debug + Send + Sync>() {}
    value::<ParameterUnsupported>();
    value::<RowsUnsupported>();
    value::<TransactionUnsupported>();
    small::<TransactionUnsupported>();
    sent::<Batch<'_>>();
    sent::<BatchResults>();
    sent::<BuildError>();
    sent::<HttpConnection>();
    sent::<HttpConnectionBuilder>();
    sent::<Rows>();
    sent::<Ticket<Vec<i32>>>();
    fn cloned<T: Clone + 'static>() {}
    cloned::<HttpConnection>();
}

#[test]
fn blocking_types_go_from_thread_to_thread() {
    fn shared<T: Clone + Debug + Send + Sync + 'static>() {}
    fn sent<T: Debug + Send + 'static>() {}
    shared::<blocking::Pool>();
    shared::<blocking::ConnectionManager>();
    sent::<blocking::Connection>();
    sent::<diesel_neon::axum::Db>();
    shared::<diesel_neon::axum::Unavailable>();
}

/// Compiles only if each call is one whose result must be used.
#[expect(
    clippy::too_many_arguments,
    dead_code,
    reason = "it is compiled, which is the test"
)]
fn what_does_nothing_by_itself_must_be_used(
    copy_in: fn() -> CopyIn<'static>,
    copy_out: fn() -> CopyOut<'static>,
    migrator: fn() -> Migrator,
    policy: fn() -> PolicyBuilder,
    pool: fn() -> PoolBuilder,
    retry: fn() -> Retry<'static>,
    blocking_retry: fn() -> blocking::Retry<'static>,
    cursor: fn() -> blocking::Cursor<'static>,
    rows: fn() -> RowStream<'static>,
    telemetry: fn() -> QueryTelemetry,
    transaction: fn() -> TransactionBuilder<'static>,
) {
    #[expect(unused_must_use)]
    copy_in();
    #[expect(unused_must_use)]
    copy_out();
    #[expect(unused_must_use)]
    migrator();
    #[expect(unused_must_use)]
    policy();
    #[expect(unused_must_use)]
    pool();
    #[expect(unused_must_use)]
    retry();
    #[expect(unused_must_use)]
    blocking_retry();
    #[expect(unused_must_use)]
    cursor();
    #[expect(unused_must_use)]
    rows();
    #[expect(unused_must_use)]
    telemetry();
    #[expect(unused_must_use)]
    transaction();
}

/// Compiles only if each crate of the signatures is re-exported in the version that they mean.
#[expect(dead_code, reason = "it is compiled, which is the test")]
mod signatures {
    use diesel_neon::{
        Connection, ConnectionManager, DatabaseUrl, EstablishedSession, Pool, bb8, bytes, diesel,
        diesel_async, diesel_migrations, futures_util, rustls, tokio_postgres,
    };

    fn takes<C: diesel_async::AsyncConnection<Backend = diesel::pg::Pg>>() {}

    fn streams(
        out: diesel_neon::CopyOut<'_>,
    ) -> impl futures_util::Stream<Item = diesel::QueryResult<bytes::Bytes>> {
        out
    }

    fn all(url: &DatabaseUrl, session: EstablishedSession) {
        takes::<Connection>();
        let _: tokio_postgres::Config = url.to_tokio_postgres();
        let _: tokio_postgres::Client = session.into_client();
        let _: Option<rustls::ClientConfig> = url.to_rustls().unwrap_or_default();
        let _: fn(_) -> Option<bb8::Pool<ConnectionManager>> = |pool| pool;
        let _: Result<diesel_migrations::FileBasedMigrations, _> =
            diesel_neon::migration::folder(None);
        let _: fn(&Pool) = |_| {};
    }
}

/// Work of each form that callers write; what fits which method is on the page of `Retry`.
#[expect(dead_code, reason = "it is compiled, which is the test")]
mod closures {
    use diesel::prelude::*;
    use diesel_async::{AsyncConnection, RunQueryDsl};
    use diesel_neon::{Connection, Pool, PooledConnection, RetryError};

    diesel::table! {
        books (title) {
            title -> Text,
        }
    }

    async fn add(connection: &mut Connection, title: &str) -> Result<usize, RetryError> {
        let add = diesel::insert_into(books::table).values(books::title.eq(title));
        Ok(add.execute(connection).await?)
    }

    async fn owned(pool: &Pool, title: String) -> Result<usize, RetryError> {
        pool.transaction(async move |connection| add(connection, &title).await)
            .await
    }

    async fn owned_and_consumed(pool: &Pool, title: String) -> Result<String, RetryError> {
        pool.transaction(async move |connection| {
            add(connection, &title).await?;
            Ok::<_, RetryError>(title)
        })
        .await
    }

    async fn owned_on_a_connection(
        mut connection: Connection,
        title: String,
    ) -> QueryResult<usize> {
        connection
            .transaction(async move |connection| {
                let add = diesel::insert_into(books::table).values(books::title.eq(title));
                add.execute(connection).await
            })
            .await
    }

    async fn owned_on_a_pooled_connection(
        connection: &mut PooledConnection<'_>,
        title: String,
    ) -> Result<usize, RetryError> {
        connection
            .transaction(async move |connection| add(connection, &title).await)
            .await
    }

    async fn borrowed(pool: &Pool, title: String) -> Result<usize, RetryError> {
        pool.retry()
            .transaction(async |connection| add(connection, &title).await)
            .await
    }

    /// A reference that is only passed on may be moved.
    async fn moved_references(pool: &Pool, title: &str) -> Result<usize, RetryError> {
        pool.retry()
            .run(async move |connection| add(connection, title).await)
            .await
    }

    fn in_tasks(pool: Pool, title: String) {
        let other = pool.clone();
        let copy = title.clone();
        tokio::spawn(async move {
            let add = async |connection: &mut Connection| add(connection, &title).await;
            pool.retry().idempotent().transaction(add).await
        });
        tokio::spawn(async move {
            other
                .transaction(async move |connection| add(connection, &copy).await)
                .await
        });
    }
}
