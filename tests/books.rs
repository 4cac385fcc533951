//! The queries of `diesel_neon::books`, through the pooled endpoint of a stand-in for Neon.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use diesel::prelude::*;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::books::schema::books as table;
use diesel_neon::books::{self, Book, BookChanges, BookList, Cursor, NewBook, Order, PageSize};
use diesel_neon::{Connection, Pool, RetryError};
use neon_sim::{NeonSim, Suspension};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use common::{HANG, neon, neon_with, pool};

const UP: &str = concat!(
    include_str!("../migrations/2026-01-05-090000_create_books/up.sql"),
    include_str!("../migrations/2026-01-12-090000_create_book_requests/up.sql")
);
const DOWN: &str = concat!(
    include_str!("../migrations/2026-01-12-090000_create_book_requests/down.sql"),
    include_str!("../migrations/2026-01-05-090000_create_books/down.sql")
);

/// Returns a pool on a database of its own that has no books yet.
async fn library() -> Pool {
    static NEON: OnceCell<NeonSim> = OnceCell::const_new();
    static DATABASES: AtomicU32 = AtomicU32::new(0);

    let neon = NEON.get_or_init(neon).await;
    let database = format!("library{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    neon.create_database(&database).await.unwrap();

    let url = neon
        .pooled_url()
        .replace("/neondb?", &format!("/{database}?"));
    let pool = pool(&url, |policy| policy);
    pool.get().await.unwrap().batch_execute(UP).await.unwrap();
    pool
}

fn dune() -> NewBook {
    NewBook::new("Dune")
        .author("Frank Herbert")
        .publication_year(1965)
}

/// Returns one book for each year, titled by its position.
fn published(years: &[Option<i32>]) -> Vec<NewBook> {
    let book = |(i, year): (usize, &Option<i32>)| {
        let mut book = NewBook::new(i.to_string());
        book.publication_year = *year;
        book
    };
    years.iter().enumerate().map(book).collect()
}

fn titles(books: &[Book]) -> Vec<&str> {
    books.iter().map(|book| book.title.as_str()).collect()
}

fn pages_of(size: u32) -> PageSize {
    PageSize::try_from(size).unwrap()
}

#[tokio::test]
async fn the_migrations_go_up_down_and_up_again() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();
    conn.batch_execute(DOWN).await.unwrap();
    conn.batch_execute(UP).await.unwrap();
    assert_eq!(table::table.count().get_result(&mut conn).await, Ok(0i64));
}

#[tokio::test]
async fn a_book_is_found_as_it_was_inserted() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();

    let inserted = books::insert(&mut conn, &dune().in_stock(false))
        .await
        .unwrap();
    assert_eq!(inserted.title, "Dune");
    assert_eq!(inserted.author.as_deref(), Some("Frank Herbert"));
    assert_eq!(inserted.publication_year, Some(1965));
    assert!(!inserted.in_stock);
    assert_eq!(
        books::find(&mut conn, inserted.id).await,
        Ok(Some(inserted))
    );

    let sparse = books::insert(&mut conn, &NewBook::new("Beowulf"))
        .await
        .unwrap();
    assert_eq!((sparse.author, sparse.publication_year), (None, None));
    assert!(sparse.in_stock);
}

#[tokio::test]
async fn many_books_are_inserted_in_order() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();

    let three = [dune(), NewBook::new("Beowulf"), dune()];
    let inserted = books::insert_many(&mut conn, &three).await.unwrap();
    assert_eq!(titles(&inserted), ["Dune", "Beowulf", "Dune"]);
    assert!(inserted.is_sorted_by_key(|book| book.id));

    assert_eq!(books::insert_many(&mut conn, &[]).await, Ok(vec![]));
}

#[tokio::test]
async fn more_books_than_one_statement_holds_are_inserted_all_or_none() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();

    let mut many = vec![NewBook::new("x"); 20_000];
    many[19_999] = NewBook::new("x".repeat(256));
    books::insert_many(&mut conn, &many).await.unwrap_err();
    assert_eq!(table::table.count().get_result(&mut conn).await, Ok(0i64));

    many[19_999] = NewBook::new("the last");
    let inserted = books::insert_many(&mut conn, &many).await.unwrap();
    assert_eq!(inserted.len(), 20_000);
    assert_eq!(inserted[19_999].title, "the last");
    assert_eq!(
        table::table.count().get_result(&mut conn).await,
        Ok(20_000i64)
    );
}

