//! [`SocketOptions`]: keepalive and timeouts, by which a TCP socket notices a vanished peer.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_postgres::Config;

/// The options of every TCP socket.
#[derive(Clone, Debug)]
pub(super) struct SocketOptions {
    keepalive: Option<TcpKeepalive>,
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    user_timeout: Option<Duration>,
}

impl SocketOptions {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            keepalive: config.get_keepalives().then(|| keepalive(config)),
            user_timeout: config.get_tcp_user_timeout().copied(),
        }
    }

    pub(super) fn set(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        #[cfg(target_os = "linux")]
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        match &self.keepalive {
            Some(keepalive) => socket.set_tcp_keepalive(keepalive),
            None => Ok(()),
        }
    }
}

/// Linux refuses longer times and more probes, which would fail the connection.
const LONGEST: Duration = Duration::from_secs(32_767);
const MOST_PROBES: u32 = 127;

fn keepalive(config: &Config) -> TcpKeepalive {
    let time = |time: Duration| time.min(LONGEST);
    let keepalive = TcpKeepalive::new().with_time(time(config.get_keepalives_idle()));
    #[cfg(any(
        target_os = "linux",
        target_os = "android",
        target_vendor = "apple",
        windows
    ))]
    let keepalive = match config.get_keepalives_interval() {
        Some(interval) => keepalive.with_interval(time(interval)),
        None => keepalive,
    };
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    let keepalive = match config.get_keepalives_retries() {
        Some(retries) => keepalive.with_retries(retries.min(MOST_PROBES)),
        None => keepalive,
    };
    keepalive
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::url::DatabaseUrl;

    async fn stream(url: &str) -> TcpStream {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let url = DatabaseUrl::parse(url).unwrap();
        let options = SocketOptions::new(&url.to_tokio_postgres());
        options.set(&stream).unwrap();
        stream
    }

    #[tokio::test]
    async fn the_urls_options_reach_the_socket() {
        let stream = stream(
            "postgresql://u@h.example/db?keepalives_idle=7&keepalives_interval=2&keepalives_count=4\
             &tcp_user_timeout=9500",
        )
        .await;
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(7));
        assert_eq!(
            socket.tcp_keepalive_interval().unwrap(),
            Duration::from_secs(2)
        );
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
        let user_timeout = socket.tcp_user_timeout().unwrap();
        assert_eq!(user_timeout, Some(Duration::from_millis(9500)));
    }

    #[tokio::test]
    async fn what_is_more_than_the_system_takes_counts_as_the_most() {
        let most = i32::MAX;
        for (idle, interval, count) in [(most, most, most), (32_768, 32_768, 128)] {
            let stream = stream(&format!(
                "postgresql://u@h.example/db?keepalives_idle={idle}&keepalives_interval={interval}\
                 &keepalives_count={count}&tcp_user_timeout={most}"
            ))
            .await;
            let socket = SockRef::from(&stream);
            assert_eq!(socket.tcp_keepalive_time().unwrap(), LONGEST);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), LONGEST);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), MOST_PROBES);
            let user_timeout = socket.tcp_user_timeout().unwrap();
            assert_eq!(user_timeout, Some(Duration::from_millis(2_147_483_647)));
        }
    }

    #[tokio::test]
    async fn a_machine_that_vanishes_is_noticed_within_half_a_minute_by_default() {
        let stream = stream("postgresql://u@h.example/db").await;
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        let probes =
            socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
        let idle = socket.tcp_keepalive_time().unwrap();
        assert_eq!(idle + probes, Duration::from_secs(30));
        assert_eq!(
            socket.tcp_user_timeout().unwrap(),
            Some(Duration::from_secs(30))
        );
    }

    #[tokio::test]
    async fn keepalives_can_be_turned_off() {
        let stream = stream("postgresql://u@h.example/db?keepalives=0").await;
        assert!(!SockRef::from(&stream).keepalive().unwrap());
    }
}
