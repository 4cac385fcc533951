//! The extractor of connections, the answer where there is none, and the probes.

mod common;

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::FromRef;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use diesel::prelude::*;
use diesel::result::Error;
use diesel_async::RunQueryDsl;
use diesel_neon::axum::{Db, Unavailable, health};
use diesel_neon::{DatabaseErrorExt, Pool, PoolError};
use serde_json::{Value, json};
use tokio::time::timeout;
use tower::ServiceExt;

use common::{HANG, IN_TRANSACTION, neon, pool, start, until, users};

async fn count(mut db: Db) -> String {
    let count = users::table.count().get_result::<i64>(&mut db).await;
    count.unwrap().to_string()
}

async fn add(mut db: Db) -> StatusCode {
    let added = db
        .transaction(async |conn| {
            let user = users::name.eq("Ann");
            let user = diesel::insert_into(users::table).values(user);
            user.execute(conn).await
        })
        .await;
    match added {
        Ok(1) => StatusCode::CREATED,
        _ => StatusCode::CONFLICT,
    }
}

/// Never answers by itself.
async fn hang(mut db: Db) {
    let hung = db.transaction(async |conn| {
        let user = users::name.eq("hung");
        let user = diesel::insert_into(users::table).values(user);
        user.execute(&mut *conn).await?;
        diesel::sql_query("SELECT pg_sleep(600)")
            .execute(conn)
            .await
    });
    let _: Result<usize, Error> = hung.await;
}

fn app(pool: &Pool) -> Router {
    Router::new()
        .route("/users", get(count).post(add))
        .route("/hang", post(hang))
        .merge(health())
        .with_state(pool.clone())
}

async fn send(app: &Router, method: &str, path: &str) -> Response {
    let request = Request::builder().method(method).uri(path);
    let request = request.body(Body::empty()).unwrap();
    let answered = timeout(HANG, app.clone().oneshot(request)).await;
    answered.expect("no hang").unwrap()
}

async fn text(response: Response) -> String {
    let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
    String::from_utf8(body.into()).unwrap()
}

/// Returns a problem document, and asserts that it is one with this status.
async fn problem(response: Response, status: u16) -> Value {
    let headers = response.headers().clone();
    assert_eq!(response.status(), status);
    assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(headers.contains_key(header::RETRY_AFTER), status == 503);
    if let Some(seconds) = headers.get(header::RETRY_AFTER) {
        assert!(seconds.to_str().unwrap().parse::<u32>().unwrap() > 0);
    }
    let problem: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(problem["status"], status);
    assert_eq!(problem["type"], "about:blank");
    assert!(
        problem["title"].is_string() && problem["detail"].is_string(),
        "{problem}"
    );
    problem
}

#[tokio::test]
async fn a_handler_gets_a_connection_that_goes_back() {
    let neon = start().await;
    let pool = pool(&neon.pooled_url(), |policy| policy.max_size(1));
    let app = app(&pool);
    assert_eq!(send(&app, "POST", "/users").await.status(), 201);
    assert_eq!(send(&app, "POST", "/users").await.status(), 409);
    assert_eq!(text(send(&app, "GET", "/users").await).await, "1");
    assert_eq!(pool.status().in_use, 0);
    assert_eq!(pool.status().connects.opened, 1);
}

#[tokio::test]
async fn a_request_that_is_dropped_takes_its_transaction_with_it() {
    let neon = start().await;
    let pool = pool(&neon.url(), |policy| policy.max_size(1));
    let app = app(&pool);
    let request = {
        let app = app.clone();
        tokio::spawn(async move { send(&app, "POST", "/hang").await })
    };
    until(&neon, common::RUNNING, "1").await;
    request.abort();
    until(&neon, IN_TRANSACTION, "0").await;
    assert_eq!(text(send(&app, "GET", "/users").await).await, "0");
}