#[tokio::test]
async fn what_the_validation_takes_the_database_takes_too() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();

    let longest = NewBook::new("ß".repeat(255)).author("漢".repeat(255));
    let longest = longest.validated().unwrap();
    assert!(books::insert(&mut conn, &longest).await.is_ok());

    let too_long = NewBook::new("a".repeat(256));
    assert!(books::insert(&mut conn, &too_long).await.is_err());
    assert!(too_long.validated().is_err());
}

#[tokio::test]
async fn a_book_that_is_not_there_is_none() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();

    let changes = BookChanges::new().in_stock(false);
    assert_eq!(books::find(&mut conn, 1).await, Ok(None));
    assert_eq!(books::update(&mut conn, 1, &changes).await, Ok(None));
    assert_eq!(
        books::update(&mut conn, 1, &BookChanges::new()).await,
        Ok(None)
    );
    assert_eq!(books::delete(&mut conn, 1).await, Ok(None));
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_can_set_null() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();
    let book = books::insert(&mut conn, &dune()).await.unwrap();

    let anonymous = BookChanges::new().author(None);
    let updated = books::update(&mut conn, book.id, &anonymous)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(updated.author, None);
    assert_eq!(
        (updated.title.as_str(), updated.publication_year),
        ("Dune", Some(1965))
    );

    let sequel = BookChanges::new()
        .title("Dune Messiah")
        .publication_year(1969);
    let updated = books::update(&mut conn, book.id, &sequel)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (updated.title.as_str(), updated.publication_year),
        ("Dune Messiah", Some(1969))
    );
    assert_eq!(books::find(&mut conn, book.id).await, Ok(Some(updated)));
}

#[tokio::test]
async fn an_update_of_nothing_returns_the_book() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();
    let book = books::insert(&mut conn, &dune()).await.unwrap();
    assert_eq!(
        books::update(&mut conn, book.id, &BookChanges::new()).await,
        Ok(Some(book))
    );
}

#[tokio::test]
async fn a_book_is_replaced_as_a_whole() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();
    let book = books::insert(&mut conn, &dune().in_stock(false))
        .await
        .unwrap();

    let other = NewBook::new("Beowulf").into();
    let replaced = books::update(&mut conn, book.id, &other)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((replaced.id, replaced.title.as_str()), (book.id, "Beowulf"));
    assert_eq!((replaced.author, replaced.publication_year), (None, None));
    assert!(replaced.in_stock);
}

#[tokio::test]
async fn a_deleted_book_is_returned_and_gone() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();
    let book = books::insert(&mut conn, &dune()).await.unwrap();
    let id = book.id;
    assert_eq!(books::delete(&mut conn, id).await, Ok(Some(book)));
    assert_eq!(books::find(&mut conn, id).await, Ok(None));
}

#[tokio::test]
async fn pages_of_any_size_make_up_the_whole_in_either_order() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();
    let years = [
        Some(1965),
        None,
        Some(-750),
        Some(1965),
        None,
        Some(1937),
        Some(1965),
    ];
    books::insert_many(&mut conn, &published(&years))
        .await
        .unwrap();

    for (order, expected) in [
        (Order::Id, ["0", "1", "2", "3", "4", "5", "6"]),
        (Order::PublicationYear, ["2", "5", "0", "3", "6", "1", "4"]),
    ] {
        for size in 1..=8 {
            let mut all = Vec::new();
            let mut page = BookList::new(order)
                .limit(pages_of(size))
                .load(&mut conn)
                .await
                .unwrap();
            loop {
                assert!(page.books.len() <= size as usize);
                all.extend(page.books);
                let Some(next) = page.next else { break };
                // A client sends the cursor back as text.
                let next: Cursor = next.to_string().parse().unwrap();
                page = BookList::after(next)
                    .limit(pages_of(size))
                    .load(&mut conn)
                    .await
                    .unwrap();
            }
            assert_eq!(titles(&all), expected, "{order:?}, pages of {size}");
        }
    }
}

