//! One peer of a mesh on the command line: commands on standard input, a JSON object a line on standard output.
//!
//! The loop never waits for who reads the output: what is to be printed waits in a bounded queue of its own.

use std::{
    collections::VecDeque,
    io::{self, BufRead as _, Write as _},
    process::ExitCode,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use quorum_cnx::{
    Challenge, Config, ConfigError, Dial, Event, EventLoop, Frame, Handle, Handler, Incoming,
    Outgoing, PeerStats, Replace, Sent, Sid, Stats, Unknown, limits,
};
use serde_json::{Value, json};

/// One peer of a quorum: looks into a live ZooKeeper election port, or tests a network.
#[derive(Debug, Parser)]
#[command(name = "peer", after_help = COMMANDS)]
struct Cli {
    /// The id of this server
    #[arg(long, value_name = "SID", allow_negative_numbers = true)]
    sid: i64,

    /// A server of the quorum, this one included, by its election addresses; once for each
    #[arg(long = "server", value_name = "SID=HOST:PORT[|HOST:PORT]", value_parser = server)]
    servers: Vec<(i64, String)>,

    /// Takes servers and times from a ZooKeeper configuration
    #[arg(long, value_name = "FILE")]
    zoo_cfg: Option<String>,

    /// How this server names itself: the sid alone, or with one or all of its addresses [default: v1]
    #[arg(long, value_enum)]
    challenge: Option<ChallengeArg>,

    /// Sends each frame back to where it came from
    #[arg(long)]
    echo: bool,

    /// When peers are dialed
    #[arg(long, value_enum, default_value = "eager")]
    dial: DialArg,

    /// Admits up to N servers that are not configured
    #[arg(long, value_name = "N")]
    admit: Option<usize>,

    /// What a second connection needs to replace a link: proof that it is the peer's, or nothing
    #[arg(long, value_enum, default_value = "proven")]
    replace: ReplaceArg,

    /// Received frames that wait to be printed before the oldest goes
    #[arg(long, value_name = "N", default_value_t = limits::INBOX_FRAMES)]
    capacity: usize,

    /// When a peer that acknowledges nothing is dead
    #[arg(long, value_name = "N")]
    peer_dead_after_ms: Option<u64>,

    /// How long a connection may take to name itself
    #[arg(long, value_name = "N")]
    handshake_timeout_ms: Option<u64>,

    /// Halts after this time
    #[arg(long, value_name = "N", value_parser = seconds)]
    seconds: Option<Duration>,

    /// Logs what happens to standard error; RUST_LOG chooses in more detail
    #[arg(short, long)]
    verbose: bool,
}

const COMMANDS: &str = "\
Commands on standard input, one a line:
  send SID TEXT  holds out TEXT, the rest of the line, to the server SID
  hex SID HEX    the same with bytes in hexadecimal
  connect SID    asks for a link to SID
  connect-all    asks for a link to everybody
  stats          prints all counters
  flush          the next command waits until nothing waits for any peer
  quit           halts

The end of standard input is no end: the peer goes on until `quit`, the end of --seconds, or a signal.
To send one frame and be done:

  printf 'send 1 hello\\nflush\\nquit\\n' | peer --sid 2 --server ...

Standard output has one JSON object a line, with the field `event`: listening, listen-failed,
listener-lost, up, down, dial-failed, rejected, frame, sent, stats, slow-turn, error, halted.

Exit code: 0 after `halted`, 2 for a command line or a configuration that cannot work, 1 if the loop died.";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ChallengeArg {
    Bare,
    V1,
    V2,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DialArg {
    Eager,
    OnDemand,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ReplaceArg {
    Proven,
    Newest,
}

fn server(text: &str) -> Result<(i64, String), String> {
    let (sid, addresses) = text.split_once('=').ok_or("there is no `=` in it")?;
    let sid = sid
        .parse()
        .map_err(|_| format!("`{sid}` is no server id"))?;
    Ok((sid, addresses.to_owned()))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "this is no number")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => return refuse(&one_line(&error.to_string())),
        // The help, in full.
        Err(error) => error.exit(),
    };
    let filter = if cli.verbose {
        "quorum_cnx=debug"
    } else {
        "off"
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter)).init();
    match config(&cli) {
        Ok(config) => run(config, &cli),
        Err(error) => refuse(&error.to_string()),
    }
}

/// Nothing was started, and one line says why.
fn refuse(why: &str) -> ExitCode {
    eprintln!("peer: {why}");
    ExitCode::from(2)
}

