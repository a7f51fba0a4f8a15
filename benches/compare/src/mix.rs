//! A leader that sends entries to two followers on tokio, and counts those that both have acknowledged: with the codecs, or by hand.
//!
//! The leader listens. Each follower connects on a thread of its own, and acknowledges with the number of the last entry that it has read,
//! once for all that has arrived. Frames and numbers are those of the library's ends.

use std::{io, thread};

use futures_util::{FutureExt as _, SinkExt, StreamExt as _};
use tokio::{
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::{self, Runtime},
    select,
};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use crate::{
    Role,
    by_hand::{PREFIX, Pending, ReadBuffer},
    control::{EndContext, WarmUp},
    payload,
    with_tokio::{Prefixed, READ_BYTES, WRITE_BYTES, codec},
};

const FOLLOWERS: usize = 2;

/// How frames are written and read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Codec,
    ByHand,
}

pub(crate) fn run(context: &EndContext, way: Way) -> io::Result<()> {
    context.variant(&["sender"])?;
    match &context.role {
        Role::Serve { listen, .. } => runtime()?.block_on(lead(context, listen, way)),
        Role::Drive { to, .. } => {
            let streams = [connect(to)?, connect(to)?];
            let mut warm_up = WarmUp::new(context, streams[0].local_addr()?.to_string());
            let [first, second] = streams;
            thread::scope(|scope| {
                let other = scope.spawn(|| follow(second, way, || {}));
                follow(first, way, || warm_up.round())?;
                other
                    .join()
                    .map_err(|_| io::Error::other("a follower has panicked"))?
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

async fn lead(context: &EndContext, listen: &str, way: Way) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    context.ready(&listener.local_addr()?.to_string());
    let mut streams = Vec::new();
    for _ in 0..FOLLOWERS {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    match way {
        Way::Codec => lead_by_codec(context, streams).await,
        Way::ByHand => lead_by_hand(context, streams).await,
    }
}

fn follow(stream: std::net::TcpStream, way: Way, on_read: impl FnMut()) -> io::Result<()> {
    runtime()?.block_on(async {
        let stream = TcpStream::from_std(stream)?;
        match way {
            Way::Codec => follow_by_codec(stream, on_read).await,
            Way::ByHand => follow_by_hand(stream, on_read).await,
        }
    })
}

/// Counts the entries that both followers have acknowledged, and decides how many may be sent.
struct Log<'a> {
    context: &'a EndContext,
    acknowledged: [u64; FOLLOWERS],
    both: u64,
}

impl<'a> Log<'a> {
    fn new(context: &'a EndContext) -> Self {
        Self {
            context,
            acknowledged: [0; FOLLOWERS],
            both: 0,
        }
    }

    /// The number of the last entry that may be sent.
    fn last(&self) -> u64 {
        self.both + u64::from(self.context.role.task().in_flight)
    }

    fn on_acknowledgement(&mut self, from: usize, frame: &[u8]) -> io::Result<()> {
        let number = frame.first_chunk().ok_or(io::ErrorKind::InvalidData)?;
        self.acknowledged[from] = u64::from_be_bytes(*number);
        let both = self.acknowledged.into_iter().min().unwrap_or(0);
        self.context.meter.acknowledged.add(both - self.both);
        self.both = both;
        Ok(())
    }
}

/// Reads entries, which must be in order.
#[derive(Default)]
struct Entries {
    last: u64,
}

impl Entries {
    fn on_entry(&mut self, frame: &[u8]) -> io::Result<()> {
        let number = payload::read(frame).map(|(_, number)| number);
        self.last += 1;
        if number != Some(self.last) {
            return Err(io::Error::other(format!(
                "{number:?} after {}",
                self.last - 1
            )));
        }
        Ok(())
    }
}

type Frames = FramedRead<OwnedReadHalf, LengthDelimitedCodec>;

struct Follower {
    frames: FramedWrite<OwnedWriteHalf, Prefixed>,
    payload: Vec<u8>,
    sent: u64,
}

impl Follower {
    async fn send(&mut self, last: u64) -> io::Result<()> {
        while self.sent < last {
            self.sent += 1;
            payload::set_number(&mut self.payload, self.sent);
            self.frames.feed(&self.payload[..]).await?;
        }
        SinkExt::<&[u8]>::flush(&mut self.frames).await
    }
}

async fn lead_by_codec(context: &EndContext, streams: Vec<TcpStream>) -> io::Result<()> {
    let mut log = Log::new(context);
    let mut followers = Vec::new();
    let mut acknowledgements: Vec<Frames> = Vec::new();
    for stream in streams {
        let (read, write) = stream.into_split();
        let mut frames = FramedWrite::new(write, Prefixed);
        frames.set_backpressure_boundary(WRITE_BYTES);
        followers.push(Follower {
            frames,
            payload: vec![b'x'; context.role.task().bytes()],
            sent: 0,
        });
        acknowledgements.push(FramedRead::new(read, codec()));
    }
    let [one, two] = &mut followers[..] else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    loop {
        let last = log.last();
        tokio::try_join!(one.send(last), two.send(last))?;
        let [first, second] = &mut acknowledgements[..] else {
            return Ok(());
        };
        let (from, frame) = select! {
            frame = first.next() => (0, frame),
            frame = second.next() => (1, frame),
        };
        let Some(frame) = frame else {
            return Ok(());
        };
        log.on_acknowledgement(from, &frame?)?;
        // All that have arrived.
        for (from, frames) in acknowledgements.iter_mut().enumerate() {
            while let Some(next) = frames.next().now_or_never() {
                let Some(frame) = next else {
                    return Ok(());
                };
                log.on_acknowledgement(from, &frame?)?;
            }
        }
    }
}

async fn follow_by_codec(stream: TcpStream, mut on_read: impl FnMut()) -> io::Result<()> {
    let (read, write) = stream.into_split();
    let mut frames = FramedRead::with_capacity(read, codec(), READ_BYTES);
    let mut answers = FramedWrite::new(write, Prefixed);
    let mut entries = Entries::default();
    while let Some(frame) = frames.next().await {
        entries.on_entry(&frame?)?;
        while let Some(Some(frame)) = frames.next().now_or_never() {
            entries.on_entry(&frame?)?;
        }
        answers.send(&entries.last.to_be_bytes()[..]).await?;
        on_read();
    }
    Ok(())
}

/// A connection of the leader by hand.
struct Link {
    stream: TcpStream,
    out: Pending,
    acknowledgements: ReadBuffer,
    sent: u64,
}

impl Link {
    /// Collects the entries for which there is room, and writes what the socket takes.
    fn send(&mut self, payload: &[u8], last: u64) -> io::Result<()> {
        loop {
            while self.sent < last && self.out.has_room() {
                self.sent += 1;
                payload::set_number(self.out.push(payload), self.sent);
            }
            if !self.out.try_write(&self.stream)? || self.sent == last {
                return Ok(());
            }
        }
    }

    /// Waits until something can be done.
    async fn ready(&self) -> io::Result<()> {
        if self.out.is_empty() {
            return self.stream.readable().await;
        }
        select! {
            ready = self.stream.readable() => ready,
            ready = self.stream.writable() => ready,
        }
    }
}

async fn lead_by_hand(context: &EndContext, streams: Vec<TcpStream>) -> io::Result<()> {
    let mut log = Log::new(context);
    let payload = vec![b'x'; context.role.task().bytes()];
    let link = |stream| Link {
        stream,
        out: Pending::default(),
        acknowledgements: ReadBuffer::default(),
        sent: 0,
    };
    let mut links: Vec<Link> = streams.into_iter().map(link).collect();
    loop {
        let last = log.last();
        for link in &mut links {
            link.send(&payload, last)?;
        }
        let mut has_read = false;
        for (from, link) in links.iter_mut().enumerate() {
            let read = link
                .acknowledgements
                .try_read(&link.stream, |frame| log.on_acknowledgement(from, frame))?;
            match read {
                Some(0) => return Ok(()),
                Some(_) => has_read = true,
                None => {}
            }
        }
        if !has_read && log.last() == last {
            let [one, two] = &links[..] else {
                return Ok(());
            };
            select! {
                ready = one.ready() => ready?,
                ready = two.ready() => ready?,
            }
        }
    }
}

async fn follow_by_hand(stream: TcpStream, mut on_read: impl FnMut()) -> io::Result<()> {
    let mut buffer = ReadBuffer::default();
    let mut entries = Entries::default();
    loop {
        match buffer.try_read(&stream, |frame| entries.on_entry(frame))? {
            Some(0) => return Ok(()),
            Some(_) => {}
            None => {
                stream.readable().await?;
                continue;
            }
        }
        let mut answer = [0; PREFIX + 8];
        answer[..PREFIX].copy_from_slice(&8_u32.to_be_bytes());
        answer[PREFIX..].copy_from_slice(&entries.last.to_be_bytes());
        crate::by_hand::write(&stream, [&answer, &[]]).await?;
        on_read();
    }
}
