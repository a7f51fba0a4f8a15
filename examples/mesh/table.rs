//! How the mesh looks: a table that is drawn over itself on a terminal, lines elsewhere.
//!
//! Nothing here knows what is to happen. The cursor is never hidden, so that an interrupt leaves a clean terminal.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use crate::{SERVERS, server::Server};

/// Time between two drawings, and between two lines.
const REDRAW: Duration = Duration::from_millis(200);
const RELINE: Duration = Duration::from_secs(1);

pub(crate) struct Screen {
    start: Instant,
    is_terminal: bool,
    /// Lines of the last drawing, which the next one covers.
    drawn: usize,
    next: Instant,
    /// What happened, a line each.
    happenings: Vec<String>,
}

impl Screen {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            is_terminal: io::stdout().is_terminal(),
            drawn: 0,
            next: start,
            happenings: Vec::new(),
        }
    }

    /// When it is to be drawn again.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Says that something happened.
    pub(crate) fn tell(&mut self, servers: &[Server], what: &str) -> io::Result<()> {
        let at = self.start.elapsed().as_secs_f64();
        let line = format!("{at:6.2} s  {what}");
        if self.is_terminal {
            self.happenings.push(line);
            self.draw(servers)
        } else {
            writeln!(io::stdout(), "{line}")
        }
    }

    /// Draws what there is, if it is time.
    pub(crate) fn refresh(&mut self, servers: &[Server]) -> io::Result<()> {
        let now = Instant::now();
        if now < self.next {
            return Ok(());
        }
        self.next = now + if self.is_terminal { REDRAW } else { RELINE };
        if self.is_terminal {
            self.draw(servers)
        } else {
            let line = self.line(servers);
            writeln!(io::stdout(), "{line}")
        }
    }

    fn line(&self, servers: &[Server]) -> String {
        let at = self.start.elapsed().as_secs_f64();
        let mut line = format!("{at:6.2} s  server: links, frames/s, p50 us ");
        for server in servers {
            let _ = write!(line, "  {}: ", server.sid);
            match (&server.report, server.absence()) {
                (Some(report), None) => {
                    let (links, pace) = (report.links.len(), report.pace);
                    let _ = write!(line, "{links} {} {:.0}", pace.frames, pace.p50_us);
                }
                (_, absence) => line += absence.unwrap_or_default(),
            }
        }
        line
    }

    fn draw(&mut self, servers: &[Server]) -> io::Result<()> {
        let at = self.start.elapsed().as_secs_f64();
        let sids: Vec<String> = servers
            .iter()
            .map(|server| server.sid.to_string())
            .collect();
        let mut lines = vec![
            format!("{SERVERS} servers on loopback, a process each; {at:.1} s"),
            String::new(),
            format!(
                "server  address          links {}     value  frames/s   p50 us   p99 us",
                sids.join(" ")
            ),
        ];
        lines.extend(servers.iter().map(|server| row(server, servers)));
        lines.push(String::new());
        lines.push("links: > it dialed, < it was dialed, . none".into());
        lines.push(String::new());
        lines.extend(self.happenings.iter().cloned());

        let mut text = String::new();
        if self.drawn > 0 {
            // Up to the first line: covered line by line, which does not flicker.
            let _ = write!(text, "\x1b[{}A", self.drawn);
        }
        for line in &lines {
            let _ = writeln!(text, "\r{line}\x1b[K");
        }
        self.drawn = lines.len();
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

fn row(server: &Server, servers: &[Server]) -> String {
    let head = format!("{:>6}  {:<16}", server.sid, server.address);
    let report = match (&server.report, server.absence()) {
        (Some(report), None) => report,
        (_, absence) => return format!("{head} {}", absence.unwrap_or_default()),
    };
    let mark = |other: &Server| match report.links.get(&other.sid) {
        _ if other.sid == server.sid => " ",
        Some(true) => ">",
        Some(false) => "<",
        None => ".",
    };
    let links: Vec<&str> = servers.iter().map(mark).collect();
    format!(
        "{head}       {} {:>9} {:>9} {:>8.0} {:>8.0}",
        links.join(" "),
        report.version,
        report.pace.frames,
        report.pace.p50_us,
        report.pace.p99_us
    )
}
