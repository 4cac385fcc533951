//! The numbers of a pool.

use crate::doctor::{Doctor, start};

#[tokio::test]
async fn a_pool_that_does_not_fit_is_a_failure() {
    let neon = start().await;
    let doctor = Doctor::new("too_large")
        .set("DATABASE_URL", &neon.url())
        .argument("--instances=50")
        .argument("--max-size=20");
    let report = doctor.fails(Some("connections"), "pool-too-large").await;
    assert_eq!(report.check("connections")["facts"]["wanted"], 1000);

    // More instances than connections: no size of a pool would do.
    let doctor = Doctor::new("too_many")
        .set("DATABASE_URL", &neon.url())
        .argument("--instances=5000");
    let report = doctor.fails(Some("connections"), "pool-too-large").await;
    let mend = report.check("connections")["mend"].as_str().unwrap();
    assert!(mend.starts_with("run at most 97 instances, "), "{mend}");

    // Through the pooler the same size fits.
    let doctor = Doctor::new("fits")
        .set("DATABASE_URL", &neon.pooled_url())
        .argument("--instances=50")
        .argument("--max-size=20");
    assert_eq!(doctor.json().await.code, 0);
    // Only the direct endpoint can be asked here, and the pool does not use it.
    let doctor = Doctor::new("fits_unasked")
        .set(
            "DATABASE_URL",
            &format!("{}&options=-c%20work_mem%3D8MB", neon.pooled_url()),
        )
        .set("DIRECT_URL", &neon.url())
        .argument("--instances=50");
    let report = doctor.fails(Some("start"), "startup-options").await;
    assert_eq!(report.value["failures"], 1, "{report:?}");
    assert_eq!(report.check("connections")["status"], "skipped");
    assert_eq!(report.check("migrations")["endpoint"], "direct");

    neon.sql("ALTER ROLE neondb_owner CONNECTION LIMIT 8")
        .await
        .unwrap();
    let doctor = Doctor::new("role_limit").set("DATABASE_URL", &neon.url());
    let report = doctor.fails(Some("connections"), "pool-too-large").await;
    assert_eq!(report.check("connections")["facts"]["room"], 8);
}

#[tokio::test]
async fn the_pools_numbers_follow_from_the_settings() {
    let neon = start().await;
    let doctor = Doctor::new("numbers")
        .set("DATABASE_URL", &format!("{}&connect_timeout=3", neon.url()))
        .argument("--suspend-after=60s")
        .argument("--max-size=7");
    let report = doctor.json().await;
    let check = report.check("pool");
    let facts = &check["facts"];
    assert_eq!(facts["max_lifetime_seconds"], 48.0);
    assert_eq!(facts["idle_timeout_seconds"], 30.0);
    assert_eq!(facts["max_size"], 7);
    assert_eq!(check["code"], "connect-timeout-short");
}
