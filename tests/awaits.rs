//! Receiving and waiting in tasks: futures that are polled by hand, or by an executor that blocks this thread.
//!
//! Tests with tokio and smol are in `examples/tokio`, which needs them.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use quorum_cnx::{
    Batch, CnxManager, Config, Dial, Event, EventLoop, Handle, InboxFull, Leave, Outbox, Received,
    RecvError, RecvStream, SendError, Sid, TryRecvError,
    simulation::{HostNet, Network},
};
use support::{
    Mesh, NOBODY, assert_message, eventually, single_manager, turned::Ignore, wait_for_listening,
    within,
};

/// Unblocks the thread that polls.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor: one future, on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A future that the test polls, and how often it was woken.
struct Polled<F> {
    future: Pin<Box<F>>,
    wakes: Arc<Wakes>,
}

impl<F: Future> Polled<F> {
    fn new(future: F) -> Self {
        Self {
            future: Box::pin(future),
            wakes: Arc::default(),
        }
    }

    fn poll(&mut self) -> Poll<F::Output> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::SeqCst)
    }
}

/// A manager without a link, which sends to itself.
fn alone() -> CnxManager {
    let manager = single_manager(1, &[(2, NOBODY)], |builder| builder.dial(Dial::OnDemand)).0;
    wait_for_listening(&manager);
    manager
}

fn payload(message: &quorum_cnx::Message) -> &[u8] {
    &message.payload
}

#[test]
fn messages_of_a_peer_are_received_in_a_task() {
    let mesh = Mesh::linked(&[1, 2], &[], |builder| builder);
    let [one, two] = [1, 0].map(|at| Arc::clone(&mesh.managers[at]));
    let echo = thread::spawn(move || {
        block_on(async {
            while let Ok(message) = one.recv_async().await {
                one.to_send(message.from, message.payload).unwrap();
            }
        });
    });
    let trips = within("round trips", move || {
        block_on(async {
            for n in 0..100 {
                two.to_send(Sid(2), format!("{n}")).unwrap();
                let message = two.recv_async().await.unwrap();
                assert_message(&message, 2, format!("{n}"));
            }
            100
        })
    });
    assert_eq!(trips, 100);
    mesh.managers[1].halt();
    within("the end of the other task", move || echo.join().unwrap());
}

#[test]
fn dropped_futures_lose_no_message() {
    let manager = alone();
    let mut batch = Batch::new();
    {
        let mut one = Polled::new(manager.recv_async());
        let mut all = Polled::new(manager.recv_all_async(&mut batch));
        let mut any = Polled::new(manager.recv_any_async());
        assert!(one.poll().is_pending() && all.poll().is_pending() && any.poll().is_pending());
        manager.to_send(Sid(1), "kept").unwrap();
        assert_eq!([one.wakes(), all.wakes(), any.wakes()], [1, 0, 0]);
        drop(one);
        assert_eq!([all.wakes(), any.wakes()], [1, 0], "the wake goes on");
        drop(all);
        assert_eq!(any.wakes(), 1);
    }
    assert!(batch.is_empty());
    assert_eq!(payload(&manager.try_recv().unwrap()), b"kept");
    assert_eq!(manager.try_recv(), Err(TryRecvError::Empty));
    let stats = manager.stats();
    assert_eq!((stats.inbox.taken, stats.inbox.waiting), (1, 0));
}

#[test]
fn a_message_leaves_the_inbox_only_when_it_is_returned() {
    let manager = alone();
    let mut future = Polled::new(manager.recv_async());
    assert!(future.poll().is_pending());
    manager.to_send(Sid(1), "first").unwrap();
    manager.to_send(Sid(1), "second").unwrap();
    assert_eq!(manager.stats().inbox.waiting, 2, "woken, and not polled");
    let Poll::Ready(Ok(message)) = future.poll() else {
        panic!("it was woken for this");
    };
    assert_eq!(payload(&message), b"first");
    assert_eq!(manager.stats().inbox.waiting, 1);
}

#[test]
fn all_messages_are_received_at_once_in_a_task() {
    let manager = alone();
    let mut batch = Batch::new();
    for n in 0..3 {
        manager.to_send(Sid(1), format!("{n}")).unwrap();
    }
    assert_eq!(block_on(manager.recv_all_async(&mut batch)), Ok(3));
    let payloads: Vec<&[u8]> = batch.iter().map(|(_, payload)| payload).collect();
    assert_eq!(payloads, [b"0", b"1", b"2"]);
    manager.request_halt();
    let end = block_on(manager.recv_all_async(&mut batch));
    assert_eq!((end, batch.len()), (Err(RecvError::Halted), 0));
}

