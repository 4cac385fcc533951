//! `diesel-neon doctor`: each failure provoked, and named.

#![cfg(unix)]

mod doctor;
mod environment;
#[path = "../common/folder.rs"]
mod folder;
mod login;
mod network;
mod pool;
mod report;
mod server;
mod tls;
