//! tokio: the current_thread runtime, and the length-delimited codec of tokio-util, which speaks our frames.
//!
//! `README.md` says which variant is the default, and what the others reach.

use std::{io, thread, time::Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt as _};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{self, Runtime},
    select,
    sync::{mpsc, watch},
    task,
};
use tokio_util::codec::{Encoder, Framed, FramedRead, FramedWrite, LengthDelimitedCodec};

use crate::{
    Role, Workload,
    control::{Stage, Warmth},
    meter::Intake,
    payload,
};

/// What is read at once at most.
const READ_BYTES: usize = 256 << 10;

/// What a stream gathers before it writes.
const WRITE_BYTES: usize = 256 << 10;

/// The longest frame that our own library takes.
const FRAME_BYTES_MAX: usize = 512 << 10;

pub(crate) fn run(stage: &Stage) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let to = match &stage.role {
        Role::Serve { listen, .. } => return runtime.block_on(serve(stage, listen)),
        Role::Drive { to, .. } => to,
    };
    let stream = runtime.block_on(TcpStream::connect(to))?;
    stream.set_nodelay(true)?;
    let warmth = Warmth::new(stage, stream.local_addr()?.to_string());
    match stage.meter.workload {
        Workload::Latency => runtime.block_on(ping(stage, stream, warmth)),
        Workload::Latest => latest(&runtime, stage, stream, warmth),
        Workload::Lossless => runtime.block_on(lossless(stage, stream, warmth)),
        Workload::Stream => runtime.block_on(all(stage, stream, warmth)),
    }
}

async fn serve(stage: &Stage, listen: &str) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    stage.ready(&listener.local_addr()?.to_string());
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    if stage.meter.workload == Workload::Latency {
        let mut framed = Framed::new(stream, codec());
        while let Some(frame) = framed.next().await {
            framed.send(frame?.freeze()).await?;
        }
        return Ok(());
    }
    let mut frames = FramedRead::with_capacity(stream, codec(), READ_BYTES);
    let mut intake = Intake::new(&stage.meter);
    while let Some(frame) = frames.next().await {
        intake.frame(&frame?);
    }
    Ok(())
}

async fn ping(stage: &Stage, stream: TcpStream, mut warmth: Warmth<'_>) -> io::Result<()> {
    stage.variant(&["task"])?;
    let payload = Bytes::from(vec![b'x'; stage.role.task().bytes()]);
    let mut framed = Framed::new(stream, codec());
    loop {
        let sent = Instant::now();
        framed.send(payload.clone()).await?;
        let Some(answer) = framed.next().await else {
            return Ok(());
        };
        drop(answer?);
        stage.meter.record(sent.elapsed());
        warmth.round();
    }
}

/// One place for a frame between who offers and who writes: the newest stays in it (watch), or the oldest (mpsc).
fn latest(
    runtime: &Runtime,
    stage: &Stage,
    stream: TcpStream,
    mut warmth: Warmth<'_>,
) -> io::Result<()> {
    let variant = stage.variant(&["mpsc", "watch", "mpsc-thread", "watch-thread"])?;
    let mut frames = FramedWrite::new(stream, codec());
    let mut offers = Offers::new(stage);
    let written = &stage.meter.written;
    if variant.starts_with("watch") {
        let (place, mut newest) = watch::channel(Bytes::new());
        let offer = move || {
            warmth.round();
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
            warmth.round();
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

/// Offers for as long as it is taken, on the runtime's own thread or on another one.
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
        // The one that writes goes first, so that a frame is on its way before the next one is offered.
        select! {
            biased;
            done = write => done,
            () = offer => Ok(()),
        }
    })
}

/// The next frame is offered when the one before has left, or when the place for it is free.
async fn lossless(stage: &Stage, stream: TcpStream, mut warmth: Warmth<'_>) -> io::Result<()> {
    let variant = stage.variant(&["direct", "mpsc"])?;
    let mut frames = FramedWrite::new(stream, codec());
    let mut offers = Offers::new(stage);
    if variant == "direct" {
        loop {
            frames.send(offers.next()).await?;
            stage.meter.written.add(1);
            warmth.round();
        }
    }
    let (place, mut waiting) = mpsc::channel(1);
    let offer = async move {
        while place.send(offers.next()).await.is_ok() {
            warmth.round();
        }
    };
    let write = async {
        while let Some(frame) = waiting.recv().await {
            frames.send(frame).await?;
            stage.meter.written.add(1);
        }
        Ok(())
    };
    select! {
        biased;
        done = write => done,
        () = offer => Ok(()),
    }
}

/// Frames are gathered in the codec's buffer and written together.
async fn all(stage: &Stage, stream: TcpStream, mut warmth: Warmth<'_>) -> io::Result<()> {
    let variant = stage.variant(&["feed", "feed-bytes", "flush"])?;
    let task = stage.role.task();
    let mut offers = Offers::new(stage);
    if variant == "feed-bytes" {
        let mut frames = FramedWrite::new(stream, codec());
        frames.set_backpressure_boundary(WRITE_BYTES);
        loop {
            for _ in 0..task.frames_per_call {
                frames.feed(offers.next()).await?;
            }
            warmth.round();
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
        warmth.round();
    }
}

/// Numbered and stamped frames.
struct Offers<'a> {
    stage: &'a Stage,
    payload: Vec<u8>,
    number: u64,
    /// Where frames get their memory, many from one piece.
    pool: BytesMut,
}

impl<'a> Offers<'a> {
    fn new(stage: &'a Stage) -> Self {
        Self {
            stage,
            payload: vec![b'x'; stage.role.task().bytes()],
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
        if self.stage.meter.workload != Workload::Stream {
            payload::set_stamp(&mut self.payload, payload::now());
        }
        payload::set_number(&mut self.payload, self.number);
        self.stage.meter.offered.add(1);
        &self.payload
    }
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .max_frame_length(FRAME_BYTES_MAX)
        .new_codec()
}

/// The same frames as the codec makes, from bytes that need not be shared.
struct Prefixed;

impl Encoder<&[u8]> for Prefixed {
    type Error = io::Error;

    fn encode(&mut self, payload: &[u8], buffer: &mut BytesMut) -> io::Result<()> {
        buffer.reserve(4 + payload.len());
        buffer.put_u32(payload.len() as u32);
        buffer.extend_from_slice(payload);
        Ok(())
    }
}
