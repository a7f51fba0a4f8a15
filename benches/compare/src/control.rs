//! How the harness drives an end: commands by standard input, one a line, and JSON by standard output.
//!
//! The frames move on a thread of their own, which this one never touches: whatever becomes of it, this one obeys,
//! answers and ends in time.

use std::{
    io, process,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    Role, Task, Workload,
    meter::{End, Meter},
    output::{print_error, print_line},
    payload,
};

/// Traffic before an end that drives is ready, or as many round trips.
const WARM: Duration = Duration::from_millis(100);
const WARM_ROUND_TRIPS: u64 = 2000;

/// How long the connection may be gone before the command to stop comes: the two ends never hear it at the same moment.
const GONE_MAX: Duration = Duration::from_secs(2);

#[derive(Debug)]
enum Happening {
    Ready(String),
    Mark,
    Stop,
    EndOfInput,
    /// The connection has ended, or could not be made.
    Gone(Instant, String),
}

/// What the thread that moves the frames works with.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) role: Role,
    pub(crate) meter: Meter,
    happened: mpsc::Sender<Happening>,
}

impl Role {
    pub(crate) fn task(&self) -> &Task {
        match self {
            Self::Serve { task, .. } | Self::Drive { task, .. } => task,
        }
    }
}

impl Stage {
    /// Says that this end can be used, and where it is.
    pub(crate) fn ready(&self, address: &str) {
        // Nobody listens any more if the process is about to end.
        let _ = self.happened.send(Happening::Ready(address.to_owned()));
    }

    /// Refuses to be told how to do what is done in one way only.
    pub(crate) fn variant<'a>(&self, known: &[&'a str]) -> io::Result<&'a str> {
        let asked = &self.role.task().variant;
        let default = known.first().copied().filter(|_| asked == "default");
        let found = known.iter().copied().find(|name| name == asked);
        found.or(default).ok_or_else(|| {
            io::Error::other(format!(
                "no variant {asked:?} of this; there is: {}",
                known.join(", ")
            ))
        })
    }
}

/// Says when traffic has run for long enough.
#[derive(Debug)]
pub(crate) struct Warmth<'a> {
    stage: &'a Stage,
    address: String,
    since: Option<Instant>,
    rounds: u64,
}

impl<'a> Warmth<'a> {
    pub(crate) fn new(stage: &'a Stage, address: String) -> Self {
        Self {
            stage,
            address,
            since: Some(Instant::now()),
            rounds: 0,
        }
    }

    /// After every frame, or every call with several.
    pub(crate) fn round(&mut self) {
        let Some(since) = self.since else {
            return;
        };
        self.rounds += 1;
        let is_latency = self.stage.meter.workload == Workload::Latency;
        if since.elapsed() >= WARM || is_latency && self.rounds >= WARM_ROUND_TRIPS {
            self.since = None;
            self.stage.ready(&self.address);
        }
    }
}

/// Moves frames by `work` on a thread of its own, and obeys.
pub(crate) fn run(
    role: Role,
    work: impl FnOnce(&Stage) -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let task = role.task();
    if task.bytes() < payload::BYTES_MIN && task.workload != Workload::Latency {
        return Err(io::Error::other(format!(
            "--size {}: a payload has {} bytes at least, for its stamp and its number",
            task.size,
            payload::BYTES_MIN
        )));
    }
    let deadline = Instant::now() + Duration::from_secs(task.at_most.into());
    let end = match role {
        Role::Serve { .. } => End::Serve,
        Role::Drive { .. } => End::Drive,
    };
    let (happened, happenings) = mpsc::channel();
    let stage = Arc::new(Stage {
        meter: Meter::new(end, task.workload),
        role,
        happened: happened.clone(),
    });
    let worker = Arc::clone(&stage);
    thread::Builder::new()
        .name("frames".into())
        .spawn(move || {
            let why = match work(&worker) {
                Ok(()) => "the connection has ended".to_owned(),
                Err(error) => error.to_string(),
            };
            let _ = worker.happened.send(Happening::Gone(Instant::now(), why));
        })?;
    thread::Builder::new()
        .name("commands".into())
        .spawn(move || hear(&happened))?;
    obey(&stage.meter, &happenings, deadline)
}

fn obey(
    meter: &Meter,
    happenings: &mpsc::Receiver<Happening>,
    deadline: Instant,
) -> io::Result<()> {
    let mut mark = meter.mark();
    let mut gone: Option<(Instant, String)> = None;
    loop {
        let until = gone
            .as_ref()
            .map_or(deadline, |(at, _)| deadline.min(*at + GONE_MAX));
        let wait = until.saturating_duration_since(Instant::now());
        match happenings.recv_timeout(wait) {
            Ok(Happening::Ready(address)) => {
                // Nobody needs to read it for the frames to flow.
                print_line(json!({"ready": address}))?;
            }
            Ok(Happening::Mark) => mark = meter.mark(),
            Ok(Happening::Stop) => {
                let until = gone.map_or_else(Instant::now, |(at, _)| at);
                print_line(meter.results(mark, until))?;
                return Ok(());
            }
            Ok(Happening::EndOfInput) => return Ok(()),
            Ok(Happening::Gone(at, why)) => gone = Some((at, why)),
            Err(_) => {
                let why = gone.map_or_else(
                    || "it has lasted as long as it may".to_owned(),
                    |(_, why)| why,
                );
                return Err(io::Error::other(why));
            }
        }
    }
}

/// Commands as they come.
fn hear(happened: &mpsc::Sender<Happening>) {
    for line in io::stdin().lines() {
        let happening = match line.as_deref().map(str::trim) {
            Ok("mark") => Happening::Mark,
            Ok("stop") => Happening::Stop,
            Ok("") => continue,
            Ok(other) => {
                print_error(format_args!("compare: no such command: {other:?}"));
                process::exit(1);
            }
            Err(_) => break,
        };
        let _ = happened.send(happening);
    }
    let _ = happened.send(Happening::EndOfInput);
}
