//! Values over HTTPS: each comes back as the bytes that it was, for every type that Diesel binds.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;
#[path = "http/raw.rs"]
mod raw;

use common::{HANG, connect, neon, over_https};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::QueryId;
use diesel::result::Error;
use diesel::sql_query;
use diesel::sql_types::{
    HasSqlType, Integer, Nullable, Numeric, SingleValue, SqlType, Text, Timestamp, is_nullable,
};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::Connection;
use diesel_neon::http::{HttpConnection, ParameterUnsupported};
use neon_sim::NeonSim;
use raw::{Back, Called, Of, Raw};
use tokio::time::timeout;

struct Both {
    tcp: Connection,
    http: HttpConnection,
    seen: usize,
}

impl Both {
    async fn connect(neon: &NeonSim) -> Self {
        Self {
            tcp: connect(&neon.url()).await,
            http: HttpConnection::new(over_https(neon, neon.url())).unwrap(),
            seen: 0,
        }
    }

    /// Sends the values of a query over HTTPS, and compares what comes back. An array of all of them goes the same way.
    async fn compare<T>(&mut self, values: &str)
    where
        T: SqlType<IsNull = is_nullable::NotNull> + SingleValue + QueryId + Send + 'static,
        Pg: HasSqlType<T>,
        Nullable<T>: QueryId + SqlType,
        Pg: HasSqlType<Nullable<T>>,
    {
        let values: Vec<Back> =
            sql_query(values)
                .load(&mut self.tcp)
                .await
                .unwrap_or_else(|error| {
                    panic!("{values}: {error}");
                });
        assert!(!values.is_empty());
        self.seen += values.len();
        for chunk in values.chunks(100) {
            let places: Vec<_> = (1..=chunk.len())
                .map(|number| format!("(${number}, {number})"))
                .collect();
            let sql = format!(
                "SELECT v FROM (VALUES {}) AS t (v, n) ORDER BY n",
                places.join(", ")
            );
            let mut query = sql_query(sql).into_boxed::<Pg>();
            for Back(value) in chunk {
                query = query.bind::<Nullable<T>, _>(value.clone());
            }
            let back: Vec<Back> = timeout(HANG, query.load(&mut self.http))
                .await
                .expect("no hang")
                .unwrap();
            assert_eq!(back.len(), chunk.len());
            for (Back(back), Back(sent)) in back.iter().zip(chunk) {
                assert_eq!(back, sent);
            }
        }
    }
}

/// Returns a query for given values, those of a series, and NULL.
fn values(kind: &str, given: &[&str], series: &str) -> String {
    let given: Vec<_> = given
        .iter()
        .map(|text| format!("('{}'::{kind})", text.replace('\'', "''")))
        .collect();
    let mut sql = format!(
        "SELECT v FROM (VALUES {}, (NULL)) AS given (v)",
        given.join(", ")
    );
    if !series.is_empty() {
        sql.push_str(&format!(
            " UNION ALL SELECT ({series})::{kind} FROM generate_series(1, 150) AS s (n)"
        ));
    }
    sql
}

macro_rules! each {
    ($both:ident: $($oid:literal $kind:literal $given:expr, $series:literal;)*) => {
        $(
            $both.compare::<Of<$oid>>(&values($kind, &$given, $series)).await;
        )*
    };
}

const TEXTS: [&str; 8] = [
    "",
    "a",
    "NULL",
    " \"b\\ ' ",
    "{c,d}",
    "(e)",
    "ü🦀\n\t",
    "\\x41",
];

