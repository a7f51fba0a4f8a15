//! tokio's current_thread runtime, and the length-delimited codec of tokio-util, whose frames are those of the library.
//!
//! `README.md` describes the variants.

use std::{io, sync::Arc, thread, time::Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt as _};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    runtime::{self, Runtime},
    select,
    sync::{mpsc, watch},
    task,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::codec::{Encoder, Framed, FramedRead, FramedWrite, LengthDelimitedCodec};

use crate::{
    Role, Workload, beats,
    certificates::{self, Certificates},
    control::{EndContext, WarmUp},
    meter::Intake,
    mix::{self, Way},
    payload,
};

/// The servers for which there are certificates.
const SERVER: i64 = 1;
const DRIVER: i64 = 2;

/// Bytes of one read.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// Bytes that a stream collects before it writes.
pub(crate) const WRITE_BYTES: usize = 256 << 10;

/// The longest payload of the library.
const FRAME_BYTES_MAX: usize = 512 << 10;

pub(crate) fn run(context: &EndContext) -> io::Result<()> {
    if context.meter.workload == Workload::Mix {
        return mix::run(context, Way::Codec);
    }
    if context.meter.workload == Workload::Beats {
        return beats::run(context);
    }
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let to = match &context.role {
        Role::Serve { listen, .. } => {
            return runtime
                .block_on(async { serve(context, accept(context, listen).await?).await });
        }
        Role::Drive { to, .. } => to,
    };
    let (stream, warm_up) = runtime.block_on(connect(context, to))?;
    match context.meter.workload {
        Workload::Latency => runtime.block_on(ping(context, stream, warm_up)),
        Workload::Latest => latest(&runtime, context, stream, warm_up),
        Workload::Lossless => runtime.block_on(lossless(context, stream, warm_up)),
        Workload::Stream => runtime.block_on(all(context, stream, warm_up)),
        Workload::Mix | Workload::Beats => Err(io::Error::other("not over one connection")),
    }
}

async fn accept(context: &EndContext, listen: &str) -> io::Result<TcpStream> {
    let listener = TcpListener::bind(listen).await?;
    context.ready(&listener.local_addr()?.to_string());
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connect<'a>(context: &'a EndContext, to: &str) -> io::Result<(TcpStream, WarmUp<'a>)> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let warm_up = WarmUp::new(context, stream.local_addr()?.to_string());
    Ok((stream, warm_up))
}

/// The same with TLS.
pub(crate) fn run_tls(context: &EndContext) -> io::Result<()> {
    let sid = match context.role {
        Role::Serve { .. } => SERVER,
        Role::Drive { .. } => DRIVER,
    };
    let certificates = Certificates::new(sid).map_err(io::Error::other)?;
    let (client, server) = certificates
        .configs()
        .map_err(|why| io::Error::other(why.to_string()))?;
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let to = match &context.role {
            Role::Serve { listen, .. } => {
                let stream = accept(context, listen).await?;
                let acceptor = TlsAcceptor::from(Arc::new(server));
                return serve(context, acceptor.accept(stream).await?).await;
            }
            Role::Drive { to, .. } => to,
        };
        let (stream, warm_up) = connect(context, to).await?;
        let name = ServerName::try_from(certificates::name(SERVER)).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::new(client));
        let stream = connector.connect(name, stream).await?;
        match context.meter.workload {
            Workload::Latency => ping(context, stream, warm_up).await,
            Workload::Stream => all(context, stream, warm_up).await,
            _ => Err(io::Error::other("not with TLS")),
        }
    })
}

async fn serve(
    context: &EndContext,
    stream: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    if context.meter.workload == Workload::Latency {
        let mut framed = Framed::new(stream, codec());
        while let Some(frame) = framed.next().await {
            framed.send(frame?.freeze()).await?;
        }
        return Ok(());
    }
    let mut frames = FramedRead::with_capacity(stream, codec(), READ_BYTES);
    let mut intake = Intake::new(&context.meter);
    while let Some(frame) = frames.next().await {
        intake.frame(&frame?);
    }
    Ok(())
}

async fn ping(
    context: &EndContext,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    mut warm_up: WarmUp<'_>,
) -> io::Result<()> {
    context.variant(&["task"])?;
    let payload = Bytes::from(vec![b'x'; context.role.task().bytes()]);
    let mut framed = Framed::new(stream, codec());
    loop {
        let sent = Instant::now();
        framed.send(payload.clone()).await?;
        let Some(answer) = framed.next().await else {
            return Ok(());
        };
        drop(answer?);
        context.meter.record(sent.elapsed());
        warm_up.round();
    }
}

