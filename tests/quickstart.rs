//! The examples `quickstart` and `quickstart_blocking` print what Neon's guide for Python prints.

#[path = "quickstart/ci.rs"]
mod ci;
mod common;

use std::path::Path;
use std::process::Output;

use common::{HANG, example, neon};
use neon_sim::{NeonSim, Suspension};
use tokio::time::timeout;

const EXPECTED: &str = "\
Connection established
Finished dropping table (if it existed).
Finished creating table.
Inserted a single book.
Inserted 3 rows of data.

--- Book Library ---
ID: 2, Title: The Hobbit, Author: J.R.R. Tolkien, Year: 1937, In Stock: True
ID: 3, Title: 1984, Author: George Orwell, Year: 1949, In Stock: True
ID: 1, Title: The Catcher in the Rye, Author: J.D. Salinger, Year: 1951, In Stock: True
ID: 4, Title: Dune, Author: Frank Herbert, Year: 1965, In Stock: False
--------------------

Updated stock status for 'Dune'.

--- Book Library ---
ID: 2, Title: The Hobbit, Author: J.R.R. Tolkien, Year: 1937, In Stock: True
ID: 3, Title: 1984, Author: George Orwell, Year: 1949, In Stock: True
ID: 1, Title: The Catcher in the Rye, Author: J.D. Salinger, Year: 1951, In Stock: True
ID: 4, Title: Dune, Author: Frank Herbert, Year: 1965, In Stock: True
--------------------

Deleted the book '1984' from the table.

--- Book Library ---
ID: 2, Title: The Hobbit, Author: J.R.R. Tolkien, Year: 1937, In Stock: True
ID: 1, Title: The Catcher in the Rye, Author: J.D. Salinger, Year: 1951, In Stock: True
ID: 4, Title: Dune, Author: Frank Herbert, Year: 1965, In Stock: True
--------------------

";

#[tokio::test]
async fn prints_what_the_guide_prints_on_the_direct_endpoint_again_and_again() {
    let neon = neon().await;
    prints_what_the_guide_prints(&neon, &neon.url()).await;
}

#[tokio::test]
async fn prints_what_the_guide_prints_on_the_pooled_endpoint_again_and_again() {
    let neon = neon().await;
    prints_what_the_guide_prints(&neon, &neon.pooled_url()).await;
}

async fn prints_what_the_guide_prints(neon: &NeonSim, url: &str) {
    for _ in 0..2 {
        let output = quickstart(folder(neon), Some(url)).await;
        assert_eq!(text(&output.stdout), EXPECTED, "{}", text(&output.stderr));
        assert!(output.status.success());
    }
}

/// The features are those of the suite, so that each way is there.
#[cfg(all(feature = "http", feature = "websocket"))]
#[tokio::test]
async fn prints_the_same_over_each_transport_also_after_a_suspension() {
    let neon = neon().await;
    for way in ["tcp", "websocket", "auto", "https"] {
        for url in [neon.url(), neon.pooled_url()] {
            let url = common::over_websocket(&neon, url).replace("&transport=websocket", "");
            neon.suspend(Suspension::Normal).await;
            let mut command = example("quickstart");
            command.args(["--transport", way]).env("DATABASE_URL", url);
            let output = timeout(HANG, command.current_dir(folder(&neon)).output());
            let output = output.await.expect("no hang").unwrap();
            assert_eq!(
                text(&output.stdout),
                EXPECTED,
                "{way}: {}",
                text(&output.stderr)
            );
        }
    }
}

#[tokio::test]
async fn prints_the_same_without_async() {
    let neon = neon().await;
    for url in [neon.url(), neon.pooled_url()] {
        neon.suspend(Suspension::Normal).await;
        let output = run("quickstart_blocking", folder(&neon), Some(&url)).await;
        assert_eq!(text(&output.stdout), EXPECTED, "{}", text(&output.stderr));
        assert!(output.status.success());
    }
    let output = run("quickstart_blocking", folder(&neon), None).await;
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("Error: no database URL"), "{stderr}");
}