#[test]
fn a_task_waits_for_messages_and_events() {
    let manager = alone();
    let mut any = Polled::new(manager.recv_any_async());
    assert!(any.poll().is_pending());
    manager.to_send(Sid(1), "message").unwrap();
    assert_eq!(any.wakes(), 1);
    assert!(matches!(any.poll(), Poll::Ready(Ok(Received::Message(_)))));
    let mut any = Polled::new(manager.recv_any_async());
    assert!(any.poll().is_pending());
    // The dial to the other member fails.
    manager.to_send(Sid(2), "nobody").unwrap();
    eventually("an event wakes the task", || any.wakes() == 1);
    let Poll::Ready(Ok(Received::Event(Event::DialFailed { sid, .. }))) = any.poll() else {
        panic!("no event of the dial");
    };
    assert_eq!(sid, Sid(2));
}

#[test]
fn messages_and_events_are_received_in_turn_by_tasks() {
    let mesh = Mesh::linked(&[1, 2], &[], |builder| builder);
    let manager = &mesh.managers[0];
    for _ in 0..4 {
        manager.to_send(Sid(1), "to itself").unwrap();
    }
    // A link is shown as linked before its event is there.
    eventually("`Listening` and `Up` wait as well", || {
        manager.stats().events.waiting >= 2
    });
    let kinds: Vec<bool> = (0..4)
        .map(|_| {
            matches!(
                block_on(manager.recv_any_async()).unwrap(),
                Received::Message(_)
            )
        })
        .collect();
    assert_eq!(kinds, [false, true, false, true]);
}

#[test]
fn a_thread_and_a_task_both_receive() {
    let manager = Arc::new(alone());
    for _ in 0..100 {
        let thread = {
            let manager = Arc::clone(&manager);
            thread::spawn(move || manager.recv().unwrap())
        };
        let task = {
            let manager = Arc::clone(&manager);
            thread::spawn(move || block_on(manager.recv_async()).unwrap())
        };
        manager.to_send(Sid(1), "one").unwrap();
        manager.to_send(Sid(1), "another").unwrap();
        within("both have received", move || {
            thread.join().unwrap();
            task.join().unwrap();
        });
    }
    assert_eq!(manager.stats().inbox.taken, 200);
}

#[test]
fn a_halt_ends_every_wait_of_tasks() {
    let manager = alone();
    manager.to_send(Sid(2), "fills the slot").unwrap();
    let events = manager.events().clone();
    while events.try_recv().is_ok() {}
    let mut batch = Batch::new();
    let mut one = Polled::new(manager.recv_async());
    let mut all = Polled::new(manager.recv_all_async(&mut batch));
    let mut any = Polled::new(manager.recv_any_async());
    let mut event = Polled::new(async {
        while !matches!(events.recv_async().await?, Event::Halted) {}
        events.recv_async().await
    });
    let mut room = Polled::new(manager.wait_for_room_async(Sid(2)));
    let mut linked = Polled::new(manager.wait_linked_async(1));
    let mut stream = manager.stream();
    assert!(one.poll().is_pending() && all.poll().is_pending());
    assert!(room.poll().is_pending() && linked.poll().is_pending() && event.poll().is_pending());
    manager.halt();
    let ended = RecvError::Halted;
    assert!(one.wakes() > 0 && all.wakes() > 0 && room.wakes() > 0 && linked.wakes() > 0);
    assert_eq!(one.poll(), Poll::Ready(Err(ended)));
    assert_eq!(all.poll(), Poll::Ready(Err(ended)));
    assert_eq!(room.poll(), Poll::Ready(Ok(())));
    assert_eq!(linked.poll(), Poll::Ready(false));
    assert_eq!(manager.to_send(Sid(2), "late"), Err(SendError::Halted));
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(stream.poll_recv(&mut cx), Poll::Ready(Err(ended)));
    // Events are left.
    assert!(matches!(any.poll(), Poll::Ready(Ok(Received::Event(_)))));
    assert!(event.wakes() > 0);
    assert_eq!(event.poll(), Poll::Ready(Err(ended)));
    assert_eq!(block_on(manager.recv_any_async()), Err(ended));
}

