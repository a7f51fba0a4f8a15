//! A voter in an election of ZooKeeper servers, or several, or somebody who only watches: the rules are in `election`, the
//! connections are the library's.
//!
//! Nothing here replicates anything: who is elected only says so.

mod election;
mod journal;
mod leader_listener;
mod leader_port;
mod leader_watch;
mod member;
mod names;
mod notification;
mod picture;
mod quorum;
#[path = "../peer/signals.rs"]
mod signals;
mod tenure;
mod timeline;

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    io::{self, BufRead as _, Write as _},
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
use quorum_cnx::{ConfigBuilder, Replace, Sid, Unknown, ZooCfg, ZooCfgReader};
use serde_json::json;

use crate::{
    election::{RESEND_FIRST, RESEND_LAST, ZXID_OF_NO_DATA},
    journal::Journal,
    member::{Command, End, Member, Remote, Role},
    notification::Format,
    quorum::Quorum,
    timeline::Timeline,
};

/// What ZooKeeper takes when its configuration does not say.
const TICK_TIME: Duration = Duration::from_secs(3);

/// The exit code of a server that cannot be reached: that of ZooKeeper (ZOOKEEPER-3320).
const DEAF: u8 = 14;

/// In ticks; ZooKeeper has no default, and its sample file says this.
const SYNC_LIMIT: u32 = 5;

/// The same.
const INIT_LIMIT: u32 = 10;

/// Servers that are answered though they are not in the configuration, unless told otherwise. ZooKeeper has no bound, and
/// dials whoever says where it is; an ensemble is extended by a few at a time, and has some dozen observers at most.
const JOINERS_MAX: u16 = 64;

/// Takes part in the election of a ZooKeeper ensemble, as one of its servers.
#[derive(Debug, Parser)]
#[command(name = "election", version, after_help = MORE)]
struct Cli {
    /// The configuration of the ensemble; a dynamic configuration file that it names is read as well
    #[arg(long, value_name = "FILE")]
    zoo_cfg: PathBuf,

    /// A flag of ZooKeeper's JVM that the configuration is to be read with: zookeeper.multiAddress.enabled=true
    #[arg(short = 'D', long = "jvm-flag", value_name = "NAME=VALUE")]
    jvm_flags: Vec<String>,

    /// The id of this server in it; several, joined by commas, are several servers in one process
    #[arg(
        long,
        value_name = "N",
        required = true,
        value_delimiter = ',',
        allow_negative_numbers = true
    )]
    myid: Vec<i64>,

    /// The last transaction that it claims to have, decimal or 0x and hexadecimal [default: none, so that it is elected
    /// only where nobody else can be; an empty real server has 0]
    #[arg(long, value_name = "X", default_value_t = ZXID_OF_NO_DATA, hide_default_value = true,
        value_parser = number, allow_negative_numbers = true)]
    zxid: i64,

    /// The epoch that it claims to be in [default: that of the transaction, its high 32 bits]
    #[arg(long, value_name = "E", value_parser = number, allow_negative_numbers = true)]
    epoch: Option<i64>,

    /// Never votes; asks the others every tick, and shows what they say
    #[arg(long)]
    observe: bool,

    /// Connects to the quorum port of the leader, only to see whether it is alive; opens the own one when it leads. A real
    /// leader counts it among its learners, sends it nothing, and logs an error once, when the connection ends, as for any
    /// follower
    #[arg(long)]
    follow_leader_port: bool,

    /// Draws an election as a picture (SVG) when it is over; the next one replaces it
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,

    /// In which form to send: as ZooKeeper 3.3, 3.4.0, 3.4.6 or 3.5 and later
    #[arg(long, value_enum, default_value = "44")]
    format: FormatArg,

    /// How many servers are answered that are not in the configuration: such as are to join, or observers that only their
    /// own configuration names; 0 refuses them
    #[arg(long, value_name = "N", default_value_t = JOINERS_MAX)]
    admit: u16,

    /// What a second connection of a server needs to replace its link: nothing, as with ZooKeeper (needed where a TCP proxy
    /// stands between servers), or proof that it is that server's
    #[arg(long, value_enum, default_value = "proven")]
    replace: ReplaceArg,

    /// Quits after this time
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = seconds)]
    seconds: Option<Duration>,

    /// Logs what happens to connections to standard error; RUST_LOG chooses in more detail
    #[arg(short, long)]
    verbose: bool,
}

const MORE: &str = "\
Standard output has one JSON object a line, with the fields `event`, `myid` and `at_ms`. The events are
started, listening, up, down, looking, vote (the own vote, when it changes), sent, received, elected,
leader-reached, leader-listening (at its quorum port), leader-lost, malformed, newer-configuration, stats,
timeline, dropped (lines that nobody read in time), error and halted.

