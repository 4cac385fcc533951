//! Lists the tables of a database, other than Postgres's own: `schema.table`, one a line.
//!
//! ```sh
//! DATABASE_URL=postgresql://… cargo run --example tables
//! ```

use std::error::Error;

use diesel::sql_types::Text;
use diesel::{QueryableByName, sql_query};
use diesel_async::RunQueryDsl;
use diesel_neon::Pool;

/// Includes views and foreign tables: everything that somebody would miss.
const TABLES: &str = "\
    SELECT format('%I.%I', nspname, relname) AS name
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f')
        AND nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%'
        AND NOT EXISTS (
            SELECT FROM pg_depend
            WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e'
        )
    ORDER BY 1";

#[derive(QueryableByName)]
struct Table {
    #[diesel(sql_type = Text)]
    name: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::from_env()?;
    let tables: Vec<Table> = sql_query(TABLES).load(&mut pool.get().await?).await?;
    for table in tables {
        println!("{}", table.name);
    }
    Ok(())
}
