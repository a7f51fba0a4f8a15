//! A thousand links into one manager, all of which have more to say than it can hear: whose frames are read, and how
//! soon those of one that says little.
//!
//! What becomes of the frames is the application's business; here it takes them and counts.

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
use quorum_cnx::{Batch, CnxManager, EventLoop, Frame, Handle, Handler, Sid, limits};
use socket2::SockRef;

use crate::{
    common::{
        LONG,
        crowd::{self, Crowd},
        eventually,
        figures::Figures,
        frame,
        process::{Holdings, need_descriptors, wait_descriptors},
        within,
    },
    stage::{MIB, assert_undisturbed, build, crowded, linked, one_at_a_time, received},
};

const LINKS: i64 = 1000;

/// What each link has in the kernel at most, about: small, so that shares are measured finely.
const BUFFER_BYTES: usize = 8 << 10;

/// Frames of each link that are measured, on average.
const FRAMES_EACH: u64 = 300;

/// The smallest share of an equal one that is taken for fair. On a machine with nothing else to do it is near 1.
const SHARE_MIN: f64 = 0.2;

/// Frames of 100 bytes, some at once.
fn small_frames() -> Vec<u8> {
    frame([7; 100]).repeat(630)
}

#[test]
fn a_thousand_links_that_pour_get_equal_shares() {
    let _turn = one_at_a_time();
    let mut figures = Figures::new(
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
    for (name, firehoses, inbox_frames) in [
        ("all alike, inbox of 100", 0, 100),
        ("all alike, inbox of 100 000", 0, 100_000),
        ("one firehose, inbox of 100", 1, 100),
    ] {
        let cells = shares(inbox_frames, firehoses);
        figures.row([vec![name.into()], cells].concat());
    }
    figures.tell();
}

/// One run; the cells of its row.
fn shares(inbox_frames: usize, firehoses: usize) -> Vec<String> {
    let before = Holdings::own();
    let (manager, mut streams) = linked(LINKS, |builder| {
        builder
            .receive_buffer(Some(BUFFER_BYTES))
            .inbox_frames(inbox_frames)
    });
    let loud = streams.split_off(streams.len() - firehoses);
    for stream in &streams {
        SockRef::from(stream)
            .set_send_buffer_size(BUFFER_BYTES)
            .unwrap();
    }
    let manager = Arc::new(manager);
    let application = Application::start(&manager);
    // A firehose has a thread of its own, and its socket is never dry.
    let crowds = [streams, loud].map(|streams| Crowd::pour(streams, small_frames()));
    eventually("everybody is heard", || {
        received(&manager.stats()).iter().all(|frames| *frames > 0)
    });
    let (full, start, first) = (Holdings::own(), Instant::now(), manager.stats());
    let mut last = first.clone();
    eventually("enough frames have come", || {
        last = manager.stats();
        last.received.frames - first.received.frames >= FRAMES_EACH * LINKS as u64
    });
    let (took, later) = (start.elapsed(), Holdings::own());
    let came: Vec<u64> = received(&last)
        .iter()
        .zip(received(&first))
        .map(|(last, first)| last - first)
        .collect();
    let total: u64 = came.iter().sum();
    let share = |frames: u64| frames as f64 * LINKS as f64 / total as f64;
    let slowest = share(*came.iter().min().unwrap());
    assert!(
        slowest > SHARE_MIN,
        "the slowest link got {slowest:.3} of an equal share: {came:?}"
    );
    assert_undisturbed(&last, LINKS as u64);
    // What waits for the application, and what the allocator keeps of that.
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
        format!("{:.3}", share(*came.iter().max().unwrap())),
        format!(
            "{:.3}",
            least.unwrap() as f64 * LINKS as f64 / taken_total as f64
        ),
        format!("{:.1}", later.growth_since(before) as f64 / MIB as f64),
    ]
}

/// Takes all that comes, and counts it by sender.
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
        within("the application hears of the end", move || {
            self.0.join().unwrap()
        })
    }
}

/// One link that is never dry, in front of many that say something now and then.
const FIREHOSE: i64 = 1;

/// Frames of the quiet members that are measured.
const ASIDES: usize = 2000;

#[test]
fn a_firehose_leaves_time_for_the_thousand_beside_it() {
    let _turn = one_at_a_time();
    let mut figures = Figures::new(
        "overload-firehose",
        &[
            "a frame of one of 999 quiet links",
            "p50 us",
            "p99 us",
            "max us",
            "firehose frames/s",
            "let in front, p50 KiB",
            "max KiB",
        ],
    );
    figures.row([vec!["with nobody else".into()], asides(false)].concat());
    figures.row([vec!["beside a firehose".into()], asides(true)].concat());
    figures.tell();
}