#[test]
fn a_task_waits_for_room_in_a_slot() {
    let manager = alone();
    block_on(manager.wait_for_room_async(Sid(2))).unwrap();
    block_on(manager.wait_for_room_async(Sid(1))).unwrap();
    let unknown = block_on(manager.wait_for_room_async(Sid(9)));
    assert_eq!(unknown, Err(SendError::UnknownPeer(Sid(9))));
    manager.to_send(Sid(2), "waits").unwrap();
    let mut room = Polled::new(manager.wait_for_room_async(Sid(2)));
    let mut dropped = Polled::new(manager.wait_for_room_async(Sid(2)));
    assert!(room.poll().is_pending() && dropped.poll().is_pending());
    drop(dropped);
    assert_eq!(manager.discard(Sid(2)), Ok(1));
    assert_eq!(room.wakes(), 1);
    assert_eq!(room.poll(), Poll::Ready(Ok(())));
}

#[test]
fn a_task_waits_for_room_in_the_own_inbox() {
    let push_back = |builder: quorum_cnx::ConfigBuilder| {
        builder.inbox_full(InboxFull::PushBack).inbox_frames(2)
    };
    let (manager, _) = single_manager(1, &[(2, NOBODY)], push_back);
    while manager.to_send(Sid(1), "fills the inbox").is_ok() {}
    let mut room = Polled::new(manager.wait_for_room_async(Sid(1)));
    assert!(room.poll().is_pending());
    while block_on(manager.recv_async()).is_ok() && room.poll().is_pending() {}
    assert!(room.wakes() > 0);
    manager.to_send(Sid(1), "has room").unwrap();
}

/// Two loops that this thread turns.
fn simulated_pair(outbox: Outbox) -> (Network, [EventLoop<Ignore, HostNet>; 2]) {
    let network = Network::new();
    let start = |sid: u8| {
        let config = Config::builder(Sid(sid.into()))
            .server(Sid(1), "10.0.0.1:3888")
            .server(Sid(2), "10.0.0.2:3888")
            .outbox(outbox);
        let net = network.host([10, 0, 0, sid]).net();
        EventLoop::with_net(config.build().unwrap(), Ignore, net).unwrap()
    };
    let loops = [start(1), start(2)];
    (network, loops)
}

#[test]
fn tasks_wait_on_the_thread_that_turns_the_loop() {
    for outbox in [Outbox::Latest, Outbox::QUEUE, Outbox::LANES] {
        let (network, mut loops) = simulated_pair(outbox);
        let handle: Handle = loops[1].handle().clone();
        let mut linked = Polled::new(handle.wait_linked_async(1));
        assert!(linked.poll().is_pending());
        network.run(&mut loops, Duration::from_secs(3)).unwrap();
        assert!(linked.wakes() > 0);
        assert_eq!(linked.poll(), Poll::Ready(true));

        network.cut([10, 0, 0, 1], [10, 0, 0, 2]);
        let mut room = Polled::new(handle.wait_for_room_async(Sid(1)));
        while room.poll().is_ready() {
            room = Polled::new(handle.wait_for_room_async(Sid(1)));
            let _ = handle.to_send(Sid(1), vec![1; 100_000]);
            network.run(&mut loops, Duration::from_millis(10)).unwrap();
        }
        network.heal_all();
        network.run(&mut loops, Duration::from_secs(60)).unwrap();
        assert!(room.wakes() > 0, "{outbox:?}");
        assert_eq!(room.poll(), Poll::Ready(Ok(())));
    }
}

#[test]
fn a_dead_loop_ends_the_waits_of_tasks() {
    let (_, loops) = simulated_pair(Outbox::Latest);
    let handle = loops[1].handle().clone();
    handle.to_send(Sid(1), "waits").unwrap();
    let mut linked = Polled::new(handle.wait_linked_async(1));
    let mut room = Polled::new(handle.wait_for_room_async(Sid(1)));
    assert!(linked.poll().is_pending() && room.poll().is_pending());
    drop(loops);
    assert!(handle.has_died());
    assert_eq!(linked.poll(), Poll::Ready(false));
    assert_eq!(room.poll(), Poll::Ready(Ok(())));
    assert_eq!(handle.to_send(Sid(1), "late"), Err(SendError::Halted));
}

#[test]
fn streams_yield_messages_and_events() {
    let manager = alone();
    let mut messages = manager.stream();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(messages.poll_recv(&mut cx).is_pending());
    for n in 0..3 {
        manager.to_send(Sid(1), format!("{n}")).unwrap();
    }
    for n in 0..3 {
        let Poll::Ready(Ok(message)) = messages.poll_recv(&mut cx) else {
            panic!("message {n} is there");
        };
        assert_eq!(payload(&message), format!("{n}").as_bytes());
    }
    assert!(messages.poll_recv(&mut cx).is_pending());
    drop(messages);
    manager.halt();
    let mut events: RecvStream<'_, Event> = manager.events().stream();
    let mut last = None;
    while let Poll::Ready(Ok(event)) = events.poll_recv(&mut cx) {
        last = Some(event);
    }
    assert_eq!(last, Some(Event::Halted));
}

