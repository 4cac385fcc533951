//! The same, synchronous, on r2d2 and libpq.

use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};

diesel::table! {
    books {
        id -> Integer,
        title -> Text,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manager = ConnectionManager::<PgConnection>::new(std::env::var("DATABASE_URL")?);
    let pool = Pool::builder().build(manager)?;
    let mut connection = pool.get()?;
    let titles: Vec<String> = books::table.select(books::title).load(&mut connection)?;
    println!("{titles:?}");
    Ok(())
}
