//! Tests fairness with a thousand links into one manager: the shares of links that all send at full speed, and the latency of links
//! that send little beside one that sends at full speed.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
    time::Instant,
};

use hdrhistogram::Histogram;
use quorum_cnx::{Batch, CnxManager, Frame, Handle, Handler, Sid, simulation::limits};
use socket2::SockRef;

use crate::setup::{MIB, assert_undisturbed, end, linked, one_at_a_time, received, run_loop};
use support::{
    LONG,
    crowd::LoadThread,
    eventually,
    figures::ResultTable,
    frame,
    process::{ProcessResources, wait_descriptors},
    within,
};

const LINKS: i64 = 1000;

/// Size of the kernel buffers of each link, about. They are small, so that shares are measured precisely.
const BUFFER_BYTES: usize = 8 << 10;

/// Frames of each link that are measured, on average.
const FRAMES_EACH: u64 = 300;

/// The smallest fair share, as a fraction of an equal share. On an idle machine the smallest share is near 1.
const SHARE_MIN: f64 = 0.2;

/// Many frames of 100 bytes, for one write.
fn small_frames() -> Vec<u8> {
    frame([7; 100]).repeat(630)
}

#[test]
fn thousand_flooding_links_get_equal_shares() {
    let _guard = one_at_a_time();
    let mut figures = ResultTable::new(
        "overload-shares",
        &[
            "1000 links of 100 B frames",
            "frames/s",
            "slowest share",
            "fastest share",
            "taken, slowest",
            "memory, MiB",
        ],
    );
    for (name, flooding, inbox_frames) in [
        ("all alike, inbox of 100", 0, 100),
        ("all alike, inbox of 100 000", 0, 100_000),
        ("one flooding link, inbox of 100", 1, 100),
    ] {
        let cells = shares(inbox_frames, flooding);
        figures.row([vec![name.into()], cells].concat());
    }
    figures.tell();
}

/// Runs once. Returns the cells of its row.
fn shares(inbox_frames: usize, flooding: usize) -> Vec<String> {
    let before = ProcessResources::own();
    let (manager, mut streams) = linked(LINKS, |builder| {
        builder
            .receive_buffer(Some(BUFFER_BYTES))
            .inbox_frames(inbox_frames)
    });
    let senders = streams.split_off(streams.len() - flooding);
    for stream in &streams {
        SockRef::from(stream)
            .set_send_buffer_size(BUFFER_BYTES)
            .unwrap();
    }
    let manager = Arc::new(manager);
    let application = Application::start(&manager);
    // A flooding link has a thread of its own, and its socket always has bytes.
    let crowds = [streams, senders].map(|streams| LoadThread::write(streams, small_frames()));
    eventually("frames of all members arrive", || {
        received(&manager.stats()).iter().all(|frames| *frames > 0)
    });
    let (full, start, first) = (ProcessResources::own(), Instant::now(), manager.stats());
    let mut last = first.clone();
    eventually("enough frames have arrived", || {
        last = manager.stats();
        last.received.frames - first.received.frames >= FRAMES_EACH * LINKS as u64
    });
    let (took, later) = (start.elapsed(), ProcessResources::own());
    let received_frames: Vec<u64> = received(&last)
        .iter()
        .zip(received(&first))
        .map(|(last, first)| last - first)
        .collect();
    let total: u64 = received_frames.iter().sum();
    let share = |frames: u64| frames as f64 * LINKS as f64 / total as f64;
    let slowest = share(*received_frames.iter().min().unwrap());
    assert!(
        slowest > SHARE_MIN,
        "the slowest link got {slowest:.3} of an equal share: {received_frames:?}"
    );
    assert_undisturbed(&last, LINKS as u64);
    // Messages that wait for the application, and memory that the allocator keeps.
    let allowed = 16 * MIB + inbox_frames as u64 * 300;
    assert!(
        later.growth_since(full) < allowed,
        "{full} became {later}, with {inbox_frames} frames in the inbox at most"
    );
    within("halting under load", {
        let manager = Arc::clone(&manager);
        move || manager.halt()
    });
    let taken = application.end();
    drop(crowds);
    assert!(manager.stats().balances());
    drop(manager);
    wait_descriptors(before);
    let least = (1..=LINKS)
        .map(|sid| *taken.get(&Sid(sid)).unwrap_or(&0))
        .min();
    let taken_total: u64 = taken.values().sum();
    vec![
        format!("{:.0}", total as f64 / took.as_secs_f64()),
        format!("{slowest:.3}"),
        format!("{:.3}", share(*received_frames.iter().max().unwrap())),
        format!(
            "{:.3}",
            least.unwrap() as f64 * LINKS as f64 / taken_total as f64
        ),
        format!("{:.1}", later.growth_since(before) as f64 / MIB as f64),
    ]
}

/// Takes all messages, and counts them by sender.
struct Application(thread::JoinHandle<BTreeMap<Sid, u64>>);

impl Application {
    fn start(manager: &Arc<CnxManager>) -> Self {
        let manager = Arc::clone(manager);
        Self(thread::spawn(move || {
            let (mut batch, mut taken) = (Batch::new(), BTreeMap::new());
            while manager.recv_all(&mut batch).is_ok() {
                for (from, _) in &batch {
                    *taken.entry(from).or_default() += 1;
                }
            }
            taken
        }))
    }