#[tokio::test]
async fn every_value_comes_back_as_it_was() {
    let neon = neon().await;
    let mut both = Both::connect(&neon).await;
    both.tcp.batch_execute("SELECT setseed(0.5)").await.unwrap();
    each! { both:
        16 "bool" ["t", "f"], "";
        21 "int2" ["-32768", "32767", "0"], "(random() - 0.5) * 65535";
        23 "int4" ["-2147483648", "2147483647", "0"], "(random() - 0.5) * 4294967295";
        20 "int8" ["-9223372036854775808", "9223372036854775807"], "(random() - 0.5) * 1.8e19";
        26 "oid" ["0", "4294967295"], "(random() * 4e9)::int8";
        700 "float4" ["NaN", "Infinity", "-Infinity", "-0", "1e-45", "3.4028235e38", "0.1"], "(random() - 0.5) * power(10, random() * 70 - 35)";
        701 "float8" ["NaN", "Infinity", "-Infinity", "-0", "5e-324", "1.7976931348623157e308", "0.1"], "(random() - 0.5) * power(10, random() * 600 - 300)";
        1700 "numeric" ["NaN", "Infinity", "-Infinity", "0", "0.00", "1.10", "-1e-100", "1e100", "12345678901234567890.123456789", "0.0001", "0.00001", "10000", "100000000"], "(random() - 0.5)::numeric * power(10::numeric, (random() * 60 - 30)::int)";
        25 "text" TEXTS, "md5(n::text)";
        1043 "varchar" TEXTS, "";
        1042 "bpchar" TEXTS, "";
        19 "name" TEXTS, "";
        18 "\"char\"" ["a", "", "\"", "\\"], "";
        17 "bytea" ["", "\\x00ff5c27", "abc"], "decode(md5(n::text), 'hex')";
        2950 "uuid" ["00000000-0000-0000-0000-000000000000"], "md5(n::text)";
        1082 "date" ["infinity", "-infinity", "4714-11-24 BC", "0001-01-01", "0001-12-31 BC", "2000-02-29", "5874897-12-31", "10000-01-01"], "'2000-01-01'::date + ((random() - 0.34) * 2000000)::int";
        1083 "time" ["00:00", "24:00", "23:59:59.999999", "00:00:00.000001"], "'00:00'::time + random() * interval '1 day'";
        1266 "timetz" ["00:00+15:59", "24:00-15:59:59", "12:34:56.789+00"], "'00:00+02'::timetz + random() * interval '1 day'";
        1114 "timestamp" ["infinity", "-infinity", "4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999", "1999-12-31 23:59:59.999999"], "'2000-01-01'::timestamp + (random() - 0.5) * interval '9000 years'";
        1184 "timestamptz" ["infinity", "-infinity", "4714-11-24 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00"], "'2000-01-01'::timestamptz + (random() - 0.5) * interval '9000 years'";
        1186 "interval" ["0", "1 mon -1 day 00:00:00.000001", "-1 mon 1 day -00:00:01", "178000000 years", "-178000000 years", "2147483647 days", "2562047788:00:54.775807", "-2562047788:00:54.775807", "-9223372036854775808 us"], "(random() - 0.5) * interval '1000 years' + (random() - 0.5) * interval '1 day'";
        114 "json" ["null", "{\"a\": [1.10, \"\\u00e4\"]}", " 1 ", "\"\""], "json_build_object('n', n)";
        3802 "jsonb" ["null", "{\"a\": [1.10, \"\\u00e4\"]}", "\"\""], "jsonb_build_object('n', random())";
        142 "xml" ["<a>&amp;</a>"], "";
        4072 "jsonpath" ["$.a[*] ? (@ > 1)"], "";
        869 "inet" ["0.0.0.0", "10.1.2.3/8", "::", "2001:db8::1/64", "::ffff:1.2.3.4"], "'10.0.0.0'::inet + n * 100000";
        650 "cidr" ["0.0.0.0/0", "10.0.0.0/8", "2001:db8::/32"], "";
        829 "macaddr" ["00:00:00:00:00:00", "ff:fe:00:01:02:03"], "";
        774 "macaddr8" ["00:00:00:00:00:00:00:00", "ff:fe:00:01:02:03:04:05"], "";
        790 "money" ["0", "-0.01", "92233720368547758.07", "-92233720368547758.08"], "((random() - 0.5) * 100000)::numeric";
        3220 "pg_lsn" ["0/0", "FFFFFFFF/FFFFFFFF", "16/B374D848"], "";
        1562 "varbit" ["", "1", "10110111011"], "";
        1560 "bit(11)" ["10110111011"], "";
        3904 "int4range" ["empty", "(,)", "[1,5)", "[1,)", "(,-1)"], "int4range(n, n + (random() * 9)::int)";
        3926 "int8range" ["empty", "[-9223372036854775808,9223372036854775807)"], "";
        3906 "numrange" ["[1.10,2)", "(NaN,)", "[1,1]", "(-1,1]"], "";
        3908 "tsrange" ["[2000-01-01,infinity]", "(,2000-01-01 00:00:00.000001)"], "";
        3910 "tstzrange" ["[2000-01-01 00:00+00,)"], "";
        3912 "daterange" ["[2000-01-01,infinity)", "(,0044-03-15 BC)"], "";
        4451 "int4multirange" ["{}", "{[1,2),[5,9),[20,)}"], "";
        4532 "nummultirange" ["{(,1.5],(2,3)}"], "";
        1007 "int4[]" ["{}", "{NULL}", "{1,NULL,-3}", "{{1,2},{3,NULL}}", "[-1:1]={7,8,9}", "[2:3][0:1]={{1,2},{3,4}}"], "ARRAY(SELECT generate_series(1, n % 7))";
        1009 "text[]" ["{}", "{NULL,\"NULL\",\"\",\"a\\\"b\\\\c\",\"{d,e}\",\"ü\\n\"}"], "ARRAY[md5(n::text), NULL]";
        1000 "bool[]" ["{t,f,NULL}"], "";
        1231 "numeric[]" ["{1.10,NaN,Infinity,NULL}"], "";
        1022 "float8[]" ["{1e300,NaN,-0}"], "";
        1001 "bytea[]" ["{\"\\\\x00\",\"\\\\x5c22\"}"], "";
        2951 "uuid[]" ["{00000000-0000-0000-0000-000000000001}"], "";
        1182 "date[]" ["{infinity,0044-03-15 BC}"], "";
        1185 "timestamptz[]" ["{2000-01-01 00:00:00+00,-infinity}"], "";
        1187 "interval[]" ["{1 mon,-00:00:01}"], "";
        199 "json[]" ["{\"{\\\"a\\\": 1}\"}"], "";
        3807 "jsonb[]" ["{\"{\\\"a\\\": \\\"b\\\\\\\\c\\\"}\"}"], "";
        1041 "inet[]" ["{10.1.2.3/8}"], "";
        791 "money[]" ["{1.23,-4.56}"], "";
        3905 "int4range[]" ["{empty,\"[1,5)\",\"(,)\"}"], "";
        6150 "int4multirange[]" ["{\"{[1,2),[5,6)}\"}"], "";
    }
    assert!(both.seen > 2500, "{}", both.seen);
}

