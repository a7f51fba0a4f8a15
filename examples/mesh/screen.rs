//! How the mesh is shown: on a terminal a table that is drawn over itself below a story that scrolls, elsewhere lines.
//!
//! Nothing here knows what is to happen. The cursor is never hidden, so that an interrupt leaves a clean terminal.

use std::{
    error::Error,
    fmt,
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    seen::{Outcome, Promise, Seen, State, Verdict, micros},
    table::{ROWS_MIN, table},
    terminal::{Line, Style, Terminal},
};

/// Only a broken promise takes this long.
pub(crate) const LONG: Duration = Duration::from_secs(10);

/// Time between two looks at the servers.
const LOOK: Duration = Duration::from_millis(1);

/// Time between two drawings, and how many of them make the second after which there is a line.
const REDRAW: Duration = Duration::from_millis(200);
const REDRAWS: u32 = 5;

/// Columns in front of what happened, and of a promise: `  1.23 s  `, `held    `.
const TIME: usize = 10;
const LABEL: usize = 8;

/// The play was ended by a signal.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl Error for Interrupted {}

pub(crate) struct Screen {
    start: Instant,
    seen: Arc<Seen>,
    terminal: Option<Terminal>,
    /// True when a signal has come, until [`outlive`](Self::outlive).
    interrupt: Arc<AtomicBool>,
    /// How often it was time to draw.
    draws: u32,
    /// Lengths of the lines of the last drawing, which the next one covers.
    covered: Vec<usize>,
}

impl Screen {
    pub(crate) fn new(start: Instant, seen: Arc<Seen>, interrupt: Arc<AtomicBool>) -> Self {
        Self {
            start,
            seen,
            terminal: Terminal::find(),
            interrupt,
            draws: 0,
            covered: Vec::new(),
        }
    }

    /// From now on nothing is interrupted any more.
    pub(crate) fn outlive(&mut self) {
        self.interrupt = Arc::default();
    }

    /// Says that something happened.
    pub(crate) fn tell(&mut self, what: &str) -> io::Result<()> {
        let time = format!("{:6.2} s", self.start.elapsed().as_secs_f64());
        let line = format!("{time}  {what}");
        match self.terminal {
            None => writeln!(io::stdout(), "{line}"),
            Some(terminal) => {
                let line = Line::begun(Style::Dim, time.len(), &line);
                self.draw(terminal, &[(line, TIME)], 0)
            }
        }
    }

