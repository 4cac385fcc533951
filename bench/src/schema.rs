//! The tables, and what Diesel reads from them and writes to them.

use diesel::prelude::*;
use diesel::sql_types::{Integer, Text};

diesel::table! {
    authors (id) {
        id -> Integer,
        name -> Text,
    }
}

diesel::table! {
    books (id) {
        id -> Integer,
        author_id -> Integer,
        title -> Text,
        pages -> Integer,
        rating -> Double,
        note -> Nullable<Text>,
    }
}

diesel::table! {
    inserted (id) {
        id -> Integer,
        author_id -> Integer,
        title -> Text,
        pages -> Integer,
        rating -> Double,
        note -> Nullable<Text>,
    }
}

diesel::joinable!(books -> authors (author_id));
diesel::allow_tables_to_appear_in_same_query!(authors, books);

#[derive(Queryable)]
pub struct Book {
    pub id: i32,
    pub _author_id: i32,
    pub title: String,
    pub pages: i32,
    pub _rating: f64,
    pub _note: Option<String>,
}

#[derive(QueryableByName)]
pub struct Joined {
    #[diesel(sql_type = Text, column_name = title)]
    _title: String,
    #[diesel(sql_type = Integer, column_name = pages)]
    pub _pages: i32,
    #[diesel(sql_type = Text, column_name = name)]
    _name: String,
}

#[derive(Insertable)]
#[diesel(table_name = inserted)]
pub struct NewBook<'a> {
    pub author_id: i32,
    pub title: &'a str,
    pub pages: i32,
    pub rating: f64,
}

#[derive(AsChangeset)]
#[diesel(table_name = books)]
pub struct Changes<'a> {
    pub title: Option<&'a str>,
    pub pages: Option<i32>,
    pub rating: Option<f64>,
    pub note: Option<&'a str>,
}