/// Room for one frame between the sender and the writer. A new frame replaces the one in it (watch), or is dropped (mpsc).
fn latest(
    runtime: &Runtime,
    context: &EndContext,
    stream: TcpStream,
    mut warm_up: WarmUp<'_>,
) -> io::Result<()> {
    let variant = context.variant(&["mpsc", "watch", "mpsc-thread", "watch-thread"])?;
    let mut frames = FramedWrite::new(stream, codec());
    let mut offers = Offers::new(context);
    let written = &context.meter.written;
    if variant.starts_with("watch") {
        let (place, mut newest) = watch::channel(Bytes::new());
        let offer = move || {
            warm_up.round();
            place.send(offers.next()).is_ok()
        };
        let write = async move {
            while newest.changed().await.is_ok() {
                let frame = newest.borrow_and_update().clone();
                frames.send(frame).await?;
                written.add(1);
            }
            Ok(())
        };
        both(runtime, variant, offer, write)
    } else {
        let (place, mut oldest) = mpsc::channel(1);
        let offer = move || {
            warm_up.round();
            let sent = place.try_send(offers.next());
            !matches!(sent, Err(mpsc::error::TrySendError::Closed(_)))
        };
        let write = async move {
            while let Some(frame) = oldest.recv().await {
                frames.send(frame).await?;
                written.add(1);
            }
            Ok(())
        };
        both(runtime, variant, offer, write)
    }
}

/// Runs the sender and the writer, on one thread or on two.
fn both(
    runtime: &Runtime,
    variant: &str,
    mut offer: impl FnMut() -> bool + Send,
    write: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    if variant.ends_with("-thread") {
        return thread::scope(|scope| {
            scope.spawn(move || while offer() {});
            runtime.block_on(write)
        });
    }
    let offer = async move {
        while offer() {
            task::yield_now().await;
        }
    };
    runtime.block_on(async {
        // The writer is polled first, so that a frame is written before the next one is offered.
        select! {
            biased;
            done = write => done,
            () = offer => Ok(()),
        }
    })
}

/// The next frame is offered when the one before has left, or when the place for it is free.
async fn lossless(
    context: &EndContext,
    stream: TcpStream,
    mut warm_up: WarmUp<'_>,
) -> io::Result<()> {
    let variant = context.variant(&["direct", "mpsc"])?;
    let mut frames = FramedWrite::new(stream, codec());
    let mut offers = Offers::new(context);
    if variant == "direct" {
        loop {
            frames.send(offers.next()).await?;
            context.meter.written.add(1);
            warm_up.round();
        }
    }
    let (place, mut waiting) = mpsc::channel(1);
    let offer = async move {
        while place.send(offers.next()).await.is_ok() {
            warm_up.round();
        }
    };
    let write = async {
        while let Some(frame) = waiting.recv().await {
            frames.send(frame).await?;
            context.meter.written.add(1);
        }
        Ok(())
    };
    select! {
        biased;
        done = write => done,
        () = offer => Ok(()),
    }
}

/// Collects frames in the codec's buffer, and writes them together.
async fn all(
    context: &EndContext,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    mut warm_up: WarmUp<'_>,
) -> io::Result<()> {
    let variant = context.variant(&["feed", "feed-bytes", "flush"])?;
    let task = context.role.task();
    let mut offers = Offers::new(context);
    if variant == "feed-bytes" {
        let mut frames = FramedWrite::new(stream, codec());
        frames.set_backpressure_boundary(WRITE_BYTES);
        loop {
            for _ in 0..task.frames_per_call {
                frames.feed(offers.next()).await?;
            }
            warm_up.round();
        }
    }
    let mut frames = FramedWrite::new(stream, Prefixed);
    frames.set_backpressure_boundary(WRITE_BYTES);
    loop {
        for _ in 0..task.frames_per_call {
            frames.feed(offers.next_borrowed()).await?;
        }
        if variant == "flush" {
            SinkExt::<&[u8]>::flush(&mut frames).await?;
        }
        warm_up.round();
    }
}

/// Numbered and stamped frames.
struct Offers<'a> {
    context: &'a EndContext,
    payload: Vec<u8>,
    number: u64,
    /// Memory for many frames.
    pool: BytesMut,
}

impl<'a> Offers<'a> {
    fn new(context: &'a EndContext) -> Self {
        Self {
            context,
            payload: vec![b'x'; context.role.task().bytes()],
            number: 0,
            pool: BytesMut::with_capacity(64 << 10),
        }
    }

    fn next(&mut self) -> Bytes {
        self.next_borrowed();
        self.pool.extend_from_slice(&self.payload);
        self.pool.split().freeze()
    }

    fn next_borrowed(&mut self) -> &[u8] {
        self.number += 1;
        if self.context.meter.workload != Workload::Stream {
            payload::set_stamp(&mut self.payload, payload::now());
        }
        payload::set_number(&mut self.payload, self.number);
        self.context.meter.offered.add(1);
        &self.payload
    }
}

pub(crate) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .max_frame_length(FRAME_BYTES_MAX)
        .new_codec()
}

/// Encodes the same frames as the codec, from a slice.
pub(crate) struct Prefixed;

impl Encoder<&[u8]> for Prefixed {
    type Error = io::Error;

    fn encode(&mut self, payload: &[u8], buffer: &mut BytesMut) -> io::Result<()> {
        buffer.reserve(4 + payload.len());
        buffer.put_u32(payload.len() as u32);
        buffer.extend_from_slice(payload);
        Ok(())
    }
}
