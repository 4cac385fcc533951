//! The rooms of `src/`, each of which imports only from those above.

#[path = "../../tests/common/layers/mod.rs"]
mod layers;

use std::path::Path;

use layers::{ABOVE, assert_layers};

#[test]
fn each_room_imports_only_from_those_above() {
    let rooms = [
        ("error", &[][..]),
        ("sync", &[]),
        ("protocol", &[]),
        ("servers", &["error", "sync"]),
        ("control", &["sync", "protocol", "servers"]),
        ("proxy", &["error", "sync", "protocol", "control"]),
        ("sql", &["sync", "protocol", "control", "proxy"]),
        ("https", &["control", "proxy", "sql"]),
        ("http_proxy", &["error", "sync", "control", "proxy"]),
        ("remote", &["control", "proxy", "servers"]),
        ("sim", ABOVE),
        ("test_database", &["error", "sync", "servers", "sim"]),
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    assert_layers(&root, &rooms);
}
