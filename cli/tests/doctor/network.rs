//! Names and addresses.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::doctor::{Doctor, Report, start};

/// Returns a port that refuses connections. No other socket is given it while this one lives.
fn refusing_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

#[tokio::test]
async fn where_only_port_443_is_open_the_way_over_it_is_shown() {
    let neon = start().await;
    let (_refusing, closed) = refusing_port();
    let url = neon.pooled_url();
    let url = url.replace(&format!(":{}/", neon.port()), &format!(":{closed}/"));
    let open = format!("{url}&https_port={}", neon.https_port());
    let report = Doctor::new("firewall")
        .set("DATABASE_URL", &open)
        .json()
        .await;
    assert_eq!(report.check("tcp")["code"], "tcp-refused");
    let check = report.check("websocket");
    assert_eq!(check["status"], "ok", "{check:?}");
    assert!(check["details"].to_string().contains("transport=websocket"));

    let shut = format!("{url}&https_port={closed}");
    let report = Doctor::new("wall").set("DATABASE_URL", &shut).json().await;
    assert_eq!(report.check("websocket")["code"], "tcp-refused");
}

#[tokio::test]
async fn the_way_that_is_asked_for_is_looked_at_whether_or_not_the_other_works() {
    let neon = start().await;
    let (_refusing, closed) = refusing_port();
    // As the console shows it: with a channel binding that no WebSocket holds.
    let url = format!("{}&https_port={}", neon.pooled_url(), neon.https_port());
    assert!(url.contains("channel_binding=require"));
    let blocked = url.replace(&format!(":{}/", neon.port()), &format!(":{closed}/"));
    let ask = async |url: &str, way: &str| {
        let doctor = Doctor::new("ways").set("DATABASE_URL", url);
        doctor.argument("--transport").argument(way).json().await
    };
    let has = |report: &Report, name: &str, status: &str| {
        let mut checks = report.checks().iter();
        checks.any(|check| check["check"] == name && check["status"] == status)
    };
    let is_looked_at = |report: &Report| {
        let mut checks = report.checks().iter();
        checks.any(|check| check["check"] == "websocket")
    };

    let report = ask(&url, "tcp").await;
    assert!(has(&report, "authentication", "ok") && !is_looked_at(&report));
    let report = ask(&blocked, "tcp").await;
    assert_eq!(report.check("tcp")["code"], "tcp-refused");
    assert!(!is_looked_at(&report), "{report:?}");

    for url in [&url, &blocked] {
        let report = ask(url, "websocket").await;
        let check = report.check("websocket");
        assert!(check["details"].to_string().contains("transport=websocket"));
        let address = format!("127.0.0.1:{}", neon.https_port());
        assert_eq!(report.check("tcp")["facts"]["address"], address);
        assert!(has(&report, "server", "ok"), "{report:?}");
        assert_eq!(report.code, 0, "{report:?}");
    }

    let report = ask(&url, "auto").await;
    assert!(has(&report, "server", "ok") && has(&report, "websocket", "ok"));
    let report = ask(&blocked, "auto").await;
    assert_eq!(report.check("tcp")["code"], "tcp-refused");
    assert!(has(&report, "websocket", "ok"), "{report:?}");
    let summary = report.check("websocket")["summary"].as_str().unwrap();
    assert!(summary.contains("blocked here"), "{summary}");
}

#[tokio::test]
async fn servers_that_cannot_be_reached_are_diagnosed() {
    let url = |port: u16| format!("postgresql://u:s3cret@127.0.0.1:{port}/db?sslmode=require");
    let (_refusing, port) = refusing_port();
    let doctor = Doctor::new("refuses")
        .set("DATABASE_URL", &url(port))
        .secret("s3cr");
    doctor.fails(Some("tcp"), "tcp-refused").await;

    let doctor = Doctor::new("unresolved")
        .set(
            "DATABASE_URL",
            "postgresql://u:s3cret@ep-a-1.nowhere.invalid/db?sslmode=require",
        )
        .secret("s3cr");
    let report = doctor.json().await;
    let code = report.check("dns")["code"].as_str().unwrap().to_owned();
    assert!(
        ["dns-unresolved", "dns-timeout"].contains(&code.as_str()),
        "{report:?}"
    );
    assert_eq!(report.code, 1);
    assert_eq!(report.check("tcp")["status"], "skipped");

    // An address for documentation: nobody answers, or the network says that it leads nowhere.
    let url_nowhere = "postgresql://u:s3cret@h.example/db?hostaddr=192.0.2.1";
    let doctor = Doctor::new("nowhere")
        .set("DATABASE_URL", url_nowhere)
        .argument("--timeout=500ms");
    let report = doctor.json().await;
    let code = report.check("tcp")["code"].as_str().unwrap();
    assert!(
        ["tcp-timeout", "tcp-unreachable", "tcp-refused"].contains(&code),
        "{code}"
    );

    // A server that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let doctor = Doctor::new("silent")
        .set("DATABASE_URL", &url(port))
        .argument("--timeout=500ms");
    doctor.fails(Some("tls"), "tls-timeout").await;

    // A server that takes connections and hangs up.
    let curt = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = curt.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = curt.accept().await {
            let _ = stream.read_u8().await;
        }
    });
    let doctor = Doctor::new("curt").set("DATABASE_URL", &url(port));
    doctor.fails(Some("tls"), "tls-closed").await;
    task.abort();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_address_that_swallows_packets_is_a_time_out() {
    // Linux drops the packets of new connections if the listener's queue is full.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 100, "there is no end to the queue");
    }
    let url = format!("postgresql://u:s3cret@{address}/db?sslmode=require");
    let doctor = Doctor::new("swallows")
        .set("DATABASE_URL", &url)
        .argument("--timeout=500ms")
        .secret("s3cr");
    let report = doctor.fails(Some("tcp"), "tcp-timeout").await;
    assert_eq!(report.check("tls")["status"], "skipped");
}

/// The name `0` is looked up as 0.0.0.0, which is no private address, though it leads here.
#[tokio::test]
async fn no_password_goes_in_plain_text_wherever_a_name_leads() {
    let neon = start().await;
    let url = neon.postgres_url().replace("@127.0.0.1:", "@0:");
    let url = format!("{url}&allow_plaintext_to_private_network=true");
    let doctor = Doctor::new("plain_elsewhere")
        .set("DATABASE_URL", &url)
        .secret(neon.password());
    doctor.fails(Some("tls"), "sslmode-weak").await;
    let report = doctor.json().await;
    let refused = &report.check("parameters")["facts"]["libpq_refuses"];
    assert_eq!(refused[0], "allow_plaintext_to_private_network");
}
