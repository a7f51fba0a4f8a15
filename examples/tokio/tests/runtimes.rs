//! The same exchange under tokio, smol and a bare executor, and the two ways of this example.

use std::{
    net::TcpListener,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use on_tokio::{halt, serve, turn};
use quorum_cnx::{
    Batch, CnxManager, Config, Event, EventLoop, Frame, Handle, Handler, Outbox, RecvError,
    SendError, Sid,
};
use smol::stream::StreamExt as _;
use tokio::{runtime, sync::oneshot, time};

const ONE: Sid = Sid(1);
const TWO: Sid = Sid(2);

/// A deadline for what takes milliseconds. Reaching it is a failure.
const LONG: Duration = Duration::from_secs(60);

/// The configurations of two servers.
fn configs(outbox: Outbox) -> [Config; 2] {
    let sockets = [ONE, TWO].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = sockets
        .each_ref()
        .map(|socket| socket.local_addr().unwrap().to_string());
    let [one, two] = sockets;
    [(ONE, one), (TWO, two)].map(|(own, socket)| {
        let builder = Config::builder(own)
            .server(ONE, &addresses[0])
            .server(TWO, &addresses[1]);
        builder.outbox(outbox).listener(socket).build().unwrap()
    })
}

fn managers() -> [Arc<CnxManager>; 2] {
    configs(Outbox::QUEUE).map(|config| Arc::new(CnxManager::start(config).unwrap()))
}

/// A stream that waits where the queue is full, and the ways to receive it: each of them takes a part.
async fn exchange([one, two]: [&CnxManager; 2]) {
    const FRAMES: u64 = 20_000;
    assert!(one.wait_linked_async(1).await);
    let payload = [0; 4 << 10];
    let send = async {
        let mut sent = 0;
        while sent < FRAMES {
            match one.to_send_slice(TWO, &payload) {
                Ok(_) => sent += 1,
                Err(SendError::Full) => one.wait_for_room_async(TWO).await.unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
    };
    let receive = async {
        let mut received = 0;
        let mut batch = Batch::new();
        let mut stream = two.stream();
        while received < FRAMES {
            match received % 3 {
                0 => {
                    two.recv_async().await.unwrap();
                    received += 1;
                }
                1 => received += two.recv_all_async(&mut batch).await.unwrap() as u64,
                _ => {
                    stream.next().await.unwrap();
                    received += 1;
                }
            }
        }
        received
    };
    let ((), received) = smol::future::zip(send, receive).await;
    assert_eq!(received, FRAMES);
    assert_eq!(two.stats().inbox.dropped, 0);
    two.request_halt();
    assert_eq!(two.recv_async().await, Err(RecvError::Halted));
    assert_eq!(two.stream().next().await, None);
    let mut events = two.events().stream();
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event);
    }
    assert_eq!(last, Some(Event::Halted));
}

fn on_tokio(runtime: &mut runtime::Builder, test: impl Future<Output = ()>) {
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(async { time::timeout(LONG, test).await.expect("in time") });
}

#[test]
fn exchange_on_one_thread_of_tokio() {
    let [one, two] = managers();
    let exchange = exchange([&one, &two]);
    on_tokio(&mut runtime::Builder::new_current_thread(), exchange);
}

#[test]
fn exchange_on_several_threads_of_tokio() {
    let [one, two] = managers();
    on_tokio(&mut runtime::Builder::new_multi_thread(), async {
        let task = tokio::spawn(async move { exchange([&one, &two]).await });
        task.await.unwrap();
    });
}

#[test]
fn exchange_on_smol() {
    let [one, two] = managers();
    smol::block_on(smol::spawn(async move { exchange([&one, &two]).await }));
}

#[test]
fn exchange_on_a_bare_executor() {
    let [one, two] = managers();
    pollster::block_on(exchange([&one, &two]));
}

/// The message wakes a task that is aborted at the same time. If that task has not taken it, the other one gets it.
#[test]
fn aborted_tasks_leave_the_message_to_others() {
    let runtimes = [
        runtime::Builder::new_current_thread(),
        runtime::Builder::new_multi_thread(),
    ];
    for mut builder in runtimes {
        let [manager, _peer] = managers();
        on_tokio(&mut builder, async move {
            for _ in 0..1_000 {
                let [aborted, other] = [(); 2].map(|()| {
                    let manager = Arc::clone(&manager);
                    tokio::spawn(async move { manager.recv_async().await })
                });
                // The tasks wait now, on one thread always.
                tokio::task::yield_now().await;
                manager.to_send(ONE, "to itself").unwrap();
                aborted.abort();
                match aborted.await {
                    Ok(received) => {
                        received.unwrap();
                        other.abort();
                        assert!(other.await.is_err(), "there was one message");
                    }
                    Err(_) => drop(other.await.unwrap().unwrap()),
                }
            }
            halt(&manager).await;
        });
    }
}

#[test]
fn halting_waits_until_a_slow_peer_has_read_the_queue() {
    let [one, two] = managers();
    on_tokio(&mut runtime::Builder::new_current_thread(), async {
        assert!(one.wait_linked_async(1).await);
        let mut sent = 0;
        while one.to_send_slice(TWO, &[0; 4 << 10]).is_ok() {
            sent += 1;
        }
        let receive = async {
            for _ in 0..sent {
                two.recv_async().await.unwrap();
                // After a halt, this would reset the connection. An error means that the other server has removed this one.
                let _ = two.to_send(ONE, "heartbeat");
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(halt(&one), receive);
    });
}

#[test]
fn a_thread_and_tasks_share_an_inbox() {
    let [manager, _peer] = managers();
    let thread = {
        let manager = Arc::clone(&manager);
        thread::spawn(move || std::iter::from_fn(|| manager.recv().ok()).count())
    };
    let deadline = Instant::now() + LONG;
    let in_tasks = smol::block_on(async {
        let mut in_tasks = 0;
        // Until the task has its part.
        while in_tasks < 100 {
            assert!(Instant::now() < deadline, "the task receives nothing");
            let mut stream = manager.stream();
            manager.to_send(ONE, "to itself").unwrap();
            manager.to_send(ONE, "to itself").unwrap();
            if smol::future::poll_once(stream.next()).await.is_some() {
                in_tasks += 1;
            }
        }
        in_tasks
    });
    manager.halt();
    let in_thread = thread.join().unwrap();
    assert_eq!((in_tasks + in_thread) as u64, manager.stats().inbox.taken);
}

/// Asks until it has so many answers, and halts.
struct Asks {
    answers: u32,
}

const ANSWERS: u32 = 1_000;

impl Handler for Asks {
    fn on_frame(&mut self, from: Sid, _: Frame<'_>, handle: &Handle) {
        self.answers += 1;
        if self.answers == ANSWERS {
            handle.request_halt();
        } else {
            let _ = handle.to_send(from, "question");
        }
    }

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        if let Event::Up { sid, .. } = event {
            let _ = handle.to_send(*sid, "question");
        }
    }
}

#[test]
fn a_loop_turns_on_the_runtime_and_a_manager_answers() {
    let [one, two] = configs(Outbox::Latest);
    on_tokio(&mut runtime::Builder::new_current_thread(), async {
        let manager = CnxManager::start(one).unwrap();
        let event_loop = EventLoop::new(two, Asks { answers: 0 }).unwrap();
        let asks = event_loop.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let answering = serve(&manager, async {
            let _ = stopped.await;
        });
        let mut turns = 0;
        let asking = async {
            let turning = turn(event_loop, |_| turns += 1);
            // The handle waits on the thread that turns the loop.
            let (linked, event_loop) = tokio::join!(asks.wait_linked_async(1), turning);
            assert!(linked);
            drop(stop);
            event_loop.unwrap()
        };
        let (answers, event_loop) = tokio::join!(answering, asking);
        assert_eq!(event_loop.handler().answers, ANSWERS);
        assert!(turns > 0, "nothing was called after a turn");
        assert!(answers >= u64::from(ANSWERS));
        assert!(asks.is_halted() && !asks.has_died());
        assert!(manager.is_halted() && !manager.has_died());
    });
}

#[test]
fn dropping_the_future_of_a_loop_ends_it() {
    let [one, _] = configs(Outbox::Latest);
    on_tokio(&mut runtime::Builder::new_current_thread(), async {
        let event_loop = EventLoop::new(one, Asks { answers: 0 }).unwrap();
        let handle = event_loop.handle().clone();
        tokio::select! {
            biased;
            _ = turn(event_loop, |_| ()) => panic!("nobody has halted it"),
            () = tokio::task::yield_now() => {}
        }
        assert!(handle.has_died());
        assert!(!handle.wait_linked_async(1).await);
    });
}
