use std::future::poll_fn;

use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use super::*;

type Shared = Arc<Early<DuplexStream>>;

/// Returns an attempt that has sent its last message of the login, and its server.
fn attempt(early: &Shared) -> (EarlyClaim<DuplexStream>, DuplexStream, DuplexStream) {
    let (client, server) = duplex(1024);
    let mut claim = EarlyClaim::new(Arc::clone(early));
    claim.set_due();
    (claim, client, server)
}

async fn sends(claim: &mut EarlyClaim<DuplexStream>, stream: &mut DuplexStream) -> bool {
    poll_fn(|cx| Poll::Ready(claim.poll_send(cx, stream).is_ready())).await
}

async fn read(server: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = [0; 64];
    let read = server.read(&mut bytes).await.unwrap();
    bytes[..read].to_vec()
}

#[tokio::test]
async fn what_a_refused_attempt_has_sent_is_sent_by_the_next() {
    let early = Shared::default();
    assert!(!early.is_open());
    let (mut first, mut stream, mut server) = attempt(&early);
    assert!(sends(&mut first, &mut stream).await && early.is_open());
    assert_eq!(early.keep(b"SELECT 1"), Some(8));
    assert!(sends(&mut first, &mut stream).await);
    assert_eq!(read(&mut server).await, b"SELECT 1");

    let (mut second, mut stream, mut server) = attempt(&early);
    assert!(!sends(&mut second, &mut stream).await);
    first.release();
    drop(first);
    assert!(!early.is_lost());
    assert!(sends(&mut second, &mut stream).await);
    assert_eq!(read(&mut server).await, b"SELECT 1");
    assert!(second.settle());
    early.keep(b"SELECT 2");
    early.succeed(stream, BytesMut::new());
    assert_eq!(early.keep(b"SELECT 3"), None);
    let opened = early.take_outcome().flatten().unwrap();
    assert_eq!(&opened.unsent[..], b"SELECT 2");
}

#[tokio::test]
async fn what_may_have_run_is_sent_by_no_other() {
    let early = Shared::default();
    let (mut first, mut stream, _server) = attempt(&early);
    assert!(sends(&mut first, &mut stream).await);
    drop(first);
    assert!(!early.is_lost(), "nothing was sent");

    let (mut second, mut stream, _server) = attempt(&early);
    early.keep(b"INSERT");
    assert!(sends(&mut second, &mut stream).await);
    drop(second);
    assert!(early.is_lost());
    let (mut third, mut stream, _server) = attempt(&early);
    assert!(!sends(&mut third, &mut stream).await);
    assert!(!third.settle());
}

#[tokio::test]
async fn what_a_caller_has_given_up_is_sent_by_no_other() {
    for sends_it in [false, true] {
        let early = Shared::default();
        let (mut first, mut stream, _server) = attempt(&early);
        if sends_it {
            assert!(sends(&mut first, &mut stream).await);
            early.keep(b"INSERT");
            assert!(sends(&mut first, &mut stream).await);
        }
        early.give_up();
        // What is sent is not given up yet: the login may succeed.
        assert_ne!(early.is_withdrawn(), sends_it);
        first.release();
        assert!(early.is_withdrawn() && !early.is_lost(), "{sends_it}");
        let (mut second, mut stream, _server) = attempt(&early);
        assert!(!sends(&mut second, &mut stream).await);
    }
    let early = Shared::default();
    let (mut first, mut stream, _server) = attempt(&early);
    early.keep(b"INSERT");
    assert!(sends(&mut first, &mut stream).await);
    early.give_up();
    assert!(first.settle());
    early.give_up();
    assert!(!early.is_withdrawn());
}

#[tokio::test]
async fn an_attempt_that_hangs_and_has_sent_nothing_keeps_no_other_out() {
    let early = Shared::default();
    let (mut first, mut stream, mut server) = attempt(&early);
    assert!(sends(&mut first, &mut stream).await);
    let (mut second, mut other, mut others) = attempt(&early);
    assert!(sends(&mut second, &mut other).await);
    // The first may still read its answer, but the second has the claim.
    assert!(sends(&mut first, &mut stream).await);
    early.keep(b"SELECT 1");
    assert!(sends(&mut second, &mut other).await);
    assert!(!sends(&mut first, &mut stream).await);
    assert_eq!(read(&mut others).await, b"SELECT 1");
    assert!(!first.settle());
    drop((first, stream));
    assert_eq!(read(&mut server).await, b"");
    assert!(second.settle() && !early.is_lost());

    // While nothing is sent, whichever login is answered first wins.
    let early = Shared::default();
    let (mut first, mut stream, _server) = attempt(&early);
    let (mut second, mut other, _others) = attempt(&early);
    assert!(sends(&mut first, &mut stream).await);
    assert!(sends(&mut second, &mut other).await);
    assert!(first.settle());
    assert!(!second.settle());
}

#[tokio::test]
async fn what_a_failed_write_may_have_sent_is_sent_by_no_other() {
    let early = Shared::default();
    let (mut first, mut stream, server) = attempt(&early);
    early.keep(b"INSERT");
    drop(server);
    assert!(sends(&mut first, &mut stream).await);
    drop(first);
    assert!(early.is_lost());
}

#[test]
fn no_more_is_kept_than_there_is_room_for() {
    let early = Shared::default();
    let much = vec![0; 2 * MOST_EARLY];
    assert_eq!(early.keep(&much), Some(MOST_EARLY));
    assert_eq!(early.keep(&much), Some(0));
    early.fail();
    assert_eq!(early.keep(&much), None);
}
