//! Takes part in the election of a ZooKeeper ensemble, as one or several of its voters, or only shows it. The rules are in
//! `election`; the connections are the library's.
//!
//! Nothing is replicated: a server that is elected only reports it.

mod election;
mod event_log;
#[path = "../peer/input.rs"]
mod input;
mod leader_listener;
mod leader_port;
mod leader_watch;
#[path = "../peer/logging.rs"]
mod logging;
mod member;
#[path = "../peer/metrics.rs"]
mod metrics;
mod names;
mod notification;
mod picture;
mod quorum;
#[cfg(feature = "tls-ring")]
#[path = "../peer/reload.rs"]
mod reload;
#[path = "../peer/signals.rs"]
mod signals;
mod tenure;
mod timeline;
#[path = "../peer/tls.rs"]
mod tls;

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    io::{self, Write as _},
    net::TcpListener,
    path::PathBuf,
    process::{self, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use clap::{Parser, ValueEnum};
#[cfg(feature = "tls-ring")]
use quorum_cnx::Tls;
use quorum_cnx::{ConfigBuilder, Replace, Sid, Unknown, ZooCfg, ZooCfgReader};
use serde_json::json;

use crate::{
    election::{RESEND_FIRST, RESEND_LAST, ZXID_OF_NO_DATA},
    event_log::EventLog,
    input::next_line,
    member::{Command, End, Member, Remote, Role},
    notification::Format,
    quorum::Quorum,
    timeline::Timeline,
    tls::TlsArgs,
};

/// ZooKeeper's default of `tickTime`.
const TICK_TIME: Duration = Duration::from_secs(3);

/// Exit code of a server that listens at none of its election addresses: the same as ZooKeeper's (ZOOKEEPER-3320).
const EXIT_CANNOT_LISTEN: u8 = 14;

/// `syncLimit` in ticks. ZooKeeper has no default; this is the value of its sample file.
const SYNC_LIMIT: u32 = 5;

/// `initLimit`, likewise.
const INIT_LIMIT: u32 = 10;

/// Default of `--admit`. ZooKeeper has no such bound. An ensemble is extended by a few servers at a time, and has some dozen
/// observers at most.
const JOINERS_MAX: u16 = 64;

/// Takes part in the election of a ZooKeeper ensemble, as one of its servers.
#[derive(Debug, Parser)]
#[command(name = "election", version, after_help = MORE)]
struct Cli {
    /// The configuration of the ensemble; a dynamic configuration file that it names is read, too
    #[arg(long, value_name = "FILE")]
    zoo_cfg: PathBuf,

    /// A flag of ZooKeeper's JVM that changes how the configuration is read: zookeeper.multiAddress.enabled=true
    #[arg(short = 'D', long = "jvm-flag", value_name = "NAME=VALUE")]
    jvm_flags: Vec<String>,

    /// The id of this server in the configuration; several ids, joined by commas, are several servers in one process
    #[arg(
        long,
        value_name = "N",
        required = true,
        value_delimiter = ',',
        allow_negative_numbers = true
    )]
    myid: Vec<i64>,

    /// The last transaction that this server claims to have, decimal or 0x and hexadecimal [default: none, so that it is
    /// elected only if no other server can be; an empty real server has 0]
    #[arg(long, value_name = "X", default_value_t = ZXID_OF_NO_DATA, hide_default_value = true,
        value_parser = number, allow_negative_numbers = true)]
    zxid: i64,

    /// The epoch that this server claims to be in [default: that of the transaction, its high 32 bits]
    #[arg(long, value_name = "E", value_parser = number, allow_negative_numbers = true)]
    epoch: Option<i64>,

    /// Never votes; asks the others for their votes every tick, and shows the answers
    #[arg(long)]
    observe: bool,

    /// Connects to the quorum port of the leader, only to see whether the leader is alive; opens its own quorum port when it
    /// leads. A real leader counts this server among its learners, sends it nothing, and logs an error once, when the
    /// connection ends, as for any follower. Refused with TLS, which this connection does not speak
    #[arg(long)]
    follow_leader_port: bool,

    /// Draws each election (SVG) when it is over, in place of the one before
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,

    /// The format of sent messages, by its bytes: that of ZooKeeper 3.3, 3.4.0, 3.4.6, or 3.5 and later
    #[arg(long, value_enum, default_value = "44")]
    format: FormatArg,

    /// How many servers are answered that are not in the configuration: servers that are about to join, or observers that
    /// only their own configuration names; 0 refuses them
    #[arg(long, value_name = "N", default_value_t = JOINERS_MAX)]
    admit: u16,

    /// Which second connection of a server replaces its link: one that is proven to be that server's, or the newest in any
    /// case, as with ZooKeeper (needed if there is a TCP proxy between servers)
    #[arg(long, value_enum, default_value = "proven")]
    replace: ReplaceArg,

    /// Serves metrics for Prometheus at http://HOST:PORT/metrics, to everyone who reaches this address; for one --myid
    #[arg(long, value_name = "HOST:PORT", value_parser = metrics::address)]
    metrics: Option<String>,

    /// Quits after this time
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = seconds)]
    seconds: Option<Duration>,

    /// Logs what happens to connections to standard error; RUST_LOG chooses in more detail
    #[arg(short, long)]
    verbose: bool,

    // Last, since the options after it would be under its heading.
    #[command(flatten)]
    tls: TlsArgs,
}

