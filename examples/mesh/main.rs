//! Five servers on loopback, in one process. One dies in the middle of a turn and comes back; at its end the program says
//! which promises held.
//!
//! Nothing is assumed to hold: each line of the summary was looked at, by the servers or here.

mod seen;
mod server;
mod table;

use std::{
    collections::BTreeSet,
    error::Error,
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use quorum_cnx::Sid;

use crate::{
    seen::{Order, Promise, Seen, State},
    table::Screen,
};

const SERVERS: usize = 5;

/// Who dies: it has smaller and larger peers, so it dials again and is dialed again.
const VICTIM: Sid = Sid(3);

/// Five servers on loopback; one dies abruptly and comes back. Exits with 0 if all promises held.
#[derive(Debug, Parser)]
#[command(name = "mesh")]
struct Cli {
    /// How long the servers change their values
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(2..=600))]
    seconds: u32,
}

fn main() -> ExitCode {
    let length = Duration::from_secs(Cli::parse().seconds.into());
    match play(length) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(error) => match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            // Who reads no further wants to hear no complaint.
            Some(io::ErrorKind::BrokenPipe) => {}
            _ => eprintln!("mesh: {error}"),
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
    let mut screen = Screen::new(start, Arc::clone(&seen));
    for sid in sids().filter(|sid| *sid != VICTIM) {
        server::start_manager(&seen, sid)?;
    }
    server::start_victim(&seen, VICTIM)?;
    screen.until(Promise::Link, "all are linked", State::is_linked)?;
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

    server::start_victim(&seen, VICTIM)?;
    screen.tell(&format!("server {VICTIM} is started again, on its port"))?;
    screen.until(Promise::Return, "all are linked again", State::is_linked)?;
    screen.watch(start + length)?;

    seen.lock().order_all(Order::Freeze);
    screen.tell("the values change no more")?;
    let done = "everybody has everybody's last value";
    screen.until(Promise::Newest, done, State::is_settled)?;
    let done = "each pair still has its one link";
    screen.until(Promise::Link, done, State::is_linked)?;
    seen.lock().order_all(Order::Halt);
    let is_over = |state: &State| state.servers.values().all(|server| server.is_over);
    screen.until(Promise::Ports, "all have halted", is_over)?;
    let (held, summary) = seen.lock().verdict();
    write!(io::stdout(), "\n{summary}")?;
    Ok(held)
}