Commands on standard input, one a line:
  leader-lost  looks for a new leader, as if the present one were gone
  stats        prints what it does, and counters
  quit         halts

Without a vote: give it the place of a voter with --observe and it hears every vote, but the ensemble
lacks that voter; give it an `observer` line of its own and it hears what is answered when it asks.

A server that is elected does not serve: real followers leave it. When too few of them stay, it steps down
initLimit ticks after its election, as a real leader does, and is elected again only where nobody else can be.
With the default --zxid it never comes so far where a real server can be elected.

A server that is not in the configuration is told who leads, in which round, and the configuration, and is not
counted; with a smaller id it is dialed at the address that it says, as ZooKeeper does, so that whoever reaches
the election port can make this server dial an address. --admit bounds how many are known at one time; when one
more comes, one that is not linked makes room, and without such a one the newcomer is refused.

A server listens at its election addresses, and tries each of them again electionPortBindRetry times (3 without
that key, 0 is for ever), a second apart: its name may become known late. When none is left it could be reached
by no server with a larger id, so the program ends, with all of its servers, for its supervisor to start it again.

SIGINT (Ctrl-C) and SIGTERM halt as `quit` does.

Exit code: 0 after `halted`, 2 for a command line or a configuration that cannot work, 14 if it cannot listen at
any election address of a server of its own, 1 if it died.";

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
        // As ZooKeeper prints negative ones, too.
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
        // The help, in full.
        Err(error) => error.exit(),
    };
    let filter = if cli.verbose {
        "quorum_cnx=debug"
    } else {
        "off"
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter)).init();
    match plan(&cli) {
        Ok(plan) => run(&cli, plan),
        Err(why) => refuse(&why),
    }
}

/// Nothing was started.
fn refuse(why: &str) -> ExitCode {
    complain(why);
    ExitCode::from(2)
}

fn complain(why: &str) {
    // When nobody reads this either, the exit code has to do.
    let _ = writeln!(io::stderr(), "election: {why}");
}

/// The first paragraph: what is wrong, without the usage that follows it.
fn one_line(error: &str) -> String {
    let lines = error.lines().take_while(|line| !line.trim().is_empty());
    let line = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    line.trim_start_matches("error: ").to_owned()
}

/// What is to be run, checked.
struct Plan {
    cfg: Arc<ZooCfg>,
    quorum: Quorum,
    members: Vec<(Role, quorum_cnx::Config)>,
}

fn plan(cli: &Cli) -> Result<Plan, String> {
    let path = cli.zoo_cfg.display();
    // The library does not know what the file is called, unless it has read it itself.
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
        };
        if !cfg.servers.iter().any(|server| server.sid == role.own) {
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
        let config = connections(cli, &cfg, role.own).build();
        members.push((role, config.map_err(|error| in_file(error.to_string()))?));
    }
    if let Some(file) = &cli.timeline {
        // Rather now than when there is something to lose.
        let opened = OpenOptions::new().create(true).append(true).open(file);
        opened.map_err(|error| format!("cannot write --timeline {}: {error}", file.display()))?;
    }
    Ok(Plan {
        cfg: Arc::new(cfg),
        quorum,
        members,
    })
}

/// How a member is connected.
fn connections(cli: &Cli, cfg: &ZooCfg, own: Sid) -> ConfigBuilder {
    let builder = cfg.builder(own).replace(match cli.replace {
        ReplaceArg::Proven => Replace::Proven,
        ReplaceArg::Newest => Replace::Newest,
    });
    match usize::from(cli.admit) {
        0 => builder,
        max => builder.unknown(Unknown::Admit { max }),
    }
}

