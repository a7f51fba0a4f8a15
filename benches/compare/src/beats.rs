//! Heartbeats beside a stream, with tokio: each over a connection of its own, and sent by a thread of its own.
//!
//! One task receives both.

use std::{io, thread, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt as _};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{self, Runtime},
};
use tokio_util::codec::{FramedRead, FramedWrite};

use crate::{
    Role,
    control::{EndContext, WarmUp},
    meter::Intake,
    payload,
    with_tokio::{Prefixed, READ_BYTES, WRITE_BYTES, codec},
};

/// Payload bytes of a heartbeat, and the time between two of them: as in `benches/frames`.
const BEAT_BYTES: usize = 64;
const BEAT_INTERVAL: Duration = Duration::from_millis(1);

pub(crate) fn run(context: &EndContext) -> io::Result<()> {
    context.variant(&["two-connections"])?;
    match &context.role {
        Role::Serve { listen, .. } => runtime()?.block_on(serve(context, listen)),
        Role::Drive { to, .. } => {
            // Accepted in the order in which they are connected.
            let [stream, beats] = [connect(to)?, connect(to)?];
            thread::scope(|scope| {
                let is_alone = context.role.task().streams == 0;
                let other = (!is_alone).then(|| scope.spawn(|| send_stream(context, stream)));
                send_beats(context, beats)?;
                other.map_or(Ok(()), |other| {
                    other
                        .join()
                        .map_err(|_| io::Error::other("the stream has panicked"))?
                })
            })
        }
    }
}

fn runtime() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_io().build()
}

fn connect(to: &str) -> io::Result<std::net::TcpStream> {
    let stream = std::net::TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

async fn serve(context: &EndContext, listen: &str) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    context.ready(&listener.local_addr()?.to_string());
    let (stream, _) = listener.accept().await?;
    let (beats, _) = listener.accept().await?;
    let frames = |stream| FramedRead::with_capacity(stream, codec(), READ_BYTES);
    let (mut stream, mut beats) = (frames(stream), frames(beats));
    let mut intake = Intake::new(&context.meter);
    let receive_stream = async {
        while let Some(frame) = stream.next().await {
            intake.frame(&frame?);
        }
        Ok(())
    };
    let receive_beats = async {
        while let Some(frame) = beats.next().await {
            if let Some((stamp, _)) = payload::read(&frame?) {
                let age = payload::now().saturating_sub(stamp);
                context.meter.record(Duration::from_nanos(age));
            }
        }
        Ok(())
    };
    // `join` polls both each time, and each gives way to the other by the budget of tokio.
    let (stream, beats): (io::Result<()>, io::Result<()>) =
        tokio::join!(receive_stream, receive_beats);
    stream.and(beats)
}

fn send_stream(context: &EndContext, stream: std::net::TcpStream) -> io::Result<()> {
    runtime()?.block_on(async {
        let mut frames = FramedWrite::new(TcpStream::from_std(stream)?, Prefixed);
        frames.set_backpressure_boundary(WRITE_BYTES);
        let mut frame = vec![b'x'; context.role.task().bytes()];
        for number in 1.. {
            payload::set_number(&mut frame, number);
            SinkExt::<&[u8]>::feed(&mut frames, &frame).await?;
        }
        Ok(())
    })
}

fn send_beats(context: &EndContext, stream: std::net::TcpStream) -> io::Result<()> {
    let mut warm_up = WarmUp::new(context, stream.local_addr()?.to_string());
    runtime()?.block_on(async {
        let mut frames = FramedWrite::new(TcpStream::from_std(stream)?, codec());
        let mut frame = vec![b'x'; BEAT_BYTES];
        loop {
            thread::sleep(BEAT_INTERVAL);
            payload::set_stamp(&mut frame, payload::now());
            frames.send(Bytes::copy_from_slice(&frame)).await?;
            warm_up.round();
        }
    })
}