/// Each paragraph is one line, which clap wraps to the width of the terminal.
const MORE: &str = "\
Standard output has one JSON object a line, with the fields `event`, `myid` and `at_ms`. The \
events are started, listening, up, down, looking, vote (the own vote, when it changes), sent, \
received, elected, leader-reached, leader-listening (at its quorum port), leader-lost, malformed, \
newer-configuration, reconfigured, tls-reloaded, stats, metrics (where they are served), timeline, \
dropped (lines that were not read in time), error and halted.

Commands on standard input, one a line:
  leader-lost  looks for a new leader, as if the present one had failed
  reconfigure  reads the configuration file again, and follows it if its version is newer
  stats        prints the state and counters
  quit         halts

To watch an election: in the place of a voter, with --observe, this server receives every vote, \
but the ensemble lacks that voter. With an `observer` line of its own it receives the answers to \
what it asks.

A server that is elected does not serve, so that real followers leave it. When too few of them \
stay, it steps down initLimit ticks after its election, as a real leader does, and is elected \
again only if no other server can be. With the default --zxid it is never elected if a real server \
can be.

A server that is not in the configuration gets the leader, the round and the configuration as an \
answer, and its vote is not counted. If its id is smaller, it is dialed at the address that it \
sends, as ZooKeeper does: anyone who reaches the election port can make this server dial an \
address. --admit bounds the number of such servers at one time. When one more connects, it takes \
the place of one that is not linked, or is refused if all are linked.

With reconfigEnabled=true in its file, a server follows the ensemble, as ZooKeeper does: when a \
member sends a newer configuration, the servers, their votes and their addresses are those of that \
one, links to the others stay, and `reconfigured` is printed. Without TLS, anyone who reaches the \
election port can send as a member. The file is not written: after a restart, the server learns \
the configuration from those servers of its file that are still there.

A server listens at its election addresses. After a failure it tries an address again \
electionPortBindRetry times (default 3, 0 is without limit), a second apart, since a name may \
become known late. When it has given up all of them, no server with a larger id can reach it; the \
program ends with all of its servers, so that its supervisor can start it again.

TLS between the servers is configured in the zoo.cfg (sslQuorum) or with the options above. SIGHUP \
then reads the files of the certificates again; if they can be used, all links are renewed one by \
one, otherwise the old ones stay in use. With sslQuorumReloadCertFiles=true in the file, its \
stores are also read when they change, and links stay.

SIGINT (Ctrl-C) and SIGTERM halt as `quit` does.

Exit code: 0 after `halted`, 2 for a wrong command line or configuration, 14 if a server of this \
process can listen at none of its election addresses, 1 after another failure.";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    #[value(name = "28")]
    Bare,
    #[value(name = "36")]
    Epoch,
    #[value(name = "40")]
    V1,
    #[value(name = "44")]
    V2,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ReplaceArg {
    Proven,
    Newest,
}

fn number(text: &str) -> Result<i64, String> {
    let parsed = match text.strip_prefix("0x") {
        // Unsigned, since ZooKeeper prints negative numbers like this.
        Some(digits) => u64::from_str_radix(digits, 16).map(|number| number as i64),
        None => text.parse(),
    };
    parsed.map_err(|error| format!("{error}; write a decimal number, or 0x and a hexadecimal one"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "this is no number")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            let why = one_line(&error.to_string());
            return refuse(&format!("{why}; for more information, try '--help'"));
        }
        // Prints the help or the version.
        Err(error) => error.exit(),
    };
    let filter = if cli.verbose {
        "quorum_cnx=debug"
    } else {
        "off"
    };
    logging::start(filter);
    match plan(&cli) {
        Ok(plan) => run(&cli, plan),
        Err(why) => refuse(&why),
    }
}