#[tokio::test]
async fn types_that_only_the_database_knows_come_back_too() {
    let neon = neon().await;
    neon.sql(
        "CREATE SCHEMA own; GRANT ALL ON SCHEMA own TO PUBLIC; \
         CREATE TYPE own.mood AS ENUM ('happy', 'sad \"\\', ''); \
         CREATE TYPE own.person AS (id int, name text, mood own.mood, tags text[]); \
         CREATE DOMAIN own.positive AS numeric CHECK (VALUE > 0); \
         CREATE TYPE own.floats AS RANGE (subtype = float8, multirange_type_name = own.floats_multi); \
         CREATE TYPE own.house AS (people own.person[], sizes own.floats, area own.positive); \
         CREATE TABLE own.line (a int, gone text, b own.mood); ALTER TABLE own.line DROP COLUMN gone",
    )
    .await
    .unwrap();
    let mut both = Both::connect(&neon).await;
    let before = neon.counters();
    both.compare::<Called<0>>("SELECT v FROM unnest(enum_range(NULL::own.mood)) AS t (v)")
        .await;
    // The look-up, and the statement.
    assert_eq!((neon.counters() - before).direct.requests, 2);
    both.compare::<Called<1>>("SELECT '{happy,NULL,\"sad \\\"\\\\\",\"\"}'::own.mood[] AS v")
        .await;
    let person = "row(1, 'a\"b\\c,()', 'sad \"\\', '{\"x\\\"\",NULL}')::own.person";
    let persons = format!(
        "SELECT v FROM (VALUES ({person}), (row(NULL, NULL, NULL, NULL)::own.person), (row(2, '', '', '{{}}')::own.person)) AS t (v)"
    );
    both.compare::<Called<2>>(&persons).await;
    both.compare::<Called<3>>(&format!("SELECT ARRAY[{person}, NULL] AS v"))
        .await;
    both.compare::<Called<5>>(
        "SELECT v FROM (VALUES ('[1,2.5]'::own.floats), ('empty'), ('(-Infinity,)')) AS t (v)",
    )
    .await;
    both.compare::<Called<6>>("SELECT '{[1,2),(3,4]}'::own.floats_multi AS v")
        .await;
    both.compare::<Called<7>>(&format!(
        "SELECT row(ARRAY[{person}], '[1,2)', 1.10)::own.house AS v"
    ))
    .await;
    both.compare::<Called<8>>("SELECT row(1, 'happy')::own.line AS v")
        .await;
    let before = neon.counters();
    let clone = both.http.clone();
    both.http = clone;
    both.compare::<Called<0>>("SELECT 'happy'::own.mood AS v")
        .await;
    assert_eq!((neon.counters() - before).direct.requests, 1);
}