#[tokio::test]
async fn where_there_is_no_connection_the_answer_says_when_to_come_back() {
    let neon = start().await;
    let short = Duration::from_secs(4);
    let pool = pool(&neon.url(), |policy| {
        policy.max_size(1).checkout_timeout(short)
    });
    let app = app(&pool);
    let held = pool.get_timeout(HANG).await.unwrap();
    let exhausted = problem(send(&app, "GET", "/users").await, 503).await;
    assert_eq!(exhausted["title"], "Service Unavailable");
    assert_eq!(
        exhausted["detail"],
        "Too many requests want the database at once."
    );
    problem(send(&app, "GET", "/readyz").await, 503).await;
    assert_eq!(send(&app, "GET", "/livez").await.status(), 200);
    drop(held);
    assert_eq!(text(send(&app, "GET", "/users").await).await, "0");
    assert!(pool.status().last_refused.is_none());
    assert_eq!(send(&app, "GET", "/readyz").await.status(), 200);

    pool.close(HANG).await.unwrap();
    let closed = problem(send(&app, "GET", "/users").await, 503).await;
    assert_eq!(closed["detail"], "The server is about to stop.");
    let closed = problem(send(&app, "GET", "/readyz").await, 503).await;
    assert_eq!(closed["detail"], "The server is about to stop.");
}

#[tokio::test]
async fn a_wrong_password_is_the_servers_own_fault_and_told_to_nobody() {
    let neon = neon().await;
    let wrong = neon.url().replace(neon.password(), "guess");
    let pool = pool(&wrong, |policy| policy);
    let fault = problem(send(&app(&pool), "GET", "/users").await, 500).await;
    assert_eq!(fault["title"], "Internal Server Error");
    for word in ["password", "guess", "neondb"] {
        assert!(!fault.to_string().contains(word), "{fault}");
    }
    let error = pool.get().await.map(drop).unwrap_err();
    let unavailable = Unavailable::from(error.clone());
    assert_eq!(unavailable.to_string(), error.to_string());
    assert_eq!(unavailable.error().to_string(), error.to_string());
}

#[tokio::test]
async fn an_application_answers_in_its_own_words_from_its_own_state() {
    #[derive(Clone)]
    struct App {
        pool: Pool,
    }

    impl FromRef<App> for Pool {
        fn from_ref(app: &App) -> Self {
            app.pool.clone()
        }
    }

    struct Failure(String);

    impl From<PoolError> for Failure {
        fn from(error: PoolError) -> Self {
            Self(format!("no database: {error}"))
        }
    }

    impl From<Error> for Failure {
        fn from(error: Error) -> Self {
            Self(format!("{:?}", error.sqlstate()))
        }
    }

    impl IntoResponse for Failure {
        fn into_response(self) -> Response {
            (StatusCode::IM_A_TEAPOT, self.0).into_response()
        }
    }

    async fn wrong(mut db: Db<Failure>) -> Result<(), Failure> {
        diesel::sql_query("SELECT 1 / 0").execute(&mut db).await?;
        Ok(())
    }

    let neon = neon().await;
    let pool = pool(&neon.url(), |policy| policy);
    let app = Router::new()
        .route("/wrong", get(wrong))
        .merge(health())
        .with_state(App { pool: pool.clone() });
    let failed = send(&app, "GET", "/wrong").await;
    assert_eq!(failed.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(text(failed).await, "Some(\"22012\")");
    assert_eq!(send(&app, "GET", "/readyz").await.status(), 200);
    pool.close(HANG).await.unwrap();
    let closed = text(send(&app, "GET", "/wrong").await).await;
    assert_eq!(closed, "no database: the pool is closed");
}

#[tokio::test]
async fn probes_send_nothing() {
    let neon = neon().await;
    let pool = pool(&neon.url(), |policy| policy);
    let app = app(&pool);
    let before = neon.counters().direct;
    for _ in 0..3 {
        let ready = send(&app, "GET", "/readyz").await;
        assert_eq!(ready.headers()[header::CONTENT_TYPE], "application/json");
        let ready: Value = serde_json::from_str(&text(ready).await).unwrap();
        let numbers = json!({ "max_size": 10, "size": 0, "idle": 0, "in_use": 0, "waiting": 0 });
        assert_eq!(ready, json!({ "status": "ready", "pool": numbers }));
        let alive: Value =
            serde_json::from_str(&text(send(&app, "GET", "/livez").await).await).unwrap();
        assert_eq!(alive, json!({ "status": "alive" }));
    }
    let after = neon.counters().direct;
    assert_eq!(
        (after.attempts, after.statements),
        (before.attempts, before.statements)
    );
}