/// Ends before anything was started.
fn refuse(why: &str) -> ExitCode {
    print_error(why);
    ExitCode::from(2)
}

fn print_error(why: &str) {
    // If standard error is closed too, only the exit code is left.
    let _ = writeln!(io::stderr(), "election: {why}");
}

/// The first paragraph of an error of clap: the error without the usage.
fn one_line(error: &str) -> String {
    let lines = error.lines().take_while(|line| !line.trim().is_empty());
    let line = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    line.trim_start_matches("error: ").to_owned()
}

/// The checked configuration of all servers of this process.
struct Plan {
    cfg: Arc<ZooCfg>,
    quorum: Quorum,
    members: Vec<(Role, quorum_cnx::Config)>,
    metrics: Option<TcpListener>,
    reader: ZooCfgReader,
}

fn plan(cli: &Cli) -> Result<Plan, String> {
    let path = cli.zoo_cfg.display();
    // Adds the path to an error of the library, which names the file only if it cannot be read.
    let in_file = |why: String| match why
        .trim_start_matches("zoo.cfg")
        .trim_start_matches([':', ' '])
    {
        unread if unread.starts_with("cannot read") => unread.to_owned(),
        why => format!("{path}: {why}"),
    };
    let mut reader = ZooCfgReader::new();
    for flag in &cli.jvm_flags {
        reader = reader.jvm_flag(flag).map_err(|error| error.to_string())?;
    }
    let cfg = reader.read(&cli.zoo_cfg);
    let cfg = cfg.map_err(|error| in_file(error.to_string()))?;
    let quorum = Quorum::of(&cfg).map_err(in_file)?;
    let tick = cfg.tick_time.unwrap_or(TICK_TIME);
    let limit = tick.saturating_mul(cfg.sync_limit.unwrap_or(SYNC_LIMIT));
    let of_zxid = cli.zxid >> 32;
    let epoch = cli.epoch.unwrap_or(of_zxid);
    if matches!(cli.format, FormatArg::Bare) && epoch != of_zxid {
        return Err(format!(
            "--format 28 holds no epoch but that of --zxid, its high 32 bits, which is {of_zxid}: leave --epoch away"
        ));
    }
    let mut members = Vec::new();
    for own in BTreeSet::from_iter(&cli.myid) {
        let role = Role {
            own: Sid(*own),
            zxid: cli.zxid,
            epoch,
            observes: cli.observe,
            follows_port: cli.follow_leader_port,
            format: match cli.format {
                FormatArg::Bare => Format::Bare,
                FormatArg::Epoch => Format::Epoch,
                FormatArg::V1 => Format::V1,
                FormatArg::V2 => Format::V2,
            },
            resend: (
                cfg.min_notification_interval.unwrap_or(RESEND_FIRST),
                cfg.max_notification_interval.unwrap_or(RESEND_LAST),
            ),
            limit,
            init_limit: tick.saturating_mul(cfg.init_limit.unwrap_or(INIT_LIMIT)),
            tick,
            tls: cli.tls.clone(),
        };
        let is_member = |sid| cfg.servers.iter().any(|server| server.sid == sid);
        if !is_member(role.own) {
            let sids: Vec<String> = cfg
                .servers
                .iter()
                .map(|server| server.sid.to_string())
                .collect();
            let sids = sids.join(", ");
            return Err(in_file(format!(
                "--myid {own} is not among its servers, which are {sids}"
            )));
        }
        // A server that is added later gets its names then.
        let is_known = |sid| !cfg.reconfig_enabled || cli.admit > 0 || is_member(sid);
        let builder = connections(cli, &cfg, role.own);
        let builder = cli.tls.configure(builder, is_known)?;
        let config = builder.build();
        members.push((role, config.map_err(|error| in_file(error.to_string()))?));
    }
    #[cfg(feature = "tls-ring")]
    if cli.follow_leader_port && load_tls(&cli.tls, &cfg)?.is_some() {
        return Err(
            "the servers use TLS (sslQuorum, portUnification or --tls-cert), which --follow-leader-port does not speak: leave this option \
             away, and the death of a leader is found at its election port"
                .to_owned(),
        );
    }
    if cli.metrics.is_some() && members.len() > 1 {
        let count = members.len();
        return Err(format!(
            "--metrics shows one server, and --myid names {count}: start a process for each"
        ));
    }
    let metrics = cli.metrics.as_deref().map(metrics::listen).transpose()?;
    if let Some(file) = &cli.timeline {
        // Checked now rather than after the election.
        let opened = OpenOptions::new().create(true).append(true).open(file);
        opened.map_err(|error| format!("cannot write --timeline {}: {error}", file.display()))?;
    }
    Ok(Plan {
        cfg: Arc::new(cfg),
        quorum,
        members,
        metrics,
        reader,
    })
}

