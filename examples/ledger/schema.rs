// @generated automatically by Diesel CLI.

diesel::table! {
    accounts (id) {
        id -> Int4,
        #[max_length = 255]
        name -> Varchar,
        balance -> Numeric,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    transactions (id) {
        id -> Int4,
        account_id -> Int4,
        amount -> Numeric,
        date -> Timestamptz,
    }
}

diesel::joinable!(transactions -> accounts (account_id));

diesel::allow_tables_to_appear_in_same_query!(accounts, transactions,);