/// Executors of several threads ask for this.
/// Calls everything that a waker may call: whoever wakes or drops it must hold no lock.
struct CallsBack {
    handle: Handle,
    wakes: AtomicUsize,
}

impl CallsBack {
    fn call(&self) {
        let handle = &self.handle;
        // Another address each time, so that each call changes the members. After a halt these fail.
        let wakes = self.wakes.fetch_add(1, Ordering::SeqCst) as u16;
        let _ = handle.set_server(Sid(9), format!("127.0.0.1:{}", 9 + wakes));
        let _ = handle.to_send(handle.sid(), "from a waker");
        let _ = handle.to_send(Sid(2), "from a waker");
        let _ = handle.discard(Sid(2));
        let _ = (handle.stats(), handle.linked_peers(), handle.listening());
        handle.connect_all();
        handle.renew();
    }
}

impl Wake for CallsBack {
    fn wake(self: Arc<Self>) {
        self.call();
    }
}

impl Drop for CallsBack {
    fn drop(&mut self) {
        self.call();
    }
}

#[test]
fn wakers_may_call_back() {
    within("wakers that call back", || {
        let manager = alone();
        let handle = manager.handle().clone();
        let wake = |wait: Pin<Box<dyn Future<Output = ()> + '_>>, act: &dyn Fn()| {
            let calls_back = Arc::new(CallsBack {
                handle: handle.clone(),
                wakes: AtomicUsize::new(0),
            });
            let mut wait = wait;
            let waker = Waker::from(Arc::clone(&calls_back));
            let _ = wait.as_mut().poll(&mut Context::from_waker(&waker));
            drop(waker);
            act();
            eventually("the waker is called", || {
                calls_back.wakes.load(Ordering::SeqCst) > 0
            });
            // The last owner of the waker is the library, which drops it with the future.
            let waker = Waker::from(calls_back);
            let _ = wait.as_mut().poll(&mut Context::from_waker(&waker));
            drop(waker);
            drop(wait);
        };
        let linked = || {
            Box::pin(async {
                let _ = handle.wait_linked_async(1).await;
            })
        };
        wake(linked(), &|| {
            drop(handle.set_server(Sid(3), "127.0.0.1:3").unwrap())
        });
        wake(linked(), &|| {
            drop(handle.remove_server(Sid(3), Leave::Now).unwrap());
        });
        let message = Box::pin(async { drop(manager.recv_async().await) });
        while manager.try_recv().is_ok() {}
        wake(message, &|| {
            handle.to_send(Sid(1), "message").unwrap();
        });
        let event = Box::pin(async { drop(manager.events().recv_async().await) });
        while manager.events().try_recv().is_ok() {}
        wake(event, &|| {
            drop(handle.set_server(Sid(4), "127.0.0.1:4").unwrap())
        });
        let room = || {
            Box::pin(async {
                let _ = handle.wait_for_room_async(Sid(2)).await;
            })
        };
        handle.to_send(Sid(2), "fills the slot").unwrap();
        wake(room(), &|| {
            handle.discard(Sid(2)).unwrap();
        });
        handle.to_send(Sid(2), "fills the slot").unwrap();
        wake(room(), &|| {
            drop(handle.remove_server(Sid(2), Leave::Now).unwrap());
        });
        handle.set_server(Sid(5), "127.0.0.1:5").unwrap();
        handle.to_send(Sid(5), "fills the slot").unwrap();
        let room = Box::pin(async {
            let _ = handle.wait_for_room_async(Sid(5)).await;
        });
        wake(room, &|| {
            let leave = Leave::After(Duration::from_secs(60));
            drop(handle.remove_server(Sid(5), leave).unwrap());
        });
        wake(linked(), &|| manager.halt());
    });
}

#[test]
fn futures_and_streams_are_send() {
    fn send<T: Send>(_: T) {}
    let manager = alone();
    let mut batch = Batch::new();
    send(manager.recv_async());
    send(manager.recv_all_async(&mut batch));
    send(manager.recv_any_async());
    send(manager.events().recv_async());
    send(manager.wait_for_room_async(Sid(2)));
    send(manager.wait_linked_async(1));
    send(manager.stream());
    send(manager.events().stream());
}