    fn end(self) -> BTreeMap<Sid, u64> {
        within("the application ends", move || self.0.join().unwrap())
    }
}

/// The sid of the link that sends at full speed.
const FLOODING: i64 = 1;

/// Frames of the quiet members that are measured.
const QUIET_FRAMES: usize = 2000;

#[test]
fn flooding_link_leaves_time_for_a_thousand_others() {
    let _guard = one_at_a_time();
    let mut figures = ResultTable::new(
        "overload-flood",
        &[
            "a frame of one of 999 quiet links",
            "p50 us",
            "p99 us",
            "max us",
            "flooding link, frames/s",
            "read before it, p50 KiB",
            "max KiB",
        ],
    );
    figures.row([vec!["without a flooding link".into()], quiet_frames(false)].concat());
    figures.row([vec!["beside a flooding link".into()], quiet_frames(true)].concat());
    figures.tell();
}

/// Runs once. Returns the cells of its row.
fn quiet_frames(with_flood: bool) -> Vec<String> {
    let before = ProcessResources::own();
    let (sender, received) = channel();
    let recorder = Recorder {
        start: Instant::now(),
        received: sender,
        flood_bytes: Arc::default(),
        latency: Histogram::new(3).unwrap(),
        bytes_before: Histogram::new(3).unwrap(),
    };
    let (flood_bytes, start) = (Arc::clone(&recorder.flood_bytes), recorder.start);
    let (handle, loop_thread, mut quiet) = run_loop(LINKS, |builder| builder, recorder);
    let senders: Vec<TcpStream> = quiet.drain(..FLOODING as usize).collect();
    let crowd = if with_flood {
        LoadThread::write(senders, small_frames())
    } else {
        LoadThread::read(senders)
    };
    eventually("bytes of the flooding link arrive", || {
        !with_flood || flood_bytes.load(Ordering::Acquire) > 10 * MIB
    });
    let (start_time, bytes_at_start) = (Instant::now(), flood_bytes.load(Ordering::Acquire));
    for number in 0..QUIET_FRAMES {
        let mut payload = [0; 100];
        payload[..8].copy_from_slice(&(start.elapsed().as_nanos() as u64).to_be_bytes());
        payload[8..16].copy_from_slice(&flood_bytes.load(Ordering::Acquire).to_be_bytes());
        let at = number % quiet.len();
        quiet[at].write_all(&frame(payload)).unwrap();
        // One at a time, so that only bytes of the flooding link are before it.
        received
            .recv_timeout(LONG)
            .expect("the quiet frame arrives");
    }
    let frames = (flood_bytes.load(Ordering::Acquire) - bytes_at_start) / 104;
    let per_second = frames as f64 / start_time.elapsed().as_secs_f64();
    let stats = handle.stats();
    assert_undisturbed(&stats, LINKS as u64);
    let mut ended = end(&handle, loop_thread);
    let recorder = ended.handler_mut();
    let (latency, bytes_before) = (recorder.latency.clone(), recorder.bytes_before.clone());
    drop(ended);
    // The bytes that two turns read from one link, with a margin.
    let allowed = 4 * (limits::TURN_BYTES + limits::READ_BUFFER_BYTES) as u64;
    assert!(
        bytes_before.value_at_quantile(0.5) <= allowed,
        "half of the quiet frames waited for more than {} bytes of the flooding link",
        bytes_before.value_at_quantile(0.5)
    );
    drop((crowd, quiet, handle));
    wait_descriptors(before);
    let micros = |nanos: u64| format!("{:.0}", nanos as f64 / 1e3);
    let kibibytes = |bytes: u64| format!("{}", bytes >> 10);
    vec![
        micros(latency.value_at_quantile(0.5)),
        micros(latency.value_at_quantile(0.99)),
        micros(latency.max()),
        format!("{per_second:.0}"),
        kibibytes(bytes_before.value_at_quantile(0.5)),
        kibibytes(bytes_before.max()),
    ]
}

/// A handler that records the latency of quiet frames.
struct Recorder {
    start: Instant,
    /// Notified of each quiet frame.
    received: Sender<()>,
    /// Bytes received from the flooding link.
    flood_bytes: Arc<AtomicU64>,
    latency: Histogram<u64>,
    /// Bytes of the flooding link that were read while a quiet frame waited.
    bytes_before: Histogram<u64>,
}

impl Handler for Recorder {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, _: &Handle) {
        if from == Sid(FLOODING) {
            let bytes = frame.len() + limits::PREFIX_BYTES;
            self.flood_bytes.fetch_add(bytes as u64, Ordering::AcqRel);
            return;
        }
        let number = |at: usize| u64::from_be_bytes(frame[at..at + 8].try_into().unwrap());
        let now = self.start.elapsed().as_nanos() as u64;
        self.latency.record(now.saturating_sub(number(0))).unwrap();
        let flood_bytes = self.flood_bytes.load(Ordering::Acquire);
        self.bytes_before.record(flood_bytes - number(8)).unwrap();
        // Fails if the test has ended.
        let _ = self.received.send(());
    }
}