#[tokio::test]
async fn books_that_come_and_go_between_pages_neither_repeat_nor_hide_others() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();
    let years = [Some(1937), Some(1949), Some(1951), Some(1965)];
    let inserted = books::insert_many(&mut conn, &published(&years))
        .await
        .unwrap();

    let first = BookList::new(Order::PublicationYear).limit(pages_of(2));
    let first = first.load(&mut conn).await.unwrap();
    assert_eq!(titles(&first.books), ["0", "1"]);

    // One book in front of the cursor is deleted, and the book that the cursor names.
    let early = NewBook::new("early").publication_year(1900);
    books::insert(&mut conn, &early).await.unwrap();
    books::delete(&mut conn, inserted[1].id).await.unwrap();

    let second = BookList::after(first.next.unwrap())
        .load(&mut conn)
        .await
        .unwrap();
    assert_eq!(titles(&second.books), ["2", "3"]);
    assert_eq!(second.next, None);
}

#[tokio::test]
async fn filters_narrow_the_list_together() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();
    let library = [
        dune(),
        NewBook::new("Dune Messiah")
            .author("Frank Herbert")
            .publication_year(1969)
            .in_stock(false),
        NewBook::new("The Hobbit")
            .author("J.R.R. Tolkien")
            .publication_year(1937),
        NewBook::new("Beowulf"),
    ];
    books::insert_many(&mut conn, &library).await.unwrap();

    let all = BookList::new(Order::Id);
    for (list, expected) in [
        (
            all.clone(),
            &["Dune", "Dune Messiah", "The Hobbit", "Beowulf"][..],
        ),
        (
            all.clone().author("Frank Herbert"),
            &["Dune", "Dune Messiah"],
        ),
        (all.clone().author("frank herbert"), &[]),
        (all.clone().in_stock(false), &["Dune Messiah"]),
        (
            all.clone().author("Frank Herbert").in_stock(true),
            &["Dune"],
        ),
        (
            all.clone().title_contains("dune"),
            &["Dune", "Dune Messiah"],
        ),
        (all.clone().published_from(1965), &["Dune", "Dune Messiah"]),
        (all.clone().published_to(1965), &["Dune", "The Hobbit"]),
        (
            all.clone().published_from(1938).published_to(1968),
            &["Dune"],
        ),
        (
            all.clone().author(None).in_stock(None),
            &["Dune", "Dune Messiah", "The Hobbit", "Beowulf"],
        ),
    ] {
        let description = format!("{list:?}");
        let page = list.load(&mut conn).await.unwrap();
        assert_eq!(titles(&page.books), expected, "{description}");
    }
}

#[tokio::test]
async fn filters_hold_on_every_page() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();
    let mut library = published(&[None; 10]);
    for book in library.iter_mut().step_by(2) {
        book.in_stock = false;
    }
    books::insert_many(&mut conn, &library).await.unwrap();

    let page = BookList::new(Order::PublicationYear)
        .in_stock(false)
        .limit(pages_of(3));
    let page = page.load(&mut conn).await.unwrap();
    assert_eq!(titles(&page.books), ["0", "2", "4"]);
    let page = BookList::after(page.next.unwrap())
        .in_stock(false)
        .load(&mut conn)
        .await
        .unwrap();
    assert_eq!(titles(&page.books), ["6", "8"]);
}

#[tokio::test]
async fn what_means_something_to_like_is_looked_for_literally() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();
    let library = [
        "100%",
        "100 years",
        "a_b",
        "acb",
        r"back\slash",
        "backslash",
    ];
    books::insert_many(&mut conn, &library.map(NewBook::new))
        .await
        .unwrap();

    for (text, expected) in [
        ("%", &["100%"][..]),
        ("0%", &["100%"]),
        ("_", &["a_b"]),
        (r"\", &[r"back\slash"]),
        (r"\%", &[]),
        ("k\\s", &[r"back\slash"]),
        ("BACK", &[r"back\slash", "backslash"]),
        ("'", &[]),
    ] {
        let page = BookList::new(Order::Id)
            .title_contains(text)
            .load(&mut conn)
            .await
            .unwrap();
        assert_eq!(titles(&page.books), expected, "{text}");
    }
}

#[tokio::test]
async fn text_that_postgres_cannot_hold_matches_nothing() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();
    books::insert(&mut conn, &dune()).await.unwrap();
    let page = BookList::new(Order::Id)
        .author("Frank\0Herbert")
        .load(&mut conn)
        .await
        .unwrap();
    assert!(page.books.is_empty());
}

#[tokio::test]
async fn a_transaction_that_fails_takes_its_books_with_it() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();
    let refused = conn.transaction(async |conn| {
        books::insert(conn, &dune()).await?;
        books::insert_many(conn, &[dune(), dune()]).await?;
        assert_eq!(BookList::new(Order::Id).load(conn).await?.books.len(), 3);
        Err::<(), _>(diesel::result::Error::RollbackTransaction)
    });
    refused.await.unwrap_err();
    assert_eq!(table::table.count().get_result(&mut conn).await, Ok(0i64));
}

