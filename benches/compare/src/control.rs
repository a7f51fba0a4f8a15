//! Controls an end: commands on standard input, one a line, and JSON on standard output.
//!
//! Frames are sent and received on another thread. This one executes commands, answers and exits in time whatever that thread does.

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

/// Duration of the warm-up of `drive`, or its number of round trips.
const WARM: Duration = Duration::from_millis(100);
const WARM_ROUND_TRIPS: u64 = 2000;

/// Time between the end of the connection and `stop`, which the two ends do not read at the same moment.
const GONE_MAX: Duration = Duration::from_secs(2);

#[derive(Debug)]
enum Event {
    Ready(String),
    Mark,
    Stop,
    EndOfInput,
    /// The connection has ended, or could not be made.
    Gone(Instant, String),
}

/// The context of the thread that sends and receives frames.
#[derive(Debug)]
pub(crate) struct EndContext {
    pub(crate) role: Role,
    pub(crate) meter: Meter,
    events: mpsc::Sender<Event>,
}

impl Role {
    pub(crate) fn task(&self) -> &Task {
        match self {
            Self::Serve { task, .. } | Self::Drive { task, .. } => task,
        }
    }
}

impl EndContext {
    /// Reports that this end is ready, and its address.
    pub(crate) fn ready(&self, address: &str) {
        // Fails if the process is about to exit.
        let _ = self.events.send(Event::Ready(address.to_owned()));
    }

    /// The chosen variant, if it is one of `known`. The first one is the default.
    pub(crate) fn variant<'a>(&self, known: &[&'a str]) -> io::Result<&'a str> {
        let asked = &self.role.task().variant;
        let default = known.first().copied().filter(|_| asked == "default");
        let found = known.iter().copied().find(|name| name == asked);
        found.or(default).ok_or_else(|| {
            io::Error::other(format!(
                "there is no variant {asked:?}; there are: {}",
                known.join(", ")
            ))
        })
    }
}

/// The warm-up of `drive`: reports when it is over.
#[derive(Debug)]
pub(crate) struct WarmUp<'a> {
    context: &'a EndContext,
    address: String,
    since: Option<Instant>,
    rounds: u64,
}

impl<'a> WarmUp<'a> {
    pub(crate) fn new(context: &'a EndContext, address: String) -> Self {
        Self {
            context,
            address,
            since: Some(Instant::now()),
            rounds: 0,
        }
    }

    /// To be called after every frame, or every call with several frames.
    pub(crate) fn round(&mut self) {
        let Some(since) = self.since else {
            return;
        };
        self.rounds += 1;
        let is_latency = self.context.meter.workload == Workload::Latency;
        if since.elapsed() >= WARM || is_latency && self.rounds >= WARM_ROUND_TRIPS {
            self.since = None;
            self.context.ready(&self.address);
        }
    }
}

/// Runs `work` on a thread of its own, and executes commands until `stop`.
pub(crate) fn run(
    role: Role,
    work: impl FnOnce(&EndContext) -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let task = role.task();
    if task.bytes() < payload::BYTES_MIN && task.workload != Workload::Latency {
        return Err(io::Error::other(format!(
            "--size {}: a payload has {} bytes at least, for its time and its number",
            task.size,
            payload::BYTES_MIN
        )));
    }
    let deadline = Instant::now() + Duration::from_secs(task.at_most.into());
    let end = match role {
        Role::Serve { .. } => End::Serve,
        Role::Drive { .. } => End::Drive,
    };
    let (sender, events) = mpsc::channel();
    let context = Arc::new(EndContext {
        meter: Meter::new(end, task.workload),
        role,
        events: sender.clone(),
    });
    let worker = Arc::clone(&context);
    thread::Builder::new()
        .name("frames".into())
        .spawn(move || {
            let why = match work(&worker) {
                Ok(()) => "the connection has ended".to_owned(),
                Err(error) => error.to_string(),
            };
            let _ = worker.events.send(Event::Gone(Instant::now(), why));
        })?;
    thread::Builder::new()
        .name("commands".into())
        .spawn(move || read_commands(&sender))?;
    execute(&context.meter, &events, deadline)
}

fn execute(meter: &Meter, events: &mpsc::Receiver<Event>, deadline: Instant) -> io::Result<()> {
    let mut mark = meter.mark();
    let mut gone: Option<(Instant, String)> = None;
    loop {
        let until = gone
            .as_ref()
            .map_or(deadline, |(at, _)| deadline.min(*at + GONE_MAX));
        let wait = until.saturating_duration_since(Instant::now());
        match events.recv_timeout(wait) {
            Ok(Event::Ready(address)) => {
                // A closed standard output does not stop the frames.
                print_line(json!({"ready": address}))?;
            }
            Ok(Event::Mark) => mark = meter.mark(),
            Ok(Event::Stop) => {
                let until = gone.map_or_else(Instant::now, |(at, _)| at);
                print_line(meter.results(mark, until))?;
                return Ok(());
            }
            Ok(Event::EndOfInput) => return Ok(()),
            Ok(Event::Gone(at, why)) => gone = Some((at, why)),
            Err(_) => {
                let why = gone.map_or_else(
                    || "the time of --at-most is over".to_owned(),
                    |(_, why)| why,
                );
                return Err(io::Error::other(why));
            }
        }
    }
}

/// Reads commands from standard input.
fn read_commands(events: &mpsc::Sender<Event>) {
    for line in io::stdin().lines() {
        let event = match line.as_deref().map(str::trim) {
            Ok("mark") => Event::Mark,
            Ok("stop") => Event::Stop,
            Ok("") => continue,
            Ok(other) => {
                print_error(format_args!("compare: no such command: {other:?}"));
                process::exit(1);
            }
            Err(_) => break,
        };
        let _ = events.send(event);
    }
    let _ = events.send(Event::EndOfInput);
}