/// The first paragraph: what is wrong, without the usage that follows it.
fn one_line(error: &str) -> String {
    let lines = error.lines().take_while(|line| !line.trim().is_empty());
    let line = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    line.trim_start_matches("error: ").to_owned()
}

fn config(cli: &Cli) -> Result<Config, ConfigError> {
    let own = Sid(cli.sid);
    let mut builder = match &cli.zoo_cfg {
        Some(path) => Config::from_zoo_cfg_file(path, own)?,
        None => Config::builder(own),
    };
    for (sid, addresses) in &cli.servers {
        builder = builder.server(Sid(*sid), addresses);
    }
    builder = builder
        .dial(match cli.dial {
            DialArg::Eager => Dial::Eager,
            DialArg::OnDemand => Dial::OnDemand,
        })
        .replace(match cli.replace {
            ReplaceArg::Proven => Replace::Proven,
            ReplaceArg::Newest => Replace::Newest,
        })
        .inbox_frames(cli.capacity);
    if let Some(challenge) = cli.challenge {
        builder = builder.challenge(match challenge {
            ChallengeArg::Bare => Challenge::Bare,
            ChallengeArg::V1 => Challenge::V1,
            ChallengeArg::V2 => Challenge::V2,
        });
    }
    if let Some(max) = cli.admit {
        builder = builder.unknown(Unknown::Admit { max });
    }
    if let Some(millis) = cli.peer_dead_after_ms {
        builder = builder.peer_dead_after(Duration::from_millis(millis));
    }
    if let Some(millis) = cli.handshake_timeout_ms {
        builder = builder.handshake_timeout(Duration::from_millis(millis));
    }
    builder.build()
}

/// The loop and the commands have threads of their own; this one prints.
fn run(config: Config, cli: &Cli) -> ExitCode {
    let lines = Arc::new(Lines::new(cli.capacity));
    let reporter = Reporter {
        lines: Arc::clone(&lines),
        echo: cli.echo,
    };
    let mut event_loop = match EventLoop::new(config, reporter) {
        Ok(event_loop) => event_loop,
        Err(error) => return fail(&format!("the loop cannot start: {error}")),
    };
    let handle = event_loop.handle().clone();
    let turner = thread::spawn(move || event_loop.run());
    let commands = Commands {
        lines: Arc::clone(&lines),
        handle: handle.clone(),
    };
    // Nobody waits for it: it may sit in a read that never ends.
    thread::spawn(move || commands.run());

    let end = cli.seconds.map(|seconds| Instant::now() + seconds);
    let printed = print(&lines, &handle, end);
    // Who closed our output wants no more of us, and no complaint either.
    handle.request_halt();
    match turner.join() {
        Ok(Ok(())) => match printed {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                fail(&format!("cannot print: {error}"))
            }
            _ => ExitCode::SUCCESS,
        },
        Ok(Err(error)) => fail(&format!("the loop died: {error}")),
        // Its message is on standard error.
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("peer: {why}");
    ExitCode::FAILURE
}

fn print(lines: &Lines, handle: &Handle, mut end: Option<Instant>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    loop {
        match lines.pop(end) {
            Popped::Line(line) => {
                // One write a line, so that a reader never sees half of one for long.
                let mut text = line.into_json().to_string();
                text.push('\n');
                out.write_all(text.as_bytes())?;
                out.flush()?;
            }
            Popped::Timeout => {
                handle.request_halt();
                end = None;
            }
            Popped::End => return Ok(()),
        }
    }
}

/// What is to be printed.
enum Line {
    Frame(Sid, Bytes),
    Event(Value),
}

impl Line {
    fn into_json(self) -> Value {
        match self {
            Self::Frame(sid, bytes) => json!({
                "event": "frame", "sid": sid.0, "len": bytes.len(), "hex": hex(&bytes),
            }),
            Self::Event(value) => value,
        }
    }
}

enum Popped {
    Line(Line),
    Timeout,
    End,
}

/// What waits to be printed, in the order in which it happened. Frames and events are bounded apart; the oldest goes.
struct Lines {
    state: Mutex<State>,
    stirred: Condvar,
    frames_max: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Line>,
    /// True exactly when nothing can follow.
    closed: bool,
    frames: Counts,
    events: Counts,
}

#[derive(Default)]
struct Counts {
    pushed: u64,
    dropped: u64,
    waiting: usize,
}

