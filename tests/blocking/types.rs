//! Types that only the database knows are looked up by their names.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

use std::io::Write;

use diesel::connection::SimpleConnection;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::prelude::*;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel_neon::blocking::PgConnection;

use super::common::routes;
use super::start;

#[derive(diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
#[diesel(postgres_type(name = "mood"))]
pub struct MoodType;

#[derive(AsExpression, Clone, Copy, Debug, FromSqlRow, PartialEq)]
#[diesel(sql_type = MoodType)]
pub enum Mood {
    Happy,
    Sad,
}

impl ToSql<MoodType, Pg> for Mood {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(match self {
            Mood::Happy => b"happy",
            Mood::Sad => b"sad",
        })?;
        Ok(IsNull::No)
    }
}

impl FromSql<MoodType, Pg> for Mood {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        match value.as_bytes() {
            b"happy" => Ok(Mood::Happy),
            b"sad" => Ok(Mood::Sad),
            other => Err(format!("{other:?} is no mood").into()),
        }
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::MoodType;

    moods (id) {
        id -> Integer,
        mood -> MoodType,
        history -> Array<MoodType>,
    }
}

#[test]
fn an_enum_round_trips_on_every_route() {
    let sim = start();
    for (route, url) in routes(&sim) {
        let conn = &mut PgConnection::establish(&url).unwrap();
        let insert = |conn: &mut PgConnection| {
            let history = vec![Mood::Sad, Mood::Happy];
            let happy = (moods::mood.eq(Mood::Happy), moods::history.eq(history));
            let insert = diesel::insert_into(moods::table).values(happy);
            insert.get_result::<(i32, Mood, Vec<Mood>)>(conn)
        };
        let missing = insert(conn).unwrap_err().to_string();
        assert!(missing.contains("mood"), "{route}: {missing}");

        // The connection has not kept in mind that the type is missing.
        conn.batch_execute(
            "CREATE TYPE mood AS ENUM ('happy', 'sad'); \
             CREATE TABLE moods (id SERIAL PRIMARY KEY, mood mood NOT NULL, history mood[] NOT NULL)",
        )
        .unwrap();
        let inserted = insert(conn).unwrap();
        assert_eq!(inserted.2, [Mood::Sad, Mood::Happy], "{route}");
        let happy = moods::table.filter(moods::mood.eq_any([Mood::Happy]));
        let ids: Vec<i32> = happy.select(moods::id).load(conn).unwrap();
        assert_eq!(ids, [inserted.0], "{route}");
        conn.batch_execute("DROP TABLE moods; DROP TYPE mood")
            .unwrap();
    }
}