#[tokio::test]
async fn a_key_makes_one_book_however_often_it_is_used() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();
    for book in [dune(), NewBook::new("Beowulf").in_stock(false)] {
        let key = book.title.as_str();
        let made = books::insert_once(&mut conn, key, &book).await.unwrap();
        let made = made.unwrap();
        assert_eq!(
            books::find(&mut conn, made.id).await,
            Ok(Some(made.clone()))
        );

        // The book comes back as it was made, even if it has changed since.
        let again = books::insert_once(&mut conn, key, &book).await;
        assert_eq!(again, Ok(Some(made.clone())));
        let changes = BookChanges::new().title("changed");
        books::update(&mut conn, made.id, &changes).await.unwrap();
        let again = books::insert_once(&mut conn, key, &book).await;
        assert_eq!(again, Ok(Some(made.clone())));
        books::delete(&mut conn, made.id).await.unwrap();
        let again = books::insert_once(&mut conn, key, &book).await;
        assert_eq!(again, Ok(Some(made)));
        assert_eq!(table::table.count().get_result(&mut conn).await, Ok(0i64));
    }
    for key in ["one", "another"] {
        books::insert_once(&mut conn, key, &dune()).await.unwrap();
    }
    assert_eq!(table::table.count().get_result(&mut conn).await, Ok(2i64));
}

#[tokio::test]
async fn a_key_that_belongs_to_another_book_makes_none() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();
    books::insert_once(&mut conn, "key", &dune()).await.unwrap();
    let mut without_author = dune();
    without_author.author = None;
    let mut without_year = dune();
    without_year.publication_year = None;
    for other in [
        NewBook::new("dune")
            .author("Frank Herbert")
            .publication_year(1965),
        dune().author("Brian Herbert"),
        without_author,
        dune().publication_year(1966),
        without_year,
        dune().in_stock(false),
    ] {
        let made = books::insert_once(&mut conn, "key", &other).await;
        assert_eq!(made, Ok(None), "{other:?}");
    }
    assert_eq!(table::table.count().get_result(&mut conn).await, Ok(1i64));
}

#[tokio::test]
async fn a_request_that_fails_leaves_its_key_free() {
    let pool = library().await;
    let mut conn = pool.get().await.unwrap();
    let too_long = NewBook::new("a".repeat(256));
    let refused = books::insert_once(&mut conn, "key", &too_long).await;
    refused.unwrap_err();
    let undone = conn.transaction(async |conn| {
        books::insert_once(conn, "key", &dune()).await?;
        Err::<(), _>(diesel::result::Error::RollbackTransaction)
    });
    undone.await.unwrap_err();
    assert_eq!(table::table.count().get_result(&mut conn).await, Ok(0i64));
    let made = books::insert_once(&mut conn, "key", &dune()).await.unwrap();
    assert_eq!(made.unwrap().title, "Dune");
}

#[tokio::test]
async fn sixteen_callers_with_one_key_get_one_book() {
    let pool = library().await;
    for in_transaction in [false, true] {
        let callers: Vec<_> = (0..16)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move { once(&pool, in_transaction, || {}).await })
            })
            .collect();
        let mut made = Vec::new();
        for caller in callers {
            let book = timeout(HANG, caller).await.unwrap().unwrap().unwrap();
            made.push(book.unwrap());
        }
        made.dedup();
        assert_eq!(made.len(), 1, "{made:?}");
        let mut conn = pool.get().await.unwrap();
        assert_eq!(
            table::table.count().get_result(&mut conn).await,
            Ok(1 + i64::from(in_transaction))
        );
    }
}