/// One run; the cells of its row.
fn asides(is_loud: bool) -> Vec<String> {
    let before = Holdings::own();
    need_descriptors(2 * LINKS as u64 + 200);
    let (builder, address) = crowded(LINKS);
    let (told, heard) = channel();
    let listener = Listener {
        start: Instant::now(),
        heard: told,
        flood: Arc::default(),
        late: Histogram::new(3).unwrap(),
        in_front: Histogram::new(3).unwrap(),
    };
    let (flood, start) = (Arc::clone(&listener.flood), listener.start);
    let mut event_loop = EventLoop::new(build(builder), listener).unwrap();
    let handle = event_loop.handle().clone();
    let turner = thread::spawn(move || {
        event_loop.run().unwrap();
        let Listener { late, in_front, .. } = event_loop.handler_mut();
        (late.clone(), in_front.clone())
    });
    let mut quiet = crowd::members(1..=LINKS, &address);
    let loud: Vec<TcpStream> = quiet.drain(..FIREHOSE as usize).collect();
    eventually("all members are linked", || {
        handle.linked_peers().len() == LINKS as usize
    });
    let crowd = if is_loud {
        Crowd::pour(loud, small_frames())
    } else {
        Crowd::drain(loud)
    };
    eventually("the firehose is heard", || {
        !is_loud || flood.load(Ordering::Acquire) > 10 * MIB
    });
    let (since, poured) = (Instant::now(), flood.load(Ordering::Acquire));
    for aside in 0..ASIDES {
        let mut payload = [0; 100];
        payload[..8].copy_from_slice(&(start.elapsed().as_nanos() as u64).to_be_bytes());
        payload[8..16].copy_from_slice(&flood.load(Ordering::Acquire).to_be_bytes());
        let at = aside % quiet.len();
        quiet[at].write_all(&frame(payload)).unwrap();
        // One at a time, so that what is in front of it is the firehose's alone.
        heard.recv_timeout(LONG).expect("the quiet one is heard");
    }
    let frames = (flood.load(Ordering::Acquire) - poured) / 104;
    let per_second = frames as f64 / since.elapsed().as_secs_f64();
    let stats = handle.stats();
    assert_undisturbed(&stats, LINKS as u64);
    handle.request_halt();
    let (late, in_front) = within("the loop ends", move || turner.join().unwrap());
    // What a turn reads from one link, and in the next one once more.
    let allowed = 4 * (limits::TURN_BYTES + limits::READ_BUFFER_BYTES) as u64;
    assert!(
        in_front.value_at_quantile(0.5) <= allowed,
        "half of the quiet frames waited for more than {} bytes of the firehose",
        in_front.value_at_quantile(0.5)
    );
    drop((crowd, quiet, handle));
    wait_descriptors(before);
    let micros = |nanos: u64| format!("{:.0}", nanos as f64 / 1e3);
    let kibibytes = |bytes: u64| format!("{}", bytes >> 10);
    vec![
        micros(late.value_at_quantile(0.5)),
        micros(late.value_at_quantile(0.99)),
        micros(late.max()),
        format!("{per_second:.0}"),
        kibibytes(in_front.value_at_quantile(0.5)),
        kibibytes(in_front.max()),
    ]
}

/// Hears what everybody says, and notes how late that of the quiet ones is.
struct Listener {
    start: Instant,
    /// Told of each frame of a quiet one.
    heard: Sender<()>,
    /// Bytes of the firehose.
    flood: Arc<AtomicU64>,
    late: Histogram<u64>,
    /// Bytes of the firehose that were read while a frame of a quiet one waited.
    in_front: Histogram<u64>,
}

impl Handler for Listener {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, _: &Handle) {
        if from == Sid(FIREHOSE) {
            let bytes = frame.len() + limits::PREFIX_BYTES;
            self.flood.fetch_add(bytes as u64, Ordering::AcqRel);
            return;
        }
        let number = |at: usize| u64::from_be_bytes(frame[at..at + 8].try_into().unwrap());
        let now = self.start.elapsed().as_nanos() as u64;
        self.late.record(now.saturating_sub(number(0))).unwrap();
        let flood = self.flood.load(Ordering::Acquire);
        self.in_front.record(flood - number(8)).unwrap();
        // Fails when the test has given up.
        let _ = self.heard.send(());
    }
}