impl Counts {
    fn json(&self) -> Value {
        let taken = self.pushed - self.dropped - self.waiting as u64;
        json!({
            "pushed": self.pushed, "taken": taken, "dropped": self.dropped, "waiting": self.waiting,
        })
    }
}

impl State {
    fn counts(&mut self, is_frame: bool) -> &mut Counts {
        if is_frame {
            &mut self.frames
        } else {
            &mut self.events
        }
    }

    fn push(&mut self, line: Line, frames_max: usize) {
        let is_frame = matches!(line, Line::Frame(..));
        let max = if is_frame {
            frames_max
        } else {
            limits::EVENTS_MAX
        };
        if self.counts(is_frame).waiting >= max {
            let oldest = |line: &Line| matches!(line, Line::Frame(..)) == is_frame;
            if let Some(at) = self.queue.iter().position(oldest) {
                self.queue.remove(at);
                self.counts(is_frame).dropped += 1;
                self.counts(is_frame).waiting -= 1;
            }
        }
        self.counts(is_frame).pushed += 1;
        self.counts(is_frame).waiting += 1;
        self.queue.push_back(line);
    }
}

impl Lines {
    fn new(frames_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            stirred: Condvar::new(),
            frames_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: Line) {
        self.lock().push(line, self.frames_max);
        self.stirred.notify_one();
    }

    /// Pushes what `work` says, before anything that follows from it.
    fn push_with(&self, work: impl FnOnce(&mut State) -> Value) {
        let mut state = self.lock();
        let value = work(&mut state);
        state.push(Line::Event(value), self.frames_max);
        self.stirred.notify_one();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.stirred.notify_one();
    }

    fn pop(&self, end: Option<Instant>) -> Popped {
        let mut state = self.lock();
        loop {
            if let Some(line) = state.queue.pop_front() {
                let is_frame = matches!(line, Line::Frame(..));
                state.counts(is_frame).waiting -= 1;
                return Popped::Line(line);
            }
            if state.closed {
                return Popped::End;
            }
            let Some(end) = end else {
                state = self
                    .stirred
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Popped::Timeout;
            }
            state = self
                .stirred
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// The loop's side: everything that comes becomes a line.
struct Reporter {
    lines: Arc<Lines>,
    echo: bool,
}

impl Handler for Reporter {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        let bytes = frame.into_bytes();
        self.lines.push(Line::Frame(from, bytes.clone()));
        // A frame to ourselves would come round for ever.
        if self.echo && from != handle.sid() {
            if let Err(error) = handle.to_send(from, bytes) {
                self.lines.push(Line::Event(failure(&error.to_string())));
            }
        }
    }

    fn on_event(&mut self, event: &Event, _: &Handle) {
        self.lines.push(Line::Event(event_json(event)));
    }
}

impl Drop for Reporter {
    /// The loop has ended, if only by a panic.
    fn drop(&mut self) {
        self.lines.close();
    }
}

/// Obeys what comes on standard input.
struct Commands {
    lines: Arc<Lines>,
    handle: Handle,
}

impl Commands {
    fn run(&self) {
        let mut input = io::stdin().lock();
        let mut line = Vec::new();
        loop {
            line.clear();
            match input.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => self.obey(&line),
                Err(error) => return self.say(failure(&format!("cannot read commands: {error}"))),
            }
        }
    }

    fn say(&self, value: Value) {
        self.lines.push(Line::Event(value));
    }

    fn obey(&self, line: &[u8]) {
        let line = match std::str::from_utf8(line) {
            Ok(line) => line.trim_end_matches(['\n', '\r']),
            Err(_) => return self.say(failure("a command is not UTF-8")),
        };
        if let Err(why) = self.dispatch(line) {
            self.say(failure(&why));
        }
    }

    fn dispatch(&self, line: &str) -> Result<(), String> {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "send" => {
                let (sid, text) = sid_and(rest)?;
                self.send(sid, Bytes::copy_from_slice(text.as_bytes()));
            }
            "hex" => {
                let (sid, text) = sid_and(rest)?;
                self.send(sid, unhex(text)?.into());
            }
            "connect" => {
                let (sid, _) = sid_and(rest)?;
                self.handle
                    .connect_one(sid)
                    .map_err(|error| error.to_string())?;
            }
            "connect-all" => self.handle.connect_all(),
            "stats" => self
                .lines
                .push_with(|state| stats_json(&self.handle.stats(), state)),
            "flush" => self.flush(),
            "quit" => self.handle.request_halt(),
            "" => {}
            other => return Err(format!("there is no command `{other}`")),
        }
        Ok(())
    }

