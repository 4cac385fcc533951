//! The page of the example `axum_server`, in a real browser, in front of a stand-in for Neon.

mod browser;
#[path = "../common/mod.rs"]
mod common;
mod library;
mod looks;
mod scene;
mod stage;
