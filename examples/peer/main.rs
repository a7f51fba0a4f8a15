//! Runs one peer of a mesh on the command line: commands on standard input, one JSON object a line on standard output.
//!
//! The loop never waits for the reader of the output: lines wait in a bounded queue.

mod commands;
mod input;
mod json;
mod lines;
mod logging;
mod metrics;
#[cfg(feature = "tls-ring")]
mod reload;
mod signals;
mod tls;

use std::{
    io::{self, Write as _},
    net::TcpListener,
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
    Config, Dial, Event, EventLoop, Frame, Handle, Handler, INBOX_FRAMES, InitialMessageVersion,
    Listening, Replace, Sid, Unknown, ZooCfg, ZooCfgReader,
};

use crate::{
    commands::{COMMANDS, Commands},
    lines::{Line, Lines, Popped},
    tls::TlsArgs,
};

/// Exit code of a peer that listens at none of its addresses: the same as ZooKeeper's (ZOOKEEPER-3320).
const EXIT_CANNOT_LISTEN: u8 = 14;

/// One peer of a quorum: looks into a live ZooKeeper election port, or tests a network.
#[derive(Debug, Parser)]
#[command(name = "peer", version, after_help = more())]
struct Cli {
    /// The id of this server
    #[arg(long, value_name = "SID", allow_negative_numbers = true)]
    sid: i64,

    /// A server of the quorum, with its election addresses; repeated for each server, this one included
    #[arg(long = "server", allow_hyphen_values = true, value_name = "SID=HOST:PORT[|HOST:PORT]", value_parser = server)]
    servers: Vec<(i64, String)>,

    /// Reads servers and times from a ZooKeeper configuration
    #[arg(long, value_name = "FILE")]
    zoo_cfg: Option<String>,

    /// A flag of ZooKeeper's JVM that changes how --zoo-cfg is read: zookeeper.multiAddress.enabled=true
    #[arg(
        short = 'D',
        long = "jvm-flag",
        value_name = "NAME=VALUE",
        requires = "zoo_cfg"
    )]
    jvm_flags: Vec<String>,

    /// Contents of the initial message: the sid alone, or with one or all addresses of this server [default: v1]
    #[arg(long, value_enum)]
    initial_message: Option<InitialMessageArg>,

    /// Sends native initial messages, which the other end answers, for servers of this cluster: a UUID, or a text of 1 to 16
    /// bytes, the same on all servers. Not understood by ZooKeeper
    #[arg(long, value_name = "CLUSTER", conflicts_with = "initial_message", value_parser = cluster)]
    native: Option<[u8; 16]>,

    /// Sends each received frame back to its sender
    #[arg(long)]
    echo: bool,

    /// When peers are dialed
    #[arg(long, value_enum, default_value = "eager")]
    dial: DialArg,

    /// Admits up to N servers that are not configured
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    admit: Option<usize>,

    /// Which second connection of a peer replaces its link: one that is proven to be the peer's, or the newest in any case
    #[arg(long, value_enum, default_value = "proven")]
    replace: ReplaceArg,

    /// Received frames that may wait to be printed; when one more arrives the oldest is dropped
    #[arg(long, value_name = "N", default_value_t = INBOX_FRAMES as u32, allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    capacity: u32,

    /// The time after which a peer that acknowledges nothing is taken for dead
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    peer_dead_after_ms: Option<u64>,

    /// TCP congestion control: reno, or another one that the system allows [default: the system's]
    #[arg(long, value_name = "NAME")]
    congestion_control: Option<String>,

    /// The time after which a connection without a complete initial message is closed
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    handshake_timeout_ms: Option<u64>,

    /// Serves metrics for Prometheus at http://HOST:PORT/metrics, to everyone who reaches this address
    #[arg(long, value_name = "HOST:PORT", value_parser = metrics::address)]
    metrics: Option<String>,

    /// Halts after this time
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = seconds)]
    seconds: Option<Duration>,

    /// Logs what happens to standard error; RUST_LOG chooses in more detail
    #[arg(short, long)]
    verbose: bool,

    // Last, since the options after it would be under its heading.
    #[command(flatten)]
    tls: TlsArgs,
}

/// Each paragraph is one line, which clap wraps to the width of the terminal.
const MORE: &str = "\
The peer does not end with standard input. It runs until `quit`, the end of --seconds, or a \
signal.

To send one frame and end:

  printf 'send 1 hello\\nflush\\nquit\\n' | peer --sid 2 --server ...

Standard output has one JSON object a line, with the field `event`: listening, listen-failed, \
listener-lost, accept-failed, up, down, flapping, dial-failed, rejected, frame, sent, stats, \
dropped (messages for which the inbox had no room), members (what `server` or `remove` has \
changed), joined, moved, left, slow-turn, metrics (where they are served), tls-reloaded, \
tls-reload-failed, certificate-expires, help, error, halted.