    fn send(&self, sid: Sid, frame: Bytes) {
        // Under the lock, so that no answer is printed before it.
        self.lines
            .push_with(|_| match self.handle.to_send(sid, frame) {
                Ok(sent) => json!({ "event": "sent", "sid": sid.0, "outcome": outcome(sent) }),
                Err(error) => failure(&error.to_string()),
            });
    }

    fn flush(&self) {
        while !self.handle.have_delivered() && !self.handle.is_halted() {
            // The library has no call that waits for this, and this program is in no hurry.
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A server id, and what follows it.
fn sid_and(rest: &str) -> Result<(Sid, &str), String> {
    let (sid, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let sid = sid
        .parse()
        .map_err(|_| format!("`{sid}` is no server id"))?;
    Ok((Sid(sid), rest))
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    let digits = |byte: &u8| [digit(byte >> 4), digit(byte & 15)];
    bytes.iter().flat_map(digits).collect()
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let text = text.trim();
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .map(|digit| digit as u8)
            .ok_or("this is not hexadecimal")
    };
    if text.len() % 2 != 0 {
        return Err("a hexadecimal digit is missing".into());
    }
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}

fn failure(message: &str) -> Value {
    json!({ "event": "error", "message": message })
}

fn outcome(sent: Sent) -> &'static str {
    match sent {
        Sent::Written => "written",
        Sent::Queued => "queued",
        Sent::Superseded => "superseded",
        Sent::Loopback => "loopback",
        _ => "other",
    }
}

fn event_json(event: &Event) -> Value {
    match event {
        Event::Listening { addr } => json!({ "event": "listening", "addr": addr.to_string() }),
        Event::ListenFailed { address, error } => json!({
            "event": "listen-failed", "addr": address.to_string(), "message": error,
        }),
        Event::ListenerLost { address } => {
            json!({ "event": "listener-lost", "addr": address.to_string() })
        }
        Event::Up { sid, dialed, addr } => json!({
            "event": "up", "sid": sid.0, "dialed": dialed, "addr": addr.to_string(),
        }),
        Event::Down { sid, reason } => json!({
            "event": "down", "sid": sid.0, "reason": reason.name(), "message": reason.to_string(),
        }),
        Event::DialFailed { sid, reason } => json!({
            "event": "dial-failed", "sid": sid.0, "reason": reason.name(), "message": reason.to_string(),
        }),
        Event::Rejected { addr, sid, reason } => json!({
            "event": "rejected", "addr": addr.to_string(), "sid": sid.map(|sid| sid.0),
            "reason": reason.name(), "message": reason.to_string(),
        }),
        Event::SlowTurn { took } => json!({ "event": "slow-turn", "ms": took.as_millis() as u64 }),
        Event::Halted => json!({ "event": "halted" }),
        // A newer library may have more to tell.
        other => json!({ "event": "other", "message": format!("{other:?}") }),
    }
}

fn stats_json(stats: &Stats, lines: &State) -> Value {
    json!({
        "event": "stats",
        "sent": outgoing_json(&stats.sent),
        "received": incoming_json(&stats.received),
        "loopback": stats.loopback,
        // What is printed waits here, not in the queues of the library.
        "inbox": lines.frames.json(),
        "events": lines.events.json(),
        "accepted": stats.accepted,
        "knocks": stats.knocks,
        "rejected": stats.rejected,
        "ups": stats.ups,
        "downs": stats.downs,
        "dials": stats.dials,
        "dial_failures": stats.dial_failures,
        "turns": stats.turns,
        "connections": stats.connections,
        "peers": stats.peers.iter().map(peer_json).collect::<Vec<_>>(),
    })
}

fn peer_json(peer: &PeerStats) -> Value {
    json!({
        "sid": peer.sid.0,
        "linked": peer.linked,
        "sent": outgoing_json(&peer.sent),
        "received": incoming_json(&peer.received),
        "ups": peer.ups,
        "dials": peer.dials,
    })
}

fn outgoing_json(sent: &Outgoing) -> Value {
    json!({
        "accepted": sent.accepted, "written": sent.written, "superseded": sent.superseded,
        "discarded": sent.discarded, "waiting": sent.waiting, "resent": sent.resent, "bytes": sent.bytes,
    })
}

fn incoming_json(received: &Incoming) -> Value {
    json!({ "frames": received.frames, "bytes": received.bytes })
}
