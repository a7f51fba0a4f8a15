//! quorum-cnx in a program on tokio, and what it is compared with there: tokio's own channel, and a bare socket of tokio.
//!
//! Only round trips are measured here.

use std::{io, net::TcpListener, sync::Arc, thread, time::Instant};

use bytes::Bytes;
use on_tokio::turn;
use quorum_cnx::{
    CnxManager, Config, Dial, Event, EventLoop, Frame, Handle, Handler, RecvError, SendError, Sid,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net,
    runtime::{Builder, Runtime},
    sync::mpsc::{self, Receiver, Sender},
};

use crate::{
    Role,
    control::{EndContext, WarmUp},
};

/// The sid of the end that serves. The other end has the larger one, and so dials.
const SERVE: Sid = Sid(1);
const DRIVE: Sid = Sid(2);

/// Messages that wait in the channel: as many as in an inbox.
const CHANNEL: usize = 100;

/// A message in the channel.
type Received = (Sid, Bytes);

/// A manager whose messages a task receives.
pub(crate) fn run_recv_async(context: &EndContext) -> io::Result<()> {
    let manager = CnxManager::start(config(context)?)?;
    runtime()?.block_on(trips(context, manager.handle(), async || {
        let message = manager.recv_async().await.ok()?;
        Some((message.from, message.payload))
    }))
}

/// The same by tokio's channel: the thread of the loop sends into it (`loop`), or a thread that receives from a manager (`thread`).
pub(crate) fn run_channel(context: &EndContext) -> io::Result<()> {
    let variant = context.variant(&["loop", "thread"])?;
    let (sender, receiver) = mpsc::channel(CHANNEL);
    if variant == "loop" {
        let mut event_loop = EventLoop::new(config(context)?, ToChannel(sender))?;
        let handle = event_loop.handle().clone();
        thread::spawn(move || event_loop.run());
        return runtime()?.block_on(from_channel(context, handle, receiver));
    }
    let manager = Arc::new(CnxManager::start(config(context)?)?);
    let handle = manager.handle();
    thread::spawn(move || {
        while let Ok(message) = manager.recv() {
            if sender
                .blocking_send((message.from, message.payload))
                .is_err()
            {
                break;
            }
        }
    });
    runtime()?.block_on(from_channel(context, handle, receiver))
}

async fn from_channel(
    context: &EndContext,
    handle: Handle,
    mut receiver: Receiver<Received>,
) -> io::Result<()> {
    trips(context, handle, async || receiver.recv().await).await
}

struct ToChannel(Sender<Received>);

impl Handler for ToChannel {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, _: &Handle) {
        // One frame is on its way at a time, so that the channel is never full.
        let _ = self.0.try_send((from, frame.into_bytes()));
    }
}

/// Answers, or asks and waits for the answer.
async fn trips(
    context: &EndContext,
    handle: Handle,
    mut recv: impl AsyncFnMut() -> Option<Received>,
) -> io::Result<()> {
    if matches!(context.role, Role::Serve { .. }) {
        while let Some((from, payload)) = recv().await {
            handle.to_send(from, payload).map_err(failed)?;
        }
        return Ok(());
    }
    handle.wait_linked_async(1).await;
    let mut warm_up = WarmUp::new(context, handle.sid().to_string());
    let payload = Bytes::from(vec![b'x'; context.role.task().bytes()]);
    loop {
        let sent = Instant::now();
        handle.to_send(SERVE, payload.clone()).map_err(failed)?;
        recv()
            .await
            .ok_or_else(|| io::Error::other(RecvError::Halted))?;
        context.meter.record(sent.elapsed());
        warm_up.round();
    }
}

/// An event loop on the thread of the runtime, as `examples/tokio` has it.
pub(crate) fn run_async_fd(context: &EndContext) -> io::Result<()> {
    let handler = InLoop {
        is_asking: matches!(context.role, Role::Drive { .. }),
        context,
        payload: Bytes::from(vec![b'x'; context.role.task().bytes()]),
        warm_up: WarmUp::new(context, DRIVE.to_string()),
        sent: Instant::now(),
    };
    let event_loop = EventLoop::new(config(context)?, handler)?;
    runtime()?.block_on(turn(event_loop, |_| ())).map(drop)
}

struct InLoop<'a> {
    is_asking: bool,
    context: &'a EndContext,
    payload: Bytes,
    warm_up: WarmUp<'a>,
    sent: Instant,
}

impl InLoop<'_> {
    fn ask(&mut self, handle: &Handle) {
        self.sent = Instant::now();
        // An error means that the loop is about to end.
        let _ = handle.to_send(SERVE, self.payload.clone());
    }
}

impl Handler for InLoop<'_> {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        if self.is_asking {
            self.context.meter.record(self.sent.elapsed());
            self.warm_up.round();
            self.ask(handle);
        } else {
            let _ = handle.to_send(from, frame.into_bytes());
        }
    }

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        match event {
            Event::Up { .. } if self.is_asking => self.ask(handle),
            Event::Down { .. } => handle.request_halt(),
            _ => {}
        }
    }
}

/// A bare socket of tokio: a length and a payload in one write, and two reads of exactly so much.
pub(crate) async fn run_bare(context: &EndContext) -> io::Result<()> {
    let size = context.role.task().bytes();
    let mut frame = vec![b'x'; 4 + size];
    match &context.role {
        Role::Serve { listen, .. } => {
            let listener = net::TcpListener::bind(listen).await?;
            context.ready(&listener.local_addr()?.to_string());
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            loop {
                stream.read_exact(&mut frame).await?;
                stream.write_all(&frame).await?;
            }
        }
        Role::Drive { to, .. } => {
            let mut stream = net::TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            let mut warm_up = WarmUp::new(context, stream.local_addr()?.to_string());
            loop {
                let sent = Instant::now();
                stream.write_all(&frame).await?;
                stream.read_exact(&mut frame).await?;
                context.meter.record(sent.elapsed());
                warm_up.round();
            }
        }
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// The configuration of this end. The end that serves reports its address.
fn config(context: &EndContext) -> io::Result<Config> {
    let (listener, builder) = match &context.role {
        Role::Serve { listen, .. } => {
            let listener = TcpListener::bind(listen)?;
            let address = listener.local_addr()?.to_string();
            context.ready(&address);
            // The other end dials. Nothing listens at its address.
            let builder = Config::builder(SERVE).server(SERVE, &address);
            (listener, builder.server(DRIVE, "127.0.0.1:1"))
        }
        Role::Drive { to, .. } => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?.to_string();
            let builder = Config::builder(DRIVE).server(DRIVE, &address);
            (listener, builder.server(SERVE, to))
        }
    };
    let builder = match context.role {
        Role::Serve { .. } => builder.dial(Dial::OnDemand),
        Role::Drive { .. } => builder,
    };
    builder.listener(listener).build().map_err(io::Error::other)
}

fn failed(error: SendError) -> io::Error {
    io::Error::other(error)
}