/// A domain is sent as its name, so that its checks hold as over TCP.
#[tokio::test]
async fn a_domain_is_checked() {
    let neon = neon().await;
    neon.sql("CREATE SCHEMA own; GRANT ALL ON SCHEMA own TO PUBLIC; CREATE DOMAIN own.positive AS int CHECK (VALUE > 0)")
        .await
        .unwrap();
    let mut both = Both::connect(&neon).await;
    for (value, is_fine) in [(1_i32, true), (-1, false)] {
        let raw = Raw(value.to_be_bytes().to_vec());
        let query = || sql_query("SELECT $1 AS v").bind::<Called<4>, _>(raw.clone());
        let theirs = query().load::<Back>(&mut both.tcp).await;
        let ours = query().load::<Back>(&mut both.http).await;
        assert_eq!(
            (theirs.is_ok(), ours.is_ok()),
            (is_fine, is_fine),
            "{ours:?}"
        );
    }
}

#[tokio::test]
async fn what_has_no_text_form_is_refused_before_anything_is_sent() {
    let neon = neon().await;
    let mut both = Both::connect(&neon).await;
    let before = neon.counters();
    for (error, name) in [
        (
            sql_query("SELECT $1 AS v")
                .bind::<Of<600>, _>(Raw(vec![0; 16]))
                .execute(&mut both.http)
                .await,
            "point",
        ),
        (
            sql_query("SELECT $1 AS v")
                .bind::<Of<23>, _>(Raw(vec![0; 5]))
                .execute(&mut both.http)
                .await,
            "int4",
        ),
    ] {
        let Err(Error::SerializationError(error)) = error else {
            panic!("{error:?}");
        };
        let error = error.downcast_ref::<ParameterUnsupported>().unwrap();
        assert_eq!(error.type_name(), name);
        assert!(error.to_string().contains("nothing was sent"), "{error}");
    }
    assert_eq!((neon.counters() - before).direct.requests, 0);
}

/// The server finds the types of parameters out where Diesel gives them over TCP: an overloaded function shows which.
#[tokio::test]
async fn parameters_have_the_types_that_diesel_gives_them() {
    #[derive(QueryableByName, Debug, PartialEq)]
    struct Types {
        #[diesel(sql_type = Text)]
        types: String,
    }

    async fn types<C: AsyncConnection<Backend = Pg>>(connection: &mut C) -> Vec<Types> {
        let sql = "SELECT concat_ws(' ', pg_typeof($1), pg_typeof($2 + 1), pg_typeof($3 || 'a'), pg_typeof($4), \
             'a$1', $tag$ $2 $tag$, $1 / 2) AS types";
        let query = sql_query(sql)
            .bind::<Integer, _>(7)
            .bind::<Numeric, _>(bigdecimal::BigDecimal::from(2))
            .bind::<Text, _>("x")
            .bind::<Nullable<Timestamp>, _>(None::<chrono::NaiveDateTime>);
        query.load(connection).await.unwrap()
    }

    let neon = neon().await;
    let mut both = Both::connect(&neon).await;
    let theirs = types(&mut both.tcp).await;
    assert!(
        theirs[0]
            .types
            .starts_with("integer numeric text timestamp"),
        "{theirs:?}"
    );
    assert_eq!(types(&mut both.http).await, theirs);
}

/// What Diesel's own types write differs from what the server sends: decimals with zeros at their end, for example.
#[tokio::test]
async fn what_diesel_writes_is_read_alike() {
    async fn decimals<C: AsyncConnection<Backend = Pg>>(connection: &mut C) -> Vec<String> {
        let mut told = Vec::new();
        for text in [
            "0",
            "1.1000",
            "-12345.6789",
            "1e20",
            "1e-20",
            "99999999.00001",
            "1000000",
            "0.00010",
        ] {
            let number: bigdecimal::BigDecimal = text.parse().unwrap();
            let query = diesel::select(
                diesel::dsl::sql::<Text>("")
                    .bind::<Numeric, _>(number)
                    .sql("::text"),
            );
            told.push(query.get_result::<String>(connection).await.unwrap());
        }
        told
    }

    let neon = neon().await;
    let mut both = Both::connect(&neon).await;
    assert_eq!(
        decimals(&mut both.http).await,
        decimals(&mut both.tcp).await
    );
}
