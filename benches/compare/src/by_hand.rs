//! Tokio's sockets without a codec, as an expert uses them: fixed buffers, frames that are parsed where they were read.
//!
//! `README.md` describes the variants.

use std::io::{self, IoSlice};

use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
};

use crate::{
    Role, Workload,
    control::{EndContext, WarmUp},
    meter::Intake,
    mix::{self, Way},
    payload, with_tasks,
};

/// The longest payload of the library.
const FRAME_BYTES_MAX: usize = 512 << 10;

/// Bytes of one read, and a frame that is cut.
const READ_BYTES: usize = 256 << 10;

/// Payloads from this length on are written where they are. To copy them would take longer than to write them one by one.
const LONG: usize = 256 << 10;

pub(crate) const PREFIX: usize = 4;

/// Bytes of one write.
const WRITE_BYTES: usize = 1 << 20;

pub(crate) fn run(context: &EndContext) -> io::Result<()> {
    if context.meter.workload == Workload::Mix {
        return mix::run(context, Way::ByHand);
    }
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    if context.meter.workload == Workload::Latency {
        return runtime.block_on(with_tasks::run_bare(context));
    }
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
    let mut buffer = ReadBuffer::default();
    loop {
        stream.readable().await?;
        let read = buffer.try_read(&stream, |frame| {
            intake.frame(frame);
            Ok(())
        })?;
        if read == Some(0) {
            return Ok(());
        }
    }
}

/// A fixed buffer, in which frames are parsed where they were read.
pub(crate) struct ReadBuffer {
    bytes: Vec<u8>,
    filled: usize,
}

impl Default for ReadBuffer {
    fn default() -> Self {
        Self {
            bytes: vec![0; READ_BYTES + FRAME_BYTES_MAX + PREFIX],
            filled: 0,
        }
    }
}

impl ReadBuffer {
    /// Reads once. Returns the number of bytes; `None` if nothing has arrived.
    pub(crate) fn try_read(
        &mut self,
        stream: &TcpStream,
        mut on_frame: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Option<usize>> {
        let end = self.bytes.len().min(self.filled + READ_BYTES);
        let n = match stream.try_read(&mut self.bytes[self.filled..end]) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        self.filled += n;
        let mut at = 0;
        while let Some((prefix, rest)) = self.bytes[at..self.filled].split_first_chunk() {
            let len = u32::from_be_bytes(*prefix) as usize;
            if len > FRAME_BYTES_MAX {
                return Err(io::Error::other(format!("a frame of {len} bytes")));
            }
            let Some(frame) = rest.get(..len) else {
                break;
            };
            on_frame(frame)?;
            at += PREFIX + len;
        }
        // Once for each read, and at most for one frame.
        self.bytes.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(Some(n))
    }
}

/// Frames that wait to be written.
#[derive(Default)]
pub(crate) struct Pending {
    bytes: Vec<u8>,
    written: usize,
}

impl Pending {
    pub(crate) fn has_room(&self) -> bool {
        self.bytes.len() < WRITE_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds a frame, whose bytes can still be changed.
    pub(crate) fn push(&mut self, payload: &[u8]) -> &mut [u8] {
        self.bytes
            .extend_from_slice(&(payload.len() as u32).to_be_bytes());
        let start = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        &mut self.bytes[start..]
    }

    /// Returns whether the socket has taken everything.
    pub(crate) fn try_write(&mut self, stream: &TcpStream) -> io::Result<bool> {
        while self.written < self.bytes.len() {
            match stream.try_write(&self.bytes[self.written..]) {
                Ok(n) => self.written += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.written = 0;
        Ok(true)
    }
}

async fn drive(context: &EndContext, to: &str) -> io::Result<()> {
    let variant = context.variant(&["in-place", "1m", "64k", "256k", "512k"])?;
    let write_bytes = match variant {
        "64k" => 64 << 10,
        "256k" => 256 << 10,
        "512k" => 512 << 10,
        _ => WRITE_BYTES,
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
            context.meter.offered.add(1);
            if payload.len() >= LONG {
                payload::set_number(&mut payload, number);
                write(&stream, [&prefix, &payload]).await?;
                continue;
            }
            buffer.extend_from_slice(&prefix);
            if variant == "in-place" {
                let start = buffer.len();
                buffer.extend_from_slice(&payload);
                payload::set_number(&mut buffer[start..], number);
            } else {
                payload::set_number(&mut payload, number);
                buffer.extend_from_slice(&payload);
            }
            if buffer.len() >= write_bytes {
                write(&stream, [&buffer, &[]]).await?;
                buffer.clear();
            }
        }
        warm_up.round();
    }
}

pub(crate) async fn write(stream: &TcpStream, parts: [&[u8]; 2]) -> io::Result<()> {
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