#[tokio::test]
async fn takes_a_database_in_which_the_migrations_have_run() {
    let neon = neon().await;
    for up in [
        include_str!("../migrations/2026-01-05-090000_create_books/up.sql"),
        include_str!("../migrations/2026-01-12-090000_create_book_requests/up.sql"),
    ] {
        neon.sql(&format!("SET ROLE neondb_owner; {up}"))
            .await
            .unwrap();
    }
    prints_what_the_guide_prints(&neon, &neon.url()).await;
}

#[tokio::test]
async fn finds_the_url_in_a_dotenv_file() {
    let neon = neon().await;
    let dotenv = format!("DATABASE_URL='{}'\n", neon.pooled_url());
    std::fs::write(folder(&neon).join(".env"), dotenv).unwrap();
    let output = quickstart(folder(&neon), None).await;
    assert_eq!(text(&output.stdout), EXPECTED, "{}", text(&output.stderr));
}

#[tokio::test]
async fn wakes_a_compute_that_sleeps() {
    let neon = neon().await;
    neon.suspend(Suspension::Normal).await;
    let output = quickstart(folder(&neon), Some(&neon.pooled_url())).await;
    assert_eq!(text(&output.stdout), EXPECTED, "{}", text(&output.stderr));
}

/// A `main` that returns an error prints its Debug.
#[tokio::test]
async fn says_what_is_wrong_in_the_words_of_the_error() {
    let neon = neon().await;
    let nowhere = folder(&neon);
    let wrong_password = neon.url().replacen(neon.password(), "s3cret", 1);
    assert_ne!(wrong_password, neon.url());
    for (url, message) in [
        (
            None,
            "no database URL in the environment: looked at DATABASE_URL, POSTGRES_URL; set DATABASE_URL",
        ),
        (
            Some("neondb_owner:s3cret@localhost/neondb"),
            "DATABASE_URL cannot be used: the database URL does not start with postgresql:// or postgres://",
        ),
        (
            Some(
                "postgresql://app:s3cret@localhost/neondb?sslmode=verify-full&sslrootcert=/nowhere/root.pem",
            ),
            "sslrootcert /nowhere/root.pem: ",
        ),
        (
            Some(&wrong_password),
            "password authentication failed for user",
        ),
    ] {
        let output = quickstart(nowhere, url).await;
        assert_eq!(output.status.code(), Some(1));
        let stderr = text(&output.stderr);
        assert!(stderr.starts_with(&format!("Error: {message}")), "{stderr}");
        assert!(!stderr.contains("s3cr"), "{stderr}");
    }
}

/// A package has no stand-in to compile the page with.
#[test]
fn the_page_on_ci_shows_a_test_that_runs_here() {
    let page = include_str!("../docs/ci.md");
    let shown = format!("```rust,ignore\n{}```\n", include_str!("quickstart/ci.rs"));
    assert!(page.contains(&shown), "{shown}");
}

/// GitHub shows the lines that rustdoc hides.
#[test]
fn the_readme_shows_whole_examples() {
    let readme = include_str!("../README.md");
    let mut in_rust = false;
    for line in readme.lines() {
        match line.strip_prefix("```") {
            Some(language) => in_rust = language.starts_with("rust"),
            None => assert!(!in_rust || !line.starts_with("# "), "{line}"),
        }
    }
    let first = readme.split("```").nth(1).unwrap();
    assert!(first.contains("async fn main()"), "{first}");
}

async fn quickstart(folder: &Path, url: Option<&str>) -> Output {
    run("quickstart", folder, url).await
}

async fn run(name: &str, folder: &Path, url: Option<&str>) -> Output {
    let mut command = example(name);
    command.current_dir(folder);
    if let Some(url) = url {
        command.env("DATABASE_URL", url);
    }
    let output = timeout(HANG, command.output());
    output.await.expect("the example hangs").unwrap()
}

/// Returns a folder that is removed with the stand-in, and has no `.env` above it.
fn folder(neon: &NeonSim) -> &Path {
    neon.ca_path().parent().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
