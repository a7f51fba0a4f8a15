//! Five servers on loopback, in one process. One dies in the middle of a turn and comes back; at its end the program says
//! which promises held.
//!
//! Nothing is assumed to hold: each line of the summary was looked at, by the servers or here.

mod screen;
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
    seen::{Order, Promise, Seen, Server, State},
};

const SERVERS: usize = 5;

/// Who dies: it has smaller and larger peers, so it dials again and is dialed again.
const VICTIM: Sid = Sid(3);

/// Five servers on loopback; one dies abruptly and comes back. Exits with 0 if all promises held.
#[derive(Debug, Parser)]
#[command(name = "mesh", version, after_help = MORE)]
struct Cli {
    /// How long the servers change their values
    #[arg(long, value_name = "N", default_value_t = 10,
        allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(2..=600))]
    seconds: u32,
}

const MORE: &str = "\
On a terminal it is a table and has colours (NO_COLOR=1: none), elsewhere a line a second.
SIGINT (Ctrl-C) and SIGTERM halt all servers; what was seen until then is summed up.

Exit code: 0 if all promises held, 1 if one did not or was not looked at, 2 for a wrong command line.";

fn main() -> ExitCode {
    let length = Duration::from_secs(Cli::parse().seconds.into());
    match play(length) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(error) => match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            // Who reads no further wants to hear no complaint.
            Some(io::ErrorKind::BrokenPipe) => {}
            _ => drop(writeln!(io::stderr(), "mesh: {error}")),
        },
    }
    ExitCode::FAILURE
}

fn sids() -> impl Iterator<Item = Sid> {
    (1..).map(Sid).take(SERVERS)
}

/// The play, and whether all promises held.
fn play(length: Duration) -> Result<bool, Box<dyn Error>> {
    let start = Instant::now();
    let seen = Arc::new(Seen::new(start)?);
    let interrupt = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupt);
    signals::on_first(move || {
        flag.store(true, Ordering::Relaxed);
        // Only a terminal or a reader that is stopped takes this long.
        thread::sleep(LONG + signals::LAST_WORDS);
        process::exit(1);
    })?;
    let mut screen = Screen::new(start, Arc::clone(&seen), interrupt);
    if let Err(error) = acts(start, length, &seen, &mut screen) {
        error.downcast::<Interrupted>()?;
        screen.outlive();
        screen.tell("interrupted: all are told to halt")?;
    }
    halt(&seen, &mut screen)?;
    let verdict = seen.lock().verdict();
    screen.end(&verdict)?;
    Ok(verdict.is_good())
}

fn acts(
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
    seen.lock().look_at(Promise::Link);
    screen.watch(start + length * 3 / 10)?;

    seen.lock().server(VICTIM).order = Order::Die;
    let done = format!("server {VICTIM} has died in the middle of a turn");
    screen.until(Promise::Return, &done, |state| {
        state.servers[&VICTIM].has_died()
    })?;
    let is_missed = |state: &State| state.obituaries().count() == SERVERS - 1;
    screen.until(Promise::Return, "all others know", is_missed)?;
    let reasons = BTreeSet::from_iter(seen.lock().obituaries());
    screen.tell(&format!("they say: {}", Vec::from_iter(reasons).join("; ")))?;
    screen.watch(start + length * 5 / 10)?;

    server::start_victim(seen, VICTIM)?;
    screen.tell(&format!("server {VICTIM} is started again, on its port"))?;
    screen.until(Promise::Return, "all are linked again", State::is_linked)?;
    seen.lock().look_at(Promise::Return);
    screen.watch(start + length)?;

    seen.lock().order_all(Order::Freeze);
    screen.tell("the values change no more")?;
    let done = "everybody has everybody's last value";
    screen.until(Promise::Newest, done, State::is_settled)?;
    seen.lock().look_at(Promise::Newest);
    let done = "each pair still has its one link";
    screen.until(Promise::Link, done, State::is_linked)
}

/// Halts all that live. What must always hold is looked at here.
fn halt(seen: &Seen, screen: &mut Screen) -> Result<(), Box<dyn Error>> {
    seen.lock().order_all(Order::Halt);
    let is_over = |state: &State| {
        // When it was interrupted, not all were started, or the victim is dead.
        let is_over = |(sid, server): (&Sid, &Server)| {
            server.is_over || server.handle.is_none() || *sid == VICTIM && server.has_died()
        };
        state.servers.iter().all(is_over)
    };
    screen.until(Promise::Ports, "all have halted", is_over)?;
    let mut state = seen.lock();
    state.close_dead();
    for promise in [Promise::Order, Promise::Account, Promise::Ports] {
        state.look_at(promise);
    }
    Ok(())
}
