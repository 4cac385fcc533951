//! `save_changes`, which Diesel has each type of connection implement.

/// Implements `save_changes` for a type of connection, with the bounds that diesel-async has for its own.
macro_rules! impl_save_changes {
    ($connection:ty) => {
        impl<'b, Changes, Output, Tab, V> diesel_async::UpdateAndFetchResults<Changes, Output>
            for $connection
        where
            Output: Send + 'static,
            Changes: Copy
                + diesel::query_builder::AsChangeset<Target = Tab>
                + Send
                + diesel::associations::Identifiable<Table = Tab>,
            Tab: diesel::Table + diesel::query_dsl::methods::FindDsl<Changes::Id> + 'b,
            diesel::dsl::Find<Tab, Changes::Id>:
                diesel::query_builder::IntoUpdateTarget<Table = Tab, WhereClause = V>,
            diesel::query_builder::UpdateStatement<Tab, V, Changes::Changeset>:
                diesel::query_builder::AsQuery,
            diesel::dsl::Update<Changes, Changes>:
                diesel_async::methods::LoadQuery<'b, Self, Output>,
            V: Send + 'b,
            Changes::Changeset: Send + 'b,
            Tab::FromClause: Send,
            Changes: diesel::associations::HasTable<Table = Tab>,
        {
            fn update_and_fetch<'conn, 'changes>(
                &'conn mut self,
                changeset: Changes,
            ) -> futures_util::future::BoxFuture<'changes, diesel::QueryResult<Output>>
            where
                Changes: 'changes,
                Changes::Changeset: 'changes,
                'conn: 'changes,
                Self: 'changes,
            {
                Box::pin(async move {
                    let update = diesel::update(changeset).set(changeset);
                    diesel_async::RunQueryDsl::get_result(update, self).await
                })
            }
        }
    };
}

pub(crate) use impl_save_changes;
