//! The app in a process of its own, on a stand-in for Neon.

#[path = "../../../tests/from_the_docs/server.rs"]
mod server;

use std::time::Duration;

use neon_sim::{NeonSim, Suspension};
use tokio::process::Command;
use tokio::time::sleep;

use server::{Server, get, send};

#[tokio::test]
async fn a_suspension_between_two_requests_goes_unnoticed() {
    let neon = NeonSim::builder().never_suspend().start().await;
    let neon = neon.expect("the stand-in for Neon starts");
    let mut books = Vec::new();
    for url in [neon.url(), neon.pooled_url()] {
        let mut app = Command::new(env!("CARGO_BIN_EXE_library-on-actix"));
        app.env_clear().env("DATABASE_URL", url).env("PORT", "0");
        // No `.env` file is above this folder.
        app.current_dir(neon.ca_path().parent().unwrap());
        let server = Server::start(app).await;

        let id = books.len() + 1;
        let book = format!(r#"{{"id":{id},"title":"Dune"}}"#);
        let added = send(&server.address, "POST /books", r#"{"title":"Dune"}"#).await;
        assert_eq!(added, (201, book.clone()));
        books.push(book);
        let all = (200, format!("[{}]", books.join(",")));
        assert_eq!(get(&server.address, "/books").await, all);

        for suspension in [Suspension::Normal, Suspension::Reset, Suspension::Silent] {
            // A compute is suspended after quiet minutes; what answered just now would be handed out unasked.
            sleep(Duration::from_secs(1)).await;
            neon.suspend(suspension).await;
            assert!(neon.is_suspended());
            // Of several clients at once, so that each worker has one.
            let asked: Vec<_> = (0..16)
                .map(|_| {
                    let address = server.address.clone();
                    tokio::spawn(async move { get(&address, "/books").await })
                })
                .collect();
            for answer in asked {
                assert_eq!(answer.await.unwrap(), all, "{suspension:?}");
            }
            assert!(!neon.is_suspended());
        }
    }
}