/// The configuration of a member's connections.
fn connections(cli: &Cli, cfg: &ZooCfg, own: Sid) -> ConfigBuilder {
    let builder = cfg.builder(own).replace(match cli.replace {
        ReplaceArg::Proven => Replace::Proven,
        ReplaceArg::Newest => Replace::Newest,
    });
    match usize::from(cli.admit) {
        0 => builder,
        max => builder.unknown(Unknown::admit(max)),
    }
}

/// Starts a thread for each member, for the commands, and for `--seconds`. This thread prints.
fn run(cli: &Cli, plan: Plan) -> ExitCode {
    let own: Vec<Sid> = plan.members.iter().map(|(role, _)| role.own).collect();
    let timeline = Timeline::new(own.iter().copied(), plan.quorum.voters());
    let timeline = cli.timeline.clone().map(|path| (path, timeline));
    let (event_log, lines) = EventLog::new(timeline);
    let event_log = Arc::new(event_log);
    let (mut members, mut remotes) = (Vec::new(), Vec::new());
    let mut metrics = plan.metrics;
    for (role, config) in plan.members {
        let own = role.own;
        report_start(&event_log, &role, &plan.cfg, &plan.quorum);
        let (cfg, quorum) = (Arc::clone(&plan.cfg), plan.quorum.clone());
        match Member::new(role, config, cfg, quorum, Arc::clone(&event_log)) {
            Ok((member, remote)) => {
                if let Some(listener) = metrics.take() {
                    let handle = member.handle();
                    match metrics::serve(listener, move || handle.stats()) {
                        Ok(addr) => {
                            let line = json!({ "addr": addr.to_string() });
                            event_log.event("metrics", own, line);
                        }
                        Err(error) => {
                            print_error(&format!("the metrics cannot be served: {error}"));
                            return ExitCode::FAILURE;
                        }
                    }
                }
                members.push((own, member));
                remotes.push(remote);
            }
            Err(error) => {
                print_error(&format!("server {own} cannot start: {error}"));
                return ExitCode::FAILURE;
            }
        }
    }
    #[cfg(feature = "tls-ring")]
    if let Err(error) = reload_certificates(cli, &plan.cfg, &members, &event_log) {
        print_error(&format!("the certificates cannot be watched: {error}"));
        return ExitCode::FAILURE;
    }
    let remotes = Arc::new(remotes);
    if let Err(error) = read_commands(&remotes, cli, plan.reader) {
        print_error(&format!("cannot start a thread: {error}"));
        return ExitCode::FAILURE;
    }
    let signalled = Arc::clone(&remotes);
    let watched = signals::on_first(move || {
        order(&signalled, &Command::Quit);
        thread::sleep(signals::FLUSH_TIMEOUT);
        print_error("nobody reads standard output: the lines that wait are lost");
        process::exit(1);
    });
    if let Err(error) = watched {
        print_error(&format!("signals end this process at once: {error}"));
    }
    let running = AtomicUsize::new(members.len());
    thread::scope(|scope| {
        let (event_log, mut code) = (&*event_log, ExitCode::SUCCESS);
        let new = thread::Builder::new;
        let mut thread_error = None;
        let mut threads = Vec::new();
        let (running, first) = (&running, own[0]);
        for (own, member) in members {
            let others = Arc::clone(&remotes);
            // Dropped when the thread ends, or now if it cannot be started.
            let running = Running {
                running,
                event_log,
                first,
            };
            let run = move || {
                let _running = running;
                let end = member.run();
                if matches!(end, Ok(End::NotListening)) {
                    // The supervisor restarts the whole process.
                    order(&others, &Command::Quit);
                }
                end
            };
            match new().spawn_scoped(scope, run) {
                Ok(thread) => threads.push((own, thread)),
                Err(error) => thread_error = Some(error),
            }
        }
        if let Some(error) = thread_error {
            print_error(&format!("cannot start a thread: {error}"));
            code = ExitCode::FAILURE;
            order(&remotes, &Command::Quit);
        }
        // Returns when the last member has ended, or when standard output is closed.
        event_log.print(&lines);
        for (own, thread) in threads {
            match thread.join() {
                Ok(Ok(End::Halted)) => {}
                Ok(Ok(End::NotListening)) => {
                    print_error(&format!(
                        "server {own} cannot listen at any of its election addresses: see the errors above, start it again, \
                         or let it try without limit with electionPortBindRetry=0"
                    ));
                    code = ExitCode::from(EXIT_CANNOT_LISTEN);
                }
                Ok(Err(error)) => {
                    print_error(&format!("server {own} failed: {error}"));
                    code = ExitCode::FAILURE;
                }
                // The message of the panic is on standard error.
                Err(_) => code = ExitCode::FAILURE,
            }
        }
        code
    })
}

