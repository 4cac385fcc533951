use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use diesel_neon::Pool;
use neon_sim::{Suspension, TestDatabase};

#[tokio::test]
async fn requests_outlive_a_suspension() -> Result<(), Box<dyn std::error::Error>> {
    let database = TestDatabase::builder().migrations("migrations");
    let database = database.start().await?;
    let pool = Pool::builder(database.pooled_url());
    // A real suspension comes after minutes, when the pool checks each connection. Here it always does.
    let pool = pool.validation_bypass(Duration::ZERO).build()?;
    let query = "SELECT title FROM books";
    pool.get().await?.batch_execute(query).await?;

    database.suspend(Suspension::Normal).await;
    pool.get().await?.batch_execute(query).await?;
    Ok(())
}
