//! Requests and replies between two nodes: who learns what, and when.

mod support;

use std::{future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::FutureExt as _;
use quorum_cnx::{SendError, Sid};
use raft_links::{BODY_BYTES_MAX, CallError, Links, PENDING_MAX, Rpc, SERVED_MAX};
use tokio::{
    sync::{Notify, mpsc},
    task::{self, JoinSet},
    time,
};

const TWO: Sid = Sid(2);

/// A deadline for what takes milliseconds. Reaching it is a failure.
const LONG: Duration = Duration::from_secs(60);

/// So many nodes, from 1 on, with their links.
fn nodes<const COUNT: usize>() -> [(Rpc, Links); COUNT] {
    let sockets = support::sockets(COUNT);
    let addresses = support::addresses(&sockets);
    let mut nodes = (1..)
        .zip(sockets)
        .map(|(id, socket)| Rpc::start(support::config(id, &addresses, socket)).unwrap());
    [(); COUNT].map(|()| nodes.next().unwrap())
}

/// Node 1, and node 2 with its links. They are linked once node 2 serves.
async fn pair() -> (Arc<Rpc>, Links) {
    let [(one, links), (_, two)] = nodes();
    echo(links);
    (Arc::new(one), two)
}

async fn linked(node: &Rpc) {
    linked_to(node, 1).await;
}

/// Waits until the node is linked to so many others.
async fn linked_to(node: &Rpc, count: usize) {
    let linked = time::timeout(LONG, node.handle().wait_linked_async(count));
    assert!(linked.await.unwrap());
}

/// Has a node answer each request with it.
fn echo(links: Links) {
    tokio::spawn(links.serve(|_, body| future::ready(body.to_vec())));
}

/// Has a node keep all requests, and tell of each.
fn keep(links: Links) -> mpsc::UnboundedReceiver<Bytes> {
    let (sender, kept) = mpsc::unbounded_channel();
    let keep = move |_, body| {
        let _ = sender.send(body);
        future::pending()
    };
    tokio::spawn(links.serve(keep));
    kept
}

#[tokio::test]
async fn each_call_gets_its_own_reply() {
    let (one, two) = pair().await;
    echo(two);
    linked(&one).await;
    let mut calls = JoinSet::new();
    for n in 0..PENDING_MAX {
        let one = Arc::clone(&one);
        calls.spawn(async move {
            let body = vec![n as u8; if n == 0 { BODY_BYTES_MAX } else { 1 + n }];
            assert_eq!(one.call(TWO, &body, LONG).await.unwrap(), body);
        });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
}

#[tokio::test]
async fn late_reply_is_not_taken_for_another() {
    let (one, two) = pair().await;
    // The first request is answered when the second one has arrived, and before it.
    let [asked, answered] = [(); 2].map(|()| Arc::new(Notify::new()));
    let mut is_first = true;
    let handle = move |_, body: Bytes| {
        let [asked, answered] = [&asked, &answered].map(Arc::clone);
        let is_first = std::mem::take(&mut is_first);
        async move {
            if is_first {
                asked.notified().await;
                answered.notify_one();
            } else {
                asked.notify_one();
                answered.notified().await;
            }
            body.to_vec()
        }
    };
    tokio::spawn(two.serve(handle));
    linked(&one).await;
    let late = one.call(TWO, b"first", Duration::ZERO).await;
    assert_eq!(late, Err(CallError::TimedOut));
    assert_eq!(one.call(TWO, b"second", LONG).await.unwrap(), "second");
}

#[tokio::test]
async fn calls_fail_as_soon_as_the_link_ends() {
    let (one, two) = pair().await;
    let mut kept = keep(two);
    linked(&one).await;
    let cut = async {
        kept.recv().await.unwrap();
        one.handle().disconnect(TWO).unwrap();
    };
    let (called, ()) = tokio::join!(one.call(TWO, b"?", LONG), cut);
    assert_eq!(called, Err(CallError::LinkEnded));
}

#[tokio::test]
async fn call_without_a_link_fails_at_once() {
    let sockets = support::sockets(2);
    let addresses = support::addresses(&sockets);
    let socket = sockets.into_iter().next().unwrap();
    let (one, _links) = Rpc::start(support::config(1, &addresses, socket)).unwrap();
    for nobody in [TWO, Sid(3)] {
        let called = one.call(nobody, b"?", LONG).await;
        assert_eq!(called, Err(CallError::NotLinked));
    }
}

#[tokio::test]
async fn timed_out_calls_leave_room_for_others() {
    let (one, two) = pair().await;
    let _kept = keep(two);
    linked(&one).await;
    for _ in 0..=PENDING_MAX {
        let called = one.call(TWO, b"?", Duration::ZERO).await;
        assert_eq!(called, Err(CallError::TimedOut));
    }
}

#[tokio::test]
async fn one_more_pending_call_fails_at_once() {
    let (one, two) = pair().await;
    let mut kept = keep(two);
    linked(&one).await;
    let mut calls = JoinSet::new();
    for _ in 0..PENDING_MAX {
        let one = Arc::clone(&one);
        calls.spawn(async move { one.call(TWO, b"?", LONG).await });
    }
    for _ in 0..PENDING_MAX {
        kept.recv().await.unwrap();
    }
    assert_eq!(one.call(TWO, b"?", LONG).await, Err(CallError::TooMany));
    // The others are not touched.
    assert!(calls.try_join_next().is_none());
}

#[tokio::test]
async fn one_more_served_request_is_refused() {
    let (one, two) = pair().await;
    let _kept = keep(two);
    linked(&one).await;
    for _ in 0..SERVED_MAX {
        // Sent, and served for longer than the caller waits.
        let called = one.call(TWO, b"?", Duration::ZERO).await;
        assert_eq!(called, Err(CallError::TimedOut));
    }
    assert_eq!(one.call(TWO, b"?", LONG).await, Err(CallError::Refused));
}

#[tokio::test]
async fn node_that_asks_too_much_takes_no_place_of_others() {
    let [(one, links), (_, two), (three, others)] = nodes();
    echo(links);
    echo(others);
    let mut kept = keep(two);
    linked_to(&one, 2).await;
    linked_to(&three, 2).await;
    for _ in 0..SERVED_MAX {
        let called = one.call(TWO, b"?", Duration::ZERO).await;
        assert_eq!(called, Err(CallError::TimedOut));
    }
    assert_eq!(one.call(TWO, b"?", LONG).await, Err(CallError::Refused));
    let served = async { while kept.recv().await.unwrap() != "of three" {} };
    tokio::select! {
        called = three.call(TWO, b"of three", LONG) => panic!("{called:?}"),
        () = served => {}
    }
}

#[tokio::test]
async fn frame_without_an_id_ends_the_link() {
    let (one, two) = pair().await;
    echo(two);
    linked(&one).await;
    one.handle().to_send(TWO, "no id").unwrap();
    let ended = async {
        while one.handle().stats().downs.is_empty() {
            task::yield_now().await;
        }
    };
    time::timeout(LONG, ended).await.unwrap();
}

#[tokio::test]
async fn full_queue_fails_at_once() {
    let (one, two) = pair().await;
    echo(two);
    linked(&one).await;
    let body = vec![0; BODY_BYTES_MAX];
    // No loop is turned meanwhile.
    let called = (0..1_000).find_map(|_| one.call(TWO, &body, LONG).now_or_never());
    assert_eq!(called, Some(Err(CallError::NotSent(SendError::Full))));
}