#[tokio::test]
async fn a_book_whose_commit_got_no_answer_is_not_made_twice() {
    let neon = neon_with(|neon| neon.cold_start(Duration::from_millis(10))).await;
    neon.sql(&format!("SET ROLE neondb_owner; {UP}"))
        .await
        .unwrap();
    for url in [neon.url(), neon.pooled_url()] {
        let pool = pool(&url, |policy| policy);
        for in_transaction in [false, true] {
            neon.sql("TRUNCATE books, book_requests").await.unwrap();
            let attempts = AtomicU32::new(0);
            let work = once(&pool, in_transaction, || {
                if attempts.fetch_add(1, Ordering::Relaxed) == 0 {
                    neon.set_latency(Duration::from_secs(1));
                }
            });
            let loss = async {
                // The COMMIT has arrived, and its response is under way.
                while count(&neon).await == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                neon.set_latency(Duration::ZERO);
                neon.suspend(Suspension::Reset).await;
            };
            let (made, ()) = timeout(HANG, async { tokio::join!(work, loss) })
                .await
                .unwrap();
            let made = made.unwrap().unwrap();
            assert_eq!(
                attempts.into_inner(),
                2,
                "in a transaction: {in_transaction}"
            );
            assert_eq!(count(&neon).await, 1);
            let mut conn = pool.get().await.unwrap();
            assert_eq!(books::find(&mut conn, made.id).await, Ok(Some(made)));
        }
    }
}

/// Makes a book under a key as work that may be repeated, with `before` in front of each attempt.
async fn once(
    pool: &Pool,
    in_transaction: bool,
    before: impl Fn() + Sync,
) -> Result<Option<Book>, RetryError> {
    let (key, dune) = (in_transaction.to_string(), dune());
    let work = async |conn: &mut Connection| {
        before();
        let made = books::insert_once(conn, &key, &dune).await;
        made.map_err(RetryError::from)
    };
    match in_transaction {
        false => pool.retry().idempotent().run(work).await,
        true => pool.retry().idempotent().transaction(work).await,
    }
}

async fn count(neon: &NeonSim) -> i64 {
    let rows = neon.sql("SELECT count(*) FROM books").await.unwrap();
    rows[0][0].as_ref().unwrap().parse().unwrap()
}

#[tokio::test]
async fn every_query_runs_in_a_spawned_task() {
    let pool = library().await;
    let task = tokio::spawn(async move {
        let mut conn = pool.get_owned().await?;
        let dune = books::insert(&mut conn, &dune()).await?;
        books::insert_many(&mut conn, &[NewBook::new("Beowulf")]).await?;
        books::insert_once(&mut conn, "key", &NewBook::new("Emma")).await?;
        books::update(&mut conn, dune.id, &BookChanges::new().in_stock(false)).await?;
        books::find(&mut conn, dune.id).await?;
        BookList::new(Order::Id)
            .author("Frank Herbert")
            .load(&mut conn)
            .await?;
        books::delete(&mut conn, dune.id).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    });
    task.await.unwrap().unwrap();
}

mod json {
    use diesel_neon::books::{Book, BookChanges, BookPage, NewBook};
    use serde_json::{from_value, json};

    #[test]
    fn a_change_that_is_absent_is_not_a_change_to_null() {
        let changes: BookChanges = from_value(json!({})).unwrap();
        assert!(changes.is_empty());
        let changes: BookChanges = from_value(json!({ "author": null })).unwrap();
        assert_eq!(changes, BookChanges::new().author(None));
        let changes: BookChanges = from_value(json!({ "publication_year": 1965 })).unwrap();
        assert_eq!(changes, BookChanges::new().publication_year(1965));
    }

    #[test]
    fn a_column_that_is_never_null_does_not_become_so() {
        assert!(from_value::<BookChanges>(json!({ "title": null })).is_err());
        assert!(from_value::<BookChanges>(json!({ "in_stock": null })).is_err());
        assert!(from_value::<NewBook>(json!({ "title": "Dune", "in_stock": null })).is_err());
    }

    #[test]
    fn a_new_book_needs_a_title_only() {
        let book: NewBook = from_value(json!({ "title": "Dune" })).unwrap();
        assert_eq!(book, NewBook::new("Dune"));
        assert!(from_value::<NewBook>(json!({ "author": "Frank Herbert" })).is_err());
    }

    #[test]
    fn a_field_that_no_book_has_is_refused() {
        assert!(from_value::<NewBook>(json!({ "title": "Dune", "id": 1 })).is_err());
        assert!(from_value::<BookChanges>(json!({ "id": 1 })).is_err());
    }

    #[test]
    fn a_page_survives_the_way_through_json() {
        let page = json!({
            "books": [{
                "id": 4, "title": "Dune", "author": null, "publication_year": 1965, "in_stock": true
            }],
            "next": "1965:4",
        });
        let parsed: BookPage = from_value(page.clone()).unwrap();
        assert_eq!(serde_json::to_value(&parsed).unwrap(), page);
        let _: Book = from_value(page["books"][0].clone()).unwrap();
    }
}
