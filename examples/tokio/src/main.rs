//! Two servers on one thread of tokio: a manager that answers, and an event loop that sends to it. `README.md` says more.

use std::{
    error::Error,
    net::TcpListener,
    time::{Duration, Instant},
};

use on_tokio::{serve, turn};
use quorum_cnx::{CnxManager, Config, Event, EventLoop, Frame, Handle, Handler, Sid};
use tokio::{signal, sync::oneshot, time};

const ANSWERS: Sid = Sid(1);
const ASKS: Sid = Sid(2);

/// How long the demonstration runs.
const LONG: Duration = Duration::from_secs(2);

/// Sends a frame as soon as there is a link, and the next one for each answer.
#[derive(Default)]
struct Asks {
    answers: u64,
}

impl Asks {
    fn ask(&self, handle: &Handle) {
        // An error means that there is no answer, and the demonstration ends by itself.
        let _ = handle.to_send(ANSWERS, format!("question {}", self.answers));
    }
}

impl Handler for Asks {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, handle: &Handle) {
        self.answers += 1;
        self.ask(handle);
    }

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        println!("{}: {event}", handle.sid());
        if matches!(event, Event::Up { .. }) {
            self.ask(handle);
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let sockets = [
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    ];
    let mut servers = Vec::new();
    for (sid, socket) in [ANSWERS, ASKS].into_iter().zip(&sockets) {
        servers.push((sid, socket.local_addr()?.to_string()));
    }
    let [one, two] = sockets.map(|socket| (socket, servers.clone()));
    let config = |own, (socket, servers): (TcpListener, Vec<(Sid, String)>)| {
        let builder = servers
            .iter()
            .fold(Config::builder(own), |builder, (sid, address)| {
                builder.server(*sid, address)
            });
        builder.listener(socket).build()
    };
    let manager = CnxManager::start(config(ANSWERS, one)?)?;
    let event_loop = EventLoop::new(config(ASKS, two)?, Asks::default())?;
    let asks = event_loop.handle().clone();

    // All three are futures of this one task.
    let started = Instant::now();
    let (stop, stopped) = oneshot::channel::<()>();
    let end = async {
        tokio::select! {
            () = time::sleep(LONG) => {}
            _ = signal::ctrl_c() => {}
        }
        let seconds = started.elapsed().as_secs_f64();
        asks.request_halt();
        // Fails if the other future has ended.
        let _ = stop.send(());
        seconds
    };
    let answering = serve(&manager, async {
        let _ = stopped.await;
    });
    let (seconds, answers, event_loop) = tokio::join!(end, answering, turn(event_loop, |_| ()));
    let received = event_loop?.handler().answers;
    println!(
        "{answers} answers sent, {received} received: {:.0} a second",
        received as f64 / seconds
    );
    Ok(())
}
