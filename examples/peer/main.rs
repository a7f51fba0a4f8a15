//! One peer of a mesh on the command line: commands on standard input, a JSON object a line on standard output.
//!
//! The loop never waits for who reads the output: what is to be printed waits in a bounded queue of its own.

mod commands;
mod json;
mod lines;
mod signals;

use std::{
    io::{self, Write as _},
    process::{self, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::{CommandFactory as _, Parser, ValueEnum, error::ErrorKind};
use quorum_cnx::{
    Config, ConfigError, Dial, Event, EventLoop, Frame, Handle, Handler, InitialMessageVersion,
    Listening, Replace, Sid, Unknown, ZooCfgReader, limits,
};

use crate::{
    commands::{COMMANDS, Commands},
    lines::{Line, Lines, Popped},
};

/// The exit code of a peer that cannot be reached: that of ZooKeeper (ZOOKEEPER-3320).
const DEAF: u8 = 14;

/// One peer of a quorum: looks into a live ZooKeeper election port, or tests a network.
#[derive(Debug, Parser)]
#[command(name = "peer", version, after_help = more())]
struct Cli {
    /// The id of this server
    #[arg(long, value_name = "SID", allow_negative_numbers = true)]
    sid: i64,

    /// A server of the quorum, this one included, by its election addresses; once for each
    #[arg(long = "server", allow_hyphen_values = true, value_name = "SID=HOST:PORT[|HOST:PORT]", value_parser = server)]
    servers: Vec<(i64, String)>,

    /// Takes servers and times from a ZooKeeper configuration
    #[arg(long, value_name = "FILE")]
    zoo_cfg: Option<String>,

    /// A flag of ZooKeeper's JVM that --zoo-cfg is to be read with: zookeeper.multiAddress.enabled=true
    #[arg(
        short = 'D',
        long = "jvm-flag",
        value_name = "NAME=VALUE",
        requires = "zoo_cfg"
    )]
    jvm_flags: Vec<String>,

    /// How this server names itself: the sid alone, or with one or all of its addresses [default: v1]
    #[arg(long, value_enum, alias = "challenge")]
    initial_message: Option<InitialMessageArg>,

    /// Sends each frame back to where it came from
    #[arg(long)]
    echo: bool,

    /// When peers are dialed
    #[arg(long, value_enum, default_value = "eager")]
    dial: DialArg,

    /// Admits up to N servers that are not configured
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    admit: Option<usize>,

    /// What a second connection needs to replace a link: proof that it is the peer's, or nothing
    #[arg(long, value_enum, default_value = "proven")]
    replace: ReplaceArg,

    /// Received frames that wait to be printed before the oldest goes
    #[arg(long, value_name = "N", default_value_t = limits::INBOX_FRAMES as u32, allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    capacity: u32,

    /// When a peer that acknowledges nothing is dead
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    peer_dead_after_ms: Option<u64>,

    /// TCP's congestion control in place of the system's default: reno, or another that the system allows
    #[arg(long, value_name = "NAME")]
    congestion_control: Option<String>,

    /// How long a connection may take to name itself
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    handshake_timeout_ms: Option<u64>,

    /// Halts after this time
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = seconds)]
    seconds: Option<Duration>,

    /// Logs what happens to standard error; RUST_LOG chooses in more detail
    #[arg(short, long)]
    verbose: bool,
}

const MORE: &str = "\
The end of standard input is no end: the peer goes on until `quit`, the end of --seconds, or a signal.
To send one frame and be done:

  printf 'send 1 hello\\nflush\\nquit\\n' | peer --sid 2 --server ...

Standard output has one JSON object a line, with the field `event`: listening, listen-failed,
listener-lost, accept-failed, up, down, flapping, dial-failed, rejected, frame, sent, stats,
slow-turn, help, error, halted.

SIGINT (Ctrl-C) and SIGTERM halt as `quit` does; what then nobody reads within 2 s is lost.

Exit code: 0 after `halted`, 2 for a command line or a configuration that cannot work, 14 if it has given up
listening at all of its addresses, 1 if the loop died or its end could not be printed.";

fn more() -> String {
    let commands = COMMANDS.map(|(command, does)| format!("  {command:<13}  {does}\n"));
    format!(
        "Commands on standard input, one a line:\n{}\n{MORE}",
        commands.concat()
    )
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum InitialMessageArg {
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
        Err(error) if error.use_stderr() => return refuse(&error),
        // The help, or the version.
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
        // A mistake in the file, of which the help says nothing.
        Err(error) if error.to_string().starts_with("zoo.cfg") => {
            complain(&error.to_string());
            ExitCode::from(2)
        }
        Err(error) => {
            let why = with_option(&cli, &error.to_string());
            refuse(&Cli::command().error(ErrorKind::ValueValidation, why))
        }
    }
}

/// Nothing was started. Says why, how it is called, and that there is `--help`.
fn refuse(error: &clap::Error) -> ExitCode {
    let text = error.to_string();
    complain(text.trim_start_matches("error: ").trim_end());
    ExitCode::from(2)
}

