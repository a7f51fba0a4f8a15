//! How the mesh looks: a table that is drawn over itself on a terminal, lines elsewhere.
//!
//! Nothing here knows what is to happen. The cursor is never hidden, so that an interrupt leaves a clean terminal.

use std::{
    io::{self, IsTerminal as _, Write as _},
    mem,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use quorum_cnx::{Event, Sid};

use crate::{
    SERVERS, VICTIM,
    seen::{Promise, Seen, Server, State, micros},
    sids,
};

/// Only a broken promise takes this long.
const LONG: Duration = Duration::from_secs(10);

/// Time between two looks at the servers.
const LOOK: Duration = Duration::from_millis(1);

/// Time between two drawings, and how many of them make the second after which there is a line.
const REDRAW: Duration = Duration::from_millis(200);
const REDRAWS: u32 = 5;

pub(crate) struct Screen {
    start: Instant,
    seen: Arc<Seen>,
    is_terminal: bool,
    /// How often it was time to draw.
    draws: u32,
    /// Lines of the last drawing, which the next one covers.
    covered: usize,
    /// What happened, a line each.
    happenings: String,
}

impl Screen {
    pub(crate) fn new(start: Instant, seen: Arc<Seen>) -> Self {
        Self {
            start,
            seen,
            is_terminal: io::stdout().is_terminal(),
            draws: 0,
            covered: 0,
            happenings: String::new(),
        }
    }

    /// Says that something happened.
    pub(crate) fn tell(&mut self, what: &str) -> io::Result<()> {
        let line = format!("{:6.2} s  {what}\n", self.start.elapsed().as_secs_f64());
        if !self.is_terminal {
            return io::stdout().write_all(line.as_bytes());
        }
        self.happenings += &line;
        self.draw()
    }

    /// Shows what there is until it is done, and tells. If that takes too long, the promise is broken.
    pub(crate) fn until(
        &mut self,
        promise: Promise,
        done: &str,
        is_done: impl Fn(&State) -> bool,
    ) -> io::Result<()> {
        let start = Instant::now();
        while !is_done(&self.seen.lock()) {
            if start.elapsed() > LONG {
                let why = format!("not within {} s: {done}", LONG.as_secs());
                self.seen.lock().blame(promise, why.clone());
                return self.tell(&why);
            }
            self.look()?;
        }
        self.tell(&format!("{done}, {} ms later", start.elapsed().as_millis()))
    }

    /// Shows what there is until then.
    pub(crate) fn watch(&mut self, end: Instant) -> io::Result<()> {
        while Instant::now() < end {
            self.look()?;
        }
        Ok(())
    }

    fn look(&mut self) -> io::Result<()> {
        thread::sleep(LOOK);
        if self.start.elapsed() < REDRAW * (self.draws + 1) {
            return Ok(());
        }
        self.draws += 1;
        let is_second = self.draws % REDRAWS == 0;
        if is_second {
            self.seen.lock().roll();
        }
        match (self.is_terminal, is_second) {
            (true, _) => self.draw(),
            (false, true) => io::stdout().write_all(self.line().as_bytes()),
            (false, false) => Ok(()),
        }
    }

    fn line(&self) -> String {
        let state = self.seen.lock();
        let at = self.start.elapsed().as_secs_f64();
        let mut line = format!("{at:6.2} s  server: links, frames/s, p50 us ");
        for (sid, server) in &state.servers {
            let (links, pace) = (server.links_up(), &server.pace);
            line += &match server.absence() {
                Some(absence) => format!("  {sid}: {absence}"),
                None => format!("  {sid}: {links} {} {}", pace.len(), micros(pace)[0]),
            };
        }
        line + "\n"
    }

    fn draw(&mut self) -> io::Result<()> {
        let at = self.start.elapsed().as_secs_f64();
        let heads: String = sids().map(|sid| format!("{sid} ")).collect();
        let state = self.seen.lock();
        let rows: String = state.servers.iter().map(row).collect();
        // A terminal may be slow, and the servers are not to wait for it.
        drop(state);
        let text = format!(
            "{SERVERS} servers in one process: {VICTIM} an EventLoop, the others CnxManagers; {at:.1} s\n\n\
             server  address          links {heads}    value  frames/s   p50 us   p99 us\n{rows}\n\
             links: > it dialed, < it was dialed, . none\n\n{}",
            self.happenings,
        );
        // Covered line by line, which does not flicker.
        let mut text = text.replace('\n', "\x1b[K\n");
        let covered = mem::replace(&mut self.covered, text.lines().count());
        if covered > 0 {
            text.insert_str(0, &format!("\x1b[{covered}A\r"));
        }
        io::stdout().write_all(text.as_bytes())
    }
}

fn row((own, server): (&Sid, &Server)) -> String {
    let head = format!("{:>6}  {:<16}", own.0, server.address);
    if let Some(absence) = server.absence() {
        return format!("{head} {absence}\n");
    }
    let mark = |sid| match server.links.get(&sid) {
        _ if sid == *own => "  ",
        Some(Event::Up { dialed: true, .. }) => "> ",
        Some(Event::Up { dialed: false, .. }) => "< ",
        _ => ". ",
    };
    let links: String = sids().map(mark).collect();
    let (value, frames) = (server.version, server.pace.len());
    let [p50, p99] = micros(&server.pace);
    format!("{head}       {links}{value:>9} {frames:>9} {p50:>8} {p99:>8}\n")
}