With TLS, SIGHUP reads the files of the certificates again. If they can be used, all links are \
renewed one by one, and those to servers that would be refused now end at once; otherwise the old \
ones stay in use.

SIGINT (Ctrl-C) and SIGTERM halt as `quit` does. Lines that are not read within 2 s after it are \
lost.

Exit code: 0 after `halted`, 2 for a wrong command line or configuration, 14 if it has given up \
listening at all of its addresses, 1 if the loop failed or standard output could not be written.";

fn more() -> String {
    let commands =
        COMMANDS.map(|(command, description)| format!("  {command:<15}  {description}\n"));
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

/// The 16 bytes of a UUID, with hyphens or without, or those of a text, with zeros behind it.
fn cluster(text: &str) -> Result<[u8; 16], String> {
    let digits = text.replace('-', "");
    if let (32, Ok(uuid)) = (digits.len(), u128::from_str_radix(&digits, 16)) {
        return Ok(uuid.to_be_bytes());
    }
    let mut id = [0; 16];
    match id.get_mut(..text.len()) {
        Some(begin) if !text.is_empty() => begin.copy_from_slice(text.as_bytes()),
        _ => return Err("this is neither a UUID nor a text of 1 to 16 bytes".into()),
    }
    Ok(id)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "this is no number")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => return refuse(&error),
        // Prints the help or the version.
        Err(error) => error.exit(),
    };
    let filter = if cli.verbose {
        "quorum_cnx=debug"
    } else {
        "off"
    };
    logging::start(filter);
    match config(&cli) {
        Ok(config) => match cli.metrics.as_deref().map(metrics::listen).transpose() {
            Ok(listener) => run(config, cli, listener),
            Err(why) => refuse(&Cli::command().error(ErrorKind::Io, why)),
        },
        // For a mistake in the file, the usage does not help.
        Err(error) if error.starts_with("zoo.cfg") => {
            print_error(&error);
            ExitCode::from(2)
        }
        Err(error) => {
            let why = with_option(&cli, &error);
            refuse(&Cli::command().error(ErrorKind::ValueValidation, why))
        }
    }
}

/// Ends before anything was started: prints the error and the usage.
fn refuse(error: &clap::Error) -> ExitCode {
    let text = error.to_string();
    print_error(text.trim_start_matches("error: ").trim_end());
    ExitCode::from(2)
}

/// Adds the name of the option to an error that names only the setting of the library.
fn with_option(cli: &Cli, error: &str) -> String {
    if error.ends_with("it is not among the servers") {
        let sid = cli.sid;
        return format!(
            "{error}: add --server {sid}=HOST:PORT, or --zoo-cfg with a file that has it"
        );
    }
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
        ("tls: ", "--tls-cert", cli.tls.tls_cert.is_some()),
        ("peer_names: ", "--tls-name", true),
    ];
    let mut given = given.iter().filter(|(_, _, is_given)| *is_given);
    match given.find(|(setting, ..)| error.starts_with(setting)) {
        Some((_, option, _)) => format!("{option}: {error}"),
        None => error.to_owned(),
    }
}

fn zoo_cfg(cli: &Cli) -> Result<Option<ZooCfg>, String> {
    let Some(path) = &cli.zoo_cfg else {
        return Ok(None);
    };
    let mut reader = ZooCfgReader::new();
    for flag in &cli.jvm_flags {
        reader = reader.jvm_flag(flag).map_err(|error| error.to_string())?;
    }
    let cfg = reader.read(path).map_err(|error| error.to_string())?;
    Ok(Some(cfg))
}