/// Puts the option in front of an error that knows only the setting's name in the library.
fn with_option(cli: &Cli, error: &str) -> String {
    let given = [
        ("unknown: ", "--admit", cli.admit.is_some()),
        (
            "peer_dead_after: ",
            "--peer-dead-after-ms",
            cli.peer_dead_after_ms.is_some(),
        ),
        (
            "handshake_timeout: ",
            "--handshake-timeout-ms",
            cli.handshake_timeout_ms.is_some(),
        ),
        (
            "congestion_control: ",
            "--congestion-control",
            cli.congestion_control.is_some(),
        ),
    ];
    let mut given = given.iter().filter(|(_, _, is_given)| *is_given);
    match given.find(|(setting, ..)| error.starts_with(setting)) {
        Some((_, option, _)) => format!("{option}: {error}"),
        None => error.to_owned(),
    }
}

fn config(cli: &Cli) -> Result<Config, ConfigError> {
    let own = Sid(cli.sid);
    let mut builder = match &cli.zoo_cfg {
        Some(path) => {
            let mut reader = ZooCfgReader::new();
            for flag in &cli.jvm_flags {
                reader = reader.jvm_flag(flag)?;
            }
            reader.read(path)?.builder(own)
        }
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
        });
    if let Some(initial_message) = cli.initial_message {
        builder = builder.initial_message(match initial_message {
            InitialMessageArg::Bare => InitialMessageVersion::Bare,
            InitialMessageArg::V1 => InitialMessageVersion::V1,
            InitialMessageArg::V2 => InitialMessageVersion::V2,
        });
    }
    if let Some(max) = cli.admit {
        builder = builder.unknown(Unknown::Admit { max });
    }
    if let Some(millis) = cli.peer_dead_after_ms {
        builder = builder.peer_dead_after(Duration::from_millis(millis));
    }
    if let Some(name) = &cli.congestion_control {
        builder = builder.congestion_control(name);
    }
    if let Some(millis) = cli.handshake_timeout_ms {
        builder = builder.handshake_timeout(Duration::from_millis(millis));
    }
    builder.build()
}

/// The loop and the commands have threads of their own; this one prints.
fn run(config: Config, cli: &Cli) -> ExitCode {
    let lines = Arc::new(Lines::new(cli.capacity as usize));
    let is_deaf = Arc::new(AtomicBool::new(false));
    let reporter = Reporter {
        lines: Arc::clone(&lines),
        is_deaf: Arc::clone(&is_deaf),
        burst: Vec::new(),
        echo: cli.echo,
    };
    let mut event_loop = match EventLoop::new(config, reporter) {
        Ok(event_loop) => event_loop,
        Err(error) => return fail(&format!("the loop cannot start: {error}")),
    };
    let handle = event_loop.handle().clone();
    let halt = handle.clone();
    let watched = signals::on_first(move || {
        halt.request_halt();
        thread::sleep(signals::LAST_WORDS);
        complain("nobody reads standard output: what waits to be printed is lost");
        process::exit(1);
    });
    if let Err(error) = watched {
        complain(&format!("signals end this process at once: {error}"));
    }
    let turner = thread::spawn(move || event_loop.run());
    let commands = Commands {
        lines: Arc::clone(&lines),
        handle: handle.clone(),
    };
    // Nobody waits for it: it may sit in a read that never ends.
    thread::spawn(move || commands.run());
    // A time that no clock reaches is no end.
    let end = cli
        .seconds
        .and_then(|seconds| Instant::now().checked_add(seconds));
    let printed = print(&lines, &handle, end);
    // Who closed our output wants no more of us, and no complaint either.
    handle.request_halt();
    match turner.join() {
        Ok(Ok(())) => match printed {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                fail(&format!("cannot print: {error}"))
            }
            _ if is_deaf.load(Ordering::Relaxed) => {
                complain(
                    "cannot listen at any of its addresses: see the events above, start it again, \
                     or let it try for ever with electionPortBindRetry=0 in its zoo.cfg",
                );
                ExitCode::from(DEAF)
            }
            _ => ExitCode::SUCCESS,
        },
        Ok(Err(error)) => fail(&format!("the loop died: {error}")),
        // Its message is on standard error.
        Err(_) => ExitCode::FAILURE,
    }
}

/// It was started, and cannot go on.
fn fail(why: &str) -> ExitCode {
    complain(why);
    ExitCode::FAILURE
}

fn complain(why: &str) {
    // When nobody reads this either, the exit code has to do.
    let _ = writeln!(io::stderr(), "peer: {why}");
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

/// The loop's side: everything that comes becomes a line.
struct Reporter {
    lines: Arc<Lines>,
    /// True exactly when it has given up listening everywhere.
    is_deaf: Arc<AtomicBool>,
    burst: Vec<Line>,
    echo: bool,
}

impl Handler for Reporter {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        let bytes = frame.into_bytes();
        self.burst.push(Line::Frame(from, bytes.clone()));
        // A frame to ourselves would come round for ever.
        if self.echo && from != handle.sid() {
            if let Err(error) = handle.to_send(from, bytes) {
                self.burst
                    .push(Line::Event(json::failure(&error.to_string())));
            }
        }
    }

    fn on_read_complete(&mut self, _: &Handle) {
        self.lines.push_all(self.burst.drain(..));
    }

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        self.lines.push_all([Line::Event(json::event(event))]);
        let is_lost = |one: &Listening| matches!(one, Listening::Lost(_));
        if matches!(event, Event::ListenerLost { .. }) && handle.listening().iter().all(is_lost) {
            self.is_deaf.store(true, Ordering::Relaxed);
            handle.request_halt();
        }
    }
}

impl Drop for Reporter {
    /// The loop has ended, if only by a panic.
    fn drop(&mut self) {
        self.lines.close();
    }
}
