// @generated automatically by Diesel CLI.

diesel::table! {
    book_requests (key) {
        #[max_length = 255]
        key -> Varchar,
        requested_at -> Timestamptz,
        book_id -> Int4,
        #[max_length = 255]
        title -> Varchar,
        #[max_length = 255]
        author -> Nullable<Varchar>,
        publication_year -> Nullable<Int4>,
        in_stock -> Bool,
    }
}

diesel::table! {
    books (id) {
        id -> Int4,
        #[max_length = 255]
        title -> Varchar,
        #[max_length = 255]
        author -> Nullable<Varchar>,
        publication_year -> Nullable<Int4>,
        in_stock -> Bool,
    }
}

diesel::allow_tables_to_appear_in_same_query!(book_requests, books,);
