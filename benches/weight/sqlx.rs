//! The same on sqlx, without its macros.

use sqlx::PgPool;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = PgPool::connect(&std::env::var("DATABASE_URL")?).await?;
    let titles: Vec<String> = sqlx::query_scalar("SELECT title FROM books")
        .fetch_all(&pool)
        .await?;
    println!("{titles:?}");
    Ok(())
}