    /// Shows what there is until it is done, and tells. If that takes too long, the promise is broken.
    pub(crate) fn until(
        &mut self,
        promise: Promise,
        done: &str,
        is_done: impl Fn(&State) -> bool,
    ) -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        while !is_done(&self.seen.lock()) {
            if start.elapsed() > LONG {
                let why = format!("not within {} s: {done}", LONG.as_secs());
                self.seen.lock().blame(promise, why.clone());
                return Ok(self.tell(&why)?);
            }
            self.look()?;
        }
        Ok(self.tell(&format!("{done}, {} ms later", start.elapsed().as_millis()))?)
    }

    /// Shows what there is until then.
    pub(crate) fn watch(&mut self, end: Instant) -> Result<(), Box<dyn Error>> {
        while Instant::now() < end {
            self.look()?;
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), Box<dyn Error>> {
        thread::sleep(LOOK);
        if self.interrupt.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        if self.start.elapsed() < REDRAW * (self.draws + 1) {
            return Ok(());
        }
        self.draws += 1;
        let is_second = self.draws % REDRAWS == 0;
        if is_second {
            self.seen.lock().roll();
        }
        match (self.terminal, is_second) {
            (Some(terminal), _) => self.draw(terminal, &[], 0)?,
            (None, true) => io::stdout().write_all(self.line().as_bytes())?,
            (None, false) => {}
        }
        Ok(())
    }

    /// All servers in one line, where there is no terminal.
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

    /// Draws the table over the last one, below these lines and their indents, and above so many rows that are left free.
    fn draw(&mut self, terminal: Terminal, told: &[(Line, usize)], free: usize) -> io::Result<()> {
        let (rows, columns) = terminal.size();
        // A terminal may be slow, and the servers are not to wait for it.
        let table = table(
            &self.seen.lock(),
            self.start.elapsed(),
            (rows - 1).saturating_sub(free),
            columns,
        );
        let told = told
            .iter()
            .flat_map(|(line, indent)| line.wrap(columns, *indent));
        // A terminal that has become narrower has broken the lines which it had.
        let covered: usize = self
            .covered
            .iter()
            .map(|len| (len / (columns + 1)) + 1)
            .sum();
        self.covered = table.iter().map(|line| line.text.len()).collect();
        let mut text = match covered {
            0 => String::new(),
            covered => format!("\x1b[{covered}A\r"),
        };
        // Covered line by line, which does not flicker.
        for line in told.chain(table) {
            text += &format!("{}\x1b[K\n", line.paint(terminal.has_colours));
        }
        text += "\x1b[J";
        io::stdout().write_all(text.as_bytes())
    }

    /// The last table, and what has become of the promises: on a low terminal only those that did not hold by name.
    pub(crate) fn end(&mut self, verdict: &Verdict) -> io::Result<()> {
        let Some(terminal) = self.terminal else {
            return write!(io::stdout(), "\n{}", text(&lines(verdict, false)));
        };
        let (rows, columns) = terminal.size();
        let fit = |lines: Vec<(Line, usize)>| -> Vec<Line> {
            let lines = lines.into_iter();
            lines
                .flat_map(|(line, indent)| line.wrap(columns, indent))
                .collect()
        };
        let mut summary = fit(lines(verdict, false));
        // Below them is a prompt, perhaps with a line of its own above it.
        if ROWS_MIN + summary.len() + 2 > rows {
            summary = fit(lines(verdict, true));
        }
        // Also where it does not fit, the table is whole: it can be scrolled back to.
        let free = summary.len().min(rows.saturating_sub(ROWS_MIN + 1));
        self.draw(terminal, &[], free)?;
        self.covered.clear();
        let painted = summary
            .iter()
            .map(|line| line.paint(terminal.has_colours) + "\n");
        io::stdout().write_all(painted.collect::<String>().as_bytes())
    }
}

/// The summary, each line with its indent. In brief, the promises that held are only counted.
fn lines(verdict: &Verdict, in_brief: bool) -> Vec<(Line, usize)> {
    let mut lines = Vec::new();
    let count = verdict.promises.len();
    let held = verdict
        .promises
        .iter()
        .filter(|(_, outcome)| *outcome == Outcome::Held);
    let held = held.count();
    if in_brief {
        let all = if held == count { "all " } else { "" };
        let of = if held == count {
            String::new()
        } else {
            format!(" of {count}")
        };
        lines.push(Line::begun(
            Style::Good,
            4,
            &format!("held    {all}{held}{of} promises"),
        ));
    }
    for (what, outcome) in &verdict.promises {
        match outcome {
            Outcome::Held if in_brief => {}
            Outcome::Held => lines.push(Line::begun(Style::Good, 4, &format!("held    {what}"))),
            Outcome::Unseen => lines.push(Line::begun(Style::Dim, 6, &format!("unseen  {what}"))),
            Outcome::Broken(why) => {
                lines.push(Line::begun(Style::Bad, 6, &format!("BROKEN  {what}")));
                lines.push(Line::plain(&format!("{:LABEL$}{why}", "")));
            }
        }
    }
    let figures = if in_brief {
        &verdict.figures_in_brief
    } else {
        lines.push(Line::plain(""));
        &verdict.figures
    };
    lines.extend(figures.iter().map(|line| Line::plain(line)));
    lines.into_iter().map(|line| (line, LABEL)).collect()
}

fn text(lines: &[(Line, usize)]) -> String {
    lines
        .iter()
        .map(|(line, _)| line.text.clone() + "\n")
        .collect()
}
