//! A stream over tokio's sockets without a codec, as an expert writes it: fixed buffers, frames that are parsed where they were read.
//!
//! `README.md` describes the variants.

use std::io::{self, IoSlice};

use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
};

use crate::{
    Role,
    control::{EndContext, WarmUp},
    meter::Intake,
    payload,
};

/// The longest payload of the library.
const FRAME_BYTES_MAX: usize = 512 << 10;

/// Bytes of one read, and a frame that is cut.
const READ_BYTES: usize = 256 << 10;

/// Payloads from this length on are written where they are. To copy them would take longer than to write them one by one.
const LONG: usize = 256 << 10;

const PREFIX: usize = 4;

pub(crate) fn run(context: &EndContext) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    match &context.role {
        Role::Serve { listen, .. } => runtime.block_on(serve(context, listen)),
        Role::Drive { to, .. } => runtime.block_on(drive(context, to)),
    }
}

async fn serve(context: &EndContext, listen: &str) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    context.ready(&listener.local_addr()?.to_string());
    let (stream, _) = listener.accept().await?;
    let mut intake = Intake::new(&context.meter);
    let mut buffer = vec![0; READ_BYTES + FRAME_BYTES_MAX + PREFIX];
    let mut filled = 0;
    loop {
        stream.readable().await?;
        let end = buffer.len().min(filled + READ_BYTES);
        match stream.try_read(&mut buffer[filled..end]) {
            Ok(0) => return Ok(()),
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        let mut at = 0;
        while let Some((prefix, rest)) = buffer[at..filled].split_first_chunk() {
            let len = u32::from_be_bytes(*prefix) as usize;
            if len > FRAME_BYTES_MAX {
                return Err(io::Error::other(format!("a frame of {len} bytes")));
            }
            let Some(frame) = rest.get(..len) else {
                break;
            };
            intake.frame(frame);
            at += PREFIX + len;
        }
        // Once for each read, and at most for one frame.
        buffer.copy_within(at..filled, 0);
        filled -= at;
    }
}

async fn drive(context: &EndContext, to: &str) -> io::Result<()> {
    let variant = context.variant(&["1m", "64k", "256k", "512k"])?;
    let write_bytes = match variant {
        "64k" => 64 << 10,
        "256k" => 256 << 10,
        "512k" => 512 << 10,
        _ => 1 << 20,
    };
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let mut warm_up = WarmUp::new(context, stream.local_addr()?.to_string());
    let task = context.role.task();
    let mut payload = vec![b'x'; task.bytes()];
    let prefix = task.size.to_be_bytes();
    let mut buffer = Vec::with_capacity(write_bytes + PREFIX + payload.len());
    let mut number = 0;
    loop {
        for _ in 0..task.frames_per_call {
            number += 1;
            payload::set_number(&mut payload, number);
            context.meter.offered.add(1);
            if payload.len() >= LONG {
                write(&stream, [&prefix, &payload]).await?;
                continue;
            }
            buffer.extend_from_slice(&prefix);
            buffer.extend_from_slice(&payload);
            if buffer.len() >= write_bytes {
                write(&stream, [&buffer, &[]]).await?;
                buffer.clear();
            }
        }
        warm_up.round();
    }
}

async fn write(stream: &TcpStream, parts: [&[u8]; 2]) -> io::Result<()> {
    let (mut done, all) = (0, parts[0].len() + parts[1].len());
    while done < all {
        let first = parts[0].get(done..).unwrap_or_default();
        let second = &parts[1][done.saturating_sub(parts[0].len())..];
        match stream.try_write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
