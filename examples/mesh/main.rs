//! Runs five servers on loopback in one process. One of them dies in the middle of a turn and is started again. At the end the
//! program prints which promises held. Each of them is checked while the servers run.

mod screen;
mod secure;
mod seen;
mod server;
#[path = "../peer/signals.rs"]
mod signals;
mod table;
mod terminal;

use std::{
    collections::BTreeSet,
    error::Error,
    io::{self, Write as _},
    process::{self, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use quorum_cnx::Sid;

use crate::{
    screen::{Interrupted, LONG, Screen},
    secure::{Certificates, DIALED, STRANGERS},
    seen::{Order, Promise, Seen, Server, State},
};

const SERVERS: usize = 5;

/// The server that dies. It has smaller and larger peers, so that it dials and is dialed after its restart.
const VICTIM: Sid = Sid(3);

/// Five servers on loopback; one dies abruptly and comes back. Exits with 0 if all promises held.
#[derive(Debug, Parser)]
#[command(name = "mesh", version, after_help = MORE)]
struct Cli {
    /// How long the servers change their values
    #[arg(long, value_name = "N", default_value_t = 10,
        allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(2..=600))]
    seconds: u32,

    /// Has the servers speak TLS, with certificates that this program makes, and shows that strangers are refused; needs a build
    /// with --features tls-ring
    #[arg(long)]
    tls: bool,
}

/// Each paragraph is one line, which clap wraps to the width of the terminal.
const MORE: &str = "\
On a terminal it draws a table with colours (NO_COLOR=1: none), elsewhere it prints a line each \
second. SIGINT (Ctrl-C) and SIGTERM halt all servers; then the summary of the time until then is \
printed.

Exit code: 0 if all promises held, 1 if one did not hold or was not checked, 2 for a wrong command \
line, or for --tls in a build without TLS.";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let length = Duration::from_secs(cli.seconds.into());
    let certificates = match cli.tls.then(Certificates::new).transpose() {
        Ok(certificates) => certificates,
        Err(error) => {
            let _ = writeln!(io::stderr(), "mesh: --tls: {error}");
            return ExitCode::from(2);
        }
    };
    match run(length, certificates) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(error) => match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            // The reader of the output has closed the pipe: that is no error.
            Some(io::ErrorKind::BrokenPipe) => {}
            _ => drop(writeln!(io::stderr(), "mesh: {error}")),
        },
    }
    ExitCode::FAILURE
}

fn sids() -> impl Iterator<Item = Sid> {
    (1..).map(Sid).take(SERVERS)
}

/// Runs the scenario, and returns whether all promises held.
fn run(length: Duration, certificates: Option<Certificates>) -> Result<bool, Box<dyn Error>> {
    let start = Instant::now();
    let seen = Arc::new(Seen::new(start, certificates)?);
    let interrupt = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupt);
    signals::on_first(move || {
        flag.store(true, Ordering::Relaxed);
        // Halting takes this long only if a terminal or a reader of the output is stopped.
        thread::sleep(LONG + signals::FLUSH_TIMEOUT);
        process::exit(1);
    })?;
    let mut screen = Screen::new(start, Arc::clone(&seen), interrupt);
    if let Err(error) = run_scenario(start, length, &seen, &mut screen) {
        error.downcast::<Interrupted>()?;
        screen.ignore_interrupt();
        screen.print("interrupted: all servers halt")?;
    }
    halt(&seen, &mut screen)?;
    let verdict = seen.lock().verdict();
    screen.end(&verdict)?;
    Ok(verdict.is_good())
}

fn run_scenario(
    start: Instant,
    length: Duration,
    seen: &Arc<Seen>,
    screen: &mut Screen,
) -> Result<(), Box<dyn Error>> {
    for sid in sids().filter(|sid| *sid != VICTIM) {
        server::start_manager(seen, sid)?;
    }
    server::start_victim(seen, VICTIM)?;
    screen.until(Promise::Link, "all are linked", State::is_linked)?;
    seen.lock().check(Promise::Link);
    if let Some(certificates) = &seen.certificates {
        send_strangers(certificates, seen, screen)?;
    }
    screen.watch(start + length * 3 / 10)?;

    seen.lock().server(VICTIM).order = Order::Die;
    let done = format!("server {VICTIM} has died in the middle of a turn");
    screen.until(Promise::Return, &done, |state| {
        state.servers[&VICTIM].has_died()
    })?;
    let is_noticed = |state: &State| state.down_reasons().count() == SERVERS - 1;
    screen.until(Promise::Return, "all others have noticed", is_noticed)?;
    let reasons = BTreeSet::from_iter(seen.lock().down_reasons());
    screen.print(&format!("reasons: {}", Vec::from_iter(reasons).join("; ")))?;
    screen.watch(start + length * 5 / 10)?;

    server::start_victim(seen, VICTIM)?;
    screen.print(&format!("server {VICTIM} is started again, on its port"))?;
    screen.until(Promise::Return, "all are linked again", State::is_linked)?;
    seen.lock().check(Promise::Return);
    screen.watch(start + length)?;

    seen.lock().order_all(Order::Freeze);
    screen.print("the values change no more")?;
    let done = "every server has the last value of every other";
    screen.until(Promise::Newest, done, State::is_settled)?;
    seen.lock().check(Promise::Newest);
    let done = "each pair still has exactly one link";
    screen.until(Promise::Link, done, State::is_linked)
}

/// Has each stranger dial a server, which must refuse it. All servers speak nothing but TLS, as the first one shows.
fn send_strangers(
    certificates: &Certificates,
    seen: &Seen,
    screen: &mut Screen,
) -> Result<(), Box<dyn Error>> {
    let address = seen.lock().server(DIALED).address.clone();
    let links = |state: &State| -> Vec<_> {
        let servers = state.servers.values();
        servers.map(|server| server.links.clone()).collect()
    };
    let links_before = links(&seen.lock());
    for stranger in STRANGERS {
        let manager = certificates.stranger(stranger, &address)?;
        let done = format!("server {DIALED} has refused {stranger}");
        screen.until(Promise::Strangers, &done, |state| {
            state.refusals.contains_key(&stranger.refusal())
        })?;
        manager.halt();
        let reason = seen.lock().refusals.get(&stranger.refusal()).cloned();
        screen.print(&format!("reason: {}", reason.unwrap_or_default()))?;
    }
    let done = "all links are as before";
    screen.until(Promise::Strangers, done, |state| {
        state.is_linked() && links(state) == links_before
    })?;
    seen.lock().check(Promise::Strangers);
    Ok(())
}

/// Halts all servers that run, and checks the promises that must hold at any time.
fn halt(seen: &Seen, screen: &mut Screen) -> Result<(), Box<dyn Error>> {
    seen.lock().order_all(Order::Halt);
    let is_over = |state: &State| {
        // After an interrupt, some servers may not be started, or the victim may be dead.
        let is_over = |(sid, server): (&Sid, &Server)| {
            server.is_over || server.handle.is_none() || *sid == VICTIM && server.has_died()
        };
        state.servers.iter().all(is_over)
    };
    screen.until(Promise::Ports, "all have halted", is_over)?;
    let mut state = seen.lock();
    state.close_dead();
    for promise in [Promise::Order, Promise::Account, Promise::Ports] {
        state.check(promise);
    }
    Ok(())
}