fn config(cli: &Cli) -> Result<Config, String> {
    let own = Sid(cli.sid);
    let mut builder = match zoo_cfg(cli)? {
        Some(cfg) => cfg.builder(own),
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
    if let Some(id) = cli.native {
        builder = builder
            .initial_message(InitialMessageVersion::Native)
            .cluster_id(id);
    }
    if let Some(max) = cli.admit {
        builder = builder.unknown(Unknown::admit(max));
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
    builder = cli.tls.configure(builder, |_| true)?;
    builder.build().map_err(|error| error.to_string())
}

/// Reads the certificates again. `None` without TLS.
#[cfg(feature = "tls-ring")]
fn load_tls(cli: &Cli) -> Result<Option<quorum_cnx::Tls>, String> {
    match (cli.tls.load()?, zoo_cfg(cli)?) {
        (None, Some(cfg)) => cfg.tls().map_err(|error| error.to_string()),
        (tls, _) => Ok(tls),
    }
}

/// Starts a thread for the loop and one for the commands. This thread prints.
fn run(config: Config, cli: Cli, metrics: Option<TcpListener>) -> ExitCode {
    let lines = Arc::new(Lines::new(cli.capacity as usize));
    let is_not_listening = Arc::new(AtomicBool::new(false));
    let reporter = Reporter {
        lines: Arc::clone(&lines),
        is_not_listening: Arc::clone(&is_not_listening),
        pending: Vec::new(),
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
        thread::sleep(signals::FLUSH_TIMEOUT);
        print_error("nobody reads standard output: the lines that wait are lost");
        process::exit(1);
    });
    if let Err(error) = watched {
        print_error(&format!("signals end this process at once: {error}"));
    }
    if let Some(listener) = metrics {
        let (counted, handle) = (Arc::clone(&lines), handle.clone());
        match metrics::serve(listener, move || counted.count(handle.stats())) {
            Ok(addr) => lines.push_all([Line::Event(json::metrics(addr))]),
            Err(error) => return fail(&format!("the metrics cannot be served: {error}")),
        }
    }
    // A time beyond the range of the clock means no end.
    let end = cli
        .seconds
        .and_then(|seconds| Instant::now().checked_add(seconds));
    #[cfg(feature = "tls-ring")]
    if let Err(error) = reload_on_hangup(cli, &lines, &handle) {
        return fail(&format!("SIGHUP cannot be watched: {error}"));
    }
    let loop_thread = thread::spawn(move || event_loop.run());
    let commands = Commands {
        lines: Arc::clone(&lines),
        handle: handle.clone(),
    };
    // Never joined: it may block in a read that does not return.
    thread::spawn(move || commands.run());
    let printed = print(&lines, &handle, end);
    // A reader that closes standard output ends the program, and that is no error.
    handle.request_halt();
    match loop_thread.join() {
        Ok(Ok(())) => match printed {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                fail(&format!("cannot print: {error}"))
            }
            _ if is_not_listening.load(Ordering::Relaxed) => {
                print_error(
                    "cannot listen at any of its addresses: see the events above, start it again, \
                     or let it try without limit with electionPortBindRetry=0 in its zoo.cfg",
                );
                ExitCode::from(EXIT_CANNOT_LISTEN)
            }
            _ => ExitCode::SUCCESS,
        },
        Ok(Err(error)) => fail(&format!("the loop failed: {error}")),
        // The message of the panic is on standard error.
        Err(_) => ExitCode::FAILURE,
    }
}

/// With TLS, SIGHUP reads the certificates again. Without, it ends the process as usual.
#[cfg(feature = "tls-ring")]
fn reload_on_hangup(cli: Cli, lines: &Arc<Lines>, handle: &Handle) -> io::Result<()> {
    if !matches!(load_tls(&cli), Ok(Some(_))) {
        return Ok(());
    }
    let lines = Arc::clone(lines);
    let report = move |why: String| lines.push_all([Line::Event(json::failure(&why))]);
    reload::on_hangup(vec![handle.clone()], move || load_tls(&cli), report)
}

/// Ends after a failure at run time.
fn fail(why: &str) -> ExitCode {
    print_error(why);
    ExitCode::FAILURE
}

fn print_error(why: &str) {
    // If standard error is closed too, only the exit code is left.
    let _ = writeln!(io::stderr(), "peer: {why}");
}

fn print(lines: &Lines, handle: &Handle, mut end: Option<Instant>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    loop {
        match lines.pop(end) {
            Popped::Line(line) => {
                // One write for each line, so that a reader seldom sees a part of one.
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

/// The handler of the loop: every frame and every event becomes a line.
struct Reporter {
    lines: Arc<Lines>,
    /// True exactly when the loop has given up listening at all addresses.
    is_not_listening: Arc<AtomicBool>,
    /// Lines of frames that were read in one go.
    pending: Vec<Line>,
    echo: bool,
}

impl Handler for Reporter {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        let bytes = frame.into_bytes();
        self.pending.push(Line::Frame(from, bytes.clone()));
        // A frame to this server itself would be echoed without end.
        if self.echo && from != handle.sid() {
            if let Err(error) = handle.to_send(from, bytes) {
                self.pending
                    .push(Line::Event(json::failure(&error.to_string())));
            }
        }
    }

    fn on_read_complete(&mut self, _: &Handle) {
        self.lines.push_all(self.pending.drain(..));
    }

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        self.lines.push_all([Line::Event(json::event(event))]);
        let is_lost = |one: &Listening| matches!(one, Listening::Lost(_));
        if matches!(event, Event::ListenerLost { .. }) && handle.listening().iter().all(is_lost) {
            self.is_not_listening.store(true, Ordering::Relaxed);
            handle.request_halt();
        }
    }
}

impl Drop for Reporter {
    /// Runs when the loop has ended, also by a panic.
    fn drop(&mut self) {
        self.lines.close();
    }
}
