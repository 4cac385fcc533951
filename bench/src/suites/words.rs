//! What an app's log says when it cannot have a connection, and after how long.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use neon_sim::NeonSim;
use tokio::time::{sleep, timeout};

use super::on_runtime;
use crate::each_pool_and_pythons;
use crate::pools::{Configuration, Pool, Settings, names_with_pythons};
use crate::report::{Chapter, Table};
use crate::stand_in;

pub fn run() -> Chapter {
    on_runtime(async {
        let mut table = Table::new("words", "", &names_with_pythons());
        let servers = join_all(CASES.map(|_| stand_in::start())).await;
        // Most wait.
        let told = CASES.iter().zip(servers);
        let told = join_all(told.map(|((_, case), neon)| case.told(neon))).await;
        for ((what, _), told) in CASES.into_iter().zip(told) {
            table.words(what, told);
        }
        Chapter {
            suite: "words".into(),
            title: "Words".into(),
            text: TEXT.into(),
            tables: vec![table],
            plots: Vec::new(),
        }
    })
}

const TEXT: &str = "\
A caller may wait two seconds for a connection, and cannot have one. Each pool is as it comes. What is told is the error with its \
causes, and the time until then; in Python, it is the last lines of what an uncaught one prints.

Who takes two seconds has tried again meanwhile, as a host without an address or a port that refuses may be back soon; who passes the failure on \
tells it at once. sqlx does not verify a certificate with `sslmode=require`, as the URL has it: it connects, and tells what it finds missing then.";

#[derive(Clone, Copy)]
enum Case {
    WrongPassword,
    UnknownDatabase,
    UnknownHost,
    Refused,
    UntrustedCertificate,
    NothingBehindThePooler,
}

const CASES: [(&str, Case); 6] = [
    ("the password is wrong", Case::WrongPassword),
    ("the database does not exist", Case::UnknownDatabase),
    ("the host has no address", Case::UnknownHost),
    ("the port refuses", Case::Refused),
    ("the certificate is not trusted", Case::UntrustedCertificate),
    (
        "Postgres is gone behind its pooler",
        Case::NothingBehindThePooler,
    ),
];

impl Case {
    /// Returns what each pool says.
    async fn told(self, neon: NeonSim) -> Vec<String> {
        let url = neon.url();
        let database = format!("/{}?", neon.database());
        let url = match self {
            Self::WrongPassword => url.replace(neon.password(), "wrong"),
            Self::UnknownDatabase => url.replace(&database, "/other?"),
            // Names under `.invalid` do not exist (RFC 2606).
            Self::UnknownHost => "postgresql://u:p@db.invalid/neondb?sslmode=require".into(),
            Self::Refused => url.replace(&neon.port().to_string(), "1"),
            Self::UntrustedCertificate => {
                let (front, _) = url.split_once("sslrootcert=").expect("the stand-in's own");
                front.trim_end_matches(['&', '?']).to_owned()
            }
            Self::NothingBehindThePooler => {
                let url = neon.pgbouncer_url();
                return tokio::select! {
                    restarted = neon.restart_postgres(Duration::from_secs(120)) => {
                        panic!("it was to be down: {restarted:?}")
                    }
                    words = async {
                        while neon.sql("SELECT 1").await.is_ok() {
                            sleep(Duration::from_millis(10)).await;
                        }
                        by_each_pool(&url).await
                    } => words,
                };
            }
        };
        by_each_pool(&url).await
    }
}

async fn by_each_pool(url: &str) -> Vec<String> {
    each_pool_and_pythons!(P => told::<P>(url).await)
}

async fn told<P: Pool>(url: &str) -> String {
    let settings = Settings {
        configuration: Configuration::Default,
        max_size: 3,
        patience: PATIENCE,
    };
    let pool = P::build(url, settings).await;
    let began = Instant::now();
    // Not each pool's patience covers its connect.
    let told = match timeout(AT_MOST, pool.look_up(1)).await {
        Ok(Ok(_)) => "no error".into(),
        Ok(Err(error)) => error,
        Err(_) => return format!("nothing in {AT_MOST:?}"),
    };
    let took = began.elapsed();
    match took.as_millis() {
        0..1000 => format!("{} ms: {told}", took.as_millis()),
        _ => format!("{:.1} s: {told}", took.as_secs_f64()),
    }
}

const PATIENCE: Duration = Duration::from_secs(2);
const AT_MOST: Duration = Duration::from_secs(3);