/// The certificates that the options name, or else those that the file names. `None` without TLS.
#[cfg(feature = "tls-ring")]
fn load_tls(args: &TlsArgs, cfg: &ZooCfg) -> Result<Option<Tls>, String> {
    match args.load()? {
        None => cfg.tls().map_err(|error| error.to_string()),
        tls => Ok(tls),
    }
}

/// With TLS, SIGHUP reads the certificates again, and so does a change of the stores that the file names if it says so
/// (`sslQuorumReloadCertFiles`). Without TLS, SIGHUP ends the process as usual.
#[cfg(feature = "tls-ring")]
fn reload_certificates(
    cli: &Cli,
    cfg: &Arc<ZooCfg>,
    members: &[(Sid, Member)],
    event_log: &Arc<EventLog>,
) -> io::Result<()> {
    let (args, event_log) = (cli.tls.clone(), Arc::clone(event_log));
    let of_file = cfg.reload_cert_files && args.tls_cert.is_none();
    let at_hangup = Arc::clone(cfg);
    let load = move || load_tls(&args, &at_hangup);
    if !matches!(load(), Ok(Some(_))) {
        return Ok(());
    }
    let handles: Vec<_> = members.iter().map(|(_, member)| member.handle()).collect();
    for handle in handles.iter().filter(|_| of_file) {
        let cfg = Arc::clone(cfg);
        // As in ZooKeeper, links that exist stay.
        handle.watch_tls_files(cfg.tls_files(), move || {
            Ok(cfg.tls()?.expect("it has TLS, as seen above"))
        })?;
    }
    let first = members[0].0;
    reload::on_hangup(handles, load, move |why| event_log.error(first, &why))
}

/// Counts a member as running until it is dropped. The last one closes the event log.
struct Running<'a> {
    running: &'a AtomicUsize,
    event_log: &'a EventLog,
    /// The server that reports the end of the timeline.
    first: Sid,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.event_log.draw_rest(self.first);
            self.event_log.close();
        }
    }
}

/// Starts the threads that give orders. They are never joined: one may block in a read that does not return, the other sleeps.
fn read_commands(remotes: &Arc<Vec<Remote>>, cli: &Cli, reader: ZooCfgReader) -> io::Result<()> {
    let (all, path) = (Arc::clone(remotes), cli.zoo_cfg.clone());
    let read = move || {
        let cfg = reader.read(&path);
        cfg.map_err(|error| format!("{}: {error}", path.display()))
    };
    thread::Builder::new().spawn(move || read_input(&all, read))?;
    if let Some(time) = cli.seconds {
        let remotes = Arc::clone(remotes);
        thread::Builder::new().spawn(move || {
            thread::sleep(time);
            order(&remotes, &Command::Quit);
        })?;
    }
    Ok(())
}

fn report_start(event_log: &EventLog, role: &Role, cfg: &ZooCfg, quorum: &Quorum) {
    let mut line = role.describe(cfg, quorum);
    line["zxid"] = format!("{:#x}", role.zxid).into();
    line["epoch"] = role.epoch.into();
    event_log.event("started", role.own, line);
}

fn order(remotes: &[Remote], command: &Command) {
    for remote in remotes {
        remote.order(command.clone());
    }
}

/// Executes the commands on standard input. The program goes on after the end of the input.
fn read_input(remotes: &[Remote], read: impl Fn() -> Result<ZooCfg, String>) {
    let mut input = io::stdin().lock();
    loop {
        let line = match next_line(&mut input) {
            Ok(None) => return,
            Ok(Some(Ok(line))) => line,
            Ok(Some(Err(why))) => {
                print_error(&why);
                continue;
            }
            Err(error) => return print_error(&format!("cannot read commands: {error}")),
        };
        match line.trim() {
            "leader-lost" => order(remotes, &Command::LeaderLost),
            "reconfigure" => match read() {
                Ok(cfg) => order(remotes, &Command::Reconfigure(Arc::new(cfg))),
                Err(why) => print_error(&why),
            },
            "stats" => order(remotes, &Command::Stats),
            "quit" => order(remotes, &Command::Quit),
            "" => {}
            other => print_error(&format!(
                "there is no command `{other}`; there are leader-lost, reconfigure, stats and quit"
            )),
        }
    }
}