/// Each member has a thread of its own, and so have the commands, and the end of the time; this one prints.
fn run(cli: &Cli, plan: Plan) -> ExitCode {
    let own: Vec<Sid> = plan.members.iter().map(|(role, _)| role.own).collect();
    let timeline = Timeline::new(own.iter().copied(), plan.quorum.voters());
    let timeline = cli.timeline.clone().map(|path| (path, timeline));
    let (journal, lines) = Journal::new(timeline);
    let journal = Arc::new(journal);
    let (mut members, mut remotes) = (Vec::new(), Vec::new());
    for (role, config) in plan.members {
        let own = role.own;
        tell_start(&journal, &role, &plan.cfg, &plan.quorum);
        let (cfg, quorum) = (Arc::clone(&plan.cfg), plan.quorum.clone());
        match Member::new(role, config, cfg, quorum, Arc::clone(&journal)) {
            Ok((member, remote)) => {
                members.push((own, member));
                remotes.push(remote);
            }
            Err(error) => {
                complain(&format!("server {own} cannot start: {error}"));
                return ExitCode::FAILURE;
            }
        }
    }
    let remotes = Arc::new(remotes);
    if let Err(error) = take_orders(&remotes, cli.seconds) {
        complain(&format!("cannot start a thread: {error}"));
        return ExitCode::FAILURE;
    }
    let signalled = Arc::clone(&remotes);
    let watched = signals::on_first(move || {
        order(&signalled, Command::Quit);
        thread::sleep(signals::FLUSH_TIMEOUT);
        complain("nobody reads standard output: what waits to be printed is lost");
        process::exit(1);
    });
    if let Err(error) = watched {
        complain(&format!("signals end this process at once: {error}"));
    }
    let running = AtomicUsize::new(members.len());
    thread::scope(|scope| {
        let (journal, mut code) = (&*journal, ExitCode::SUCCESS);
        let new = thread::Builder::new;
        let mut lacking = None;
        let mut threads = Vec::new();
        let (running, first) = (&running, own[0]);
        for (own, member) in members {
            let others = Arc::clone(&remotes);
            // Dropped with the thread, or in its place if there is none.
            let running = Running {
                running,
                journal,
                first,
            };
            let run = move || {
                let _running = running;
                let end = member.run();
                if matches!(end, Ok(End::Deaf)) {
                    // One process is started again as a whole.
                    order(&others, Command::Quit);
                }
                end
            };
            match new().spawn_scoped(scope, run) {
                Ok(thread) => threads.push((own, thread)),
                Err(error) => lacking = Some(error),
            }
        }
        if let Some(error) = lacking {
            complain(&format!("cannot start a thread: {error}"));
            code = ExitCode::FAILURE;
            order(&remotes, Command::Quit);
        }
        // On this thread, which has nothing else to do, until the last member has ended or nobody reads.
        journal.print(&lines);
        for (own, thread) in threads {
            match thread.join() {
                Ok(Ok(End::Halted)) => {}
                Ok(Ok(End::Deaf)) => {
                    complain(&format!(
                        "server {own} cannot listen at any of its election addresses: see the errors above, start it again, \
                         or let it try for ever with electionPortBindRetry=0"
                    ));
                    code = ExitCode::from(DEAF);
                }
                Ok(Err(error)) => {
                    complain(&format!("server {own} died: {error}"));
                    code = ExitCode::FAILURE;
                }
                // Its message is on standard error.
                Err(_) => code = ExitCode::FAILURE,
            }
        }
        code
    })
}

/// A member that may still have something to tell.
struct Running<'a> {
    running: &'a AtomicUsize,
    journal: &'a Journal,
    /// In whose name the end is told.
    first: Sid,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.journal.draw_rest(self.first);
            self.journal.close();
        }
    }
}

/// Nobody waits for these threads: the one may sit in a read that never ends, the other in a long sleep.
fn take_orders(remotes: &Arc<Vec<Remote>>, time: Option<Duration>) -> io::Result<()> {
    let orders = Arc::clone(remotes);
    thread::Builder::new().spawn(move || obey(&orders))?;
    if let Some(time) = time {
        let remotes = Arc::clone(remotes);
        thread::Builder::new().spawn(move || {
            // As long as the user has asked for.
            thread::sleep(time);
            order(&remotes, Command::Quit);
        })?;
    }
    Ok(())
}

fn tell_start(journal: &Journal, role: &Role, cfg: &ZooCfg, quorum: &Quorum) {
    let sids = |observer| {
        let servers = cfg.servers.iter();
        let servers = servers.filter(|server| server.observer == observer);
        servers.map(|server| server.sid.0).collect::<Vec<_>>()
    };
    let is_voter = quorum.is_voter(role.own) && !role.observes;
    let line = json!({
        "role": if is_voter { "voter" } else { "observer" },
        "voters": sids(false), "observers": sids(true),
        "quorum": if quorum.is_hierarchical() { "hierarchical" } else { "majority" },
        "zxid": format!("{:#x}", role.zxid), "epoch": role.epoch,
    });
    journal.tell("started", role.own, line);
}

fn order(remotes: &[Remote], command: Command) {
    for remote in remotes {
        remote.order(command);
    }
}

/// The end of standard input is no end: an operator may have sent all that he wants to say.
fn obey(remotes: &[Remote]) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else {
            return complain("a command is not UTF-8: no more commands are read");
        };
        match line.trim() {
            "leader-lost" => order(remotes, Command::LeaderLost),
            "stats" => order(remotes, Command::Stats),
            "quit" => order(remotes, Command::Quit),
            "" => {}
            other => complain(&format!(
                "there is no command `{other}`, but leader-lost, stats and quit"
            )),
        }
    }
}
