//! Shows the mesh: on a terminal as a table that is redrawn in place below lines that scroll, elsewhere as lines.
//!
//! The cursor is never hidden, so that an interrupt leaves a clean terminal.

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

/// Timeout of each wait. Only a broken promise takes this long.
pub(crate) const LONG: Duration = Duration::from_secs(10);

/// Time between two checks of the servers.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Time between two drawings of the table, and the number of drawings in a second. Elsewhere a line is printed each second.
const REDRAW: Duration = Duration::from_millis(200);
const REDRAWS: u32 = 5;

/// Columns in front of the text of an event, and of a promise: `  1.23 s  `, `held    `.
const TIME: usize = 10;
const LABEL: usize = 8;

/// A signal ended the scenario.
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
    /// True after a signal, until [`ignore_interrupt`](Self::ignore_interrupt).
    interrupt: Arc<AtomicBool>,
    /// Drawings until now, whether anything was drawn or not.
    draws: u32,
    /// Lengths of the lines of the last drawing, which the next one overwrites.
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

    /// From now on no wait is interrupted.
    pub(crate) fn ignore_interrupt(&mut self) {
        self.interrupt = Arc::default();
    }

    /// Prints an event with its time.
    pub(crate) fn print(&mut self, what: &str) -> io::Result<()> {
        let time = format!("{:6.2} s", self.start.elapsed().as_secs_f64());
        let line = format!("{time}  {what}");
        match self.terminal {
            None => writeln!(io::stdout(), "{line}"),
            Some(terminal) => {
                let line = Line::with_prefix(Style::Dim, time.len(), &line);
                self.draw(terminal, &[(line, TIME)], 0)
            }
        }
    }

    /// Shows the servers until `is_done`, and then prints `done`. After [`LONG`] the promise is broken.
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
                self.seen.lock().break_promise(promise, why.clone());
                return Ok(self.print(&why)?);
            }
            self.step()?;
        }
        Ok(self.print(&format!("{done}, {} ms later", start.elapsed().as_millis()))?)
    }

    /// Shows the servers until `end`.
    pub(crate) fn watch(&mut self, end: Instant) -> Result<(), Box<dyn Error>> {
        while Instant::now() < end {
            self.step()?;
        }
        Ok(())
    }

    /// Waits for [`POLL_INTERVAL`], and draws or prints if it is time to.
    fn step(&mut self) -> Result<(), Box<dyn Error>> {
        thread::sleep(POLL_INTERVAL);
        if self.interrupt.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        if self.start.elapsed() < REDRAW * (self.draws + 1) {
            return Ok(());
        }
        self.draws += 1;
        let is_second = self.draws % REDRAWS == 0;
        if is_second {
            self.seen.lock().end_second();
        }
        match (self.terminal, is_second) {
            (Some(terminal), _) => self.draw(terminal, &[], 0)?,
            (None, true) => io::stdout().write_all(self.line().as_bytes())?,
            (None, false) => {}
        }
        Ok(())
    }

    /// All servers in one line, for an output that is no terminal.
    fn line(&self) -> String {
        let state = self.seen.lock();
        let at = self.start.elapsed().as_secs_f64();
        let mut line = format!("{at:6.2} s  server: links, frames/s, p50 us ");
        for (sid, server) in &state.servers {
            let (links, second) = (server.links_up(), &server.last_second);
            line += &match server.absence() {
                Some(absence) => format!("  {sid}: {absence}"),
                None => format!("  {sid}: {links} {} {}", second.len(), micros(second)[0]),
            };
        }
        line + "\n"
    }

    /// Draws the table in place of the last one, below `above` (lines and their indents). Leaves `free` rows below it.
    fn draw(&mut self, terminal: Terminal, above: &[(Line, usize)], free: usize) -> io::Result<()> {
        let (rows, columns) = terminal.size();
        // The lock is held only here: a terminal may be slow, and the servers must not wait for it.
        let table = table(
            &self.seen.lock(),
            self.start.elapsed(),
            (rows - 1).saturating_sub(free),
            columns,
        );
        let above = above
            .iter()
            .flat_map(|(line, indent)| line.wrap(columns, *indent));
        // A terminal that has become narrower has wrapped the lines of the last drawing.
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
        // Overwritten line by line, which does not flicker.
        for line in above.chain(table) {
            text += &format!("{}\x1b[K\n", line.paint(terminal.has_colours));
        }
        text += "\x1b[J";
        io::stdout().write_all(text.as_bytes())
    }

    /// Draws the last table and the summary. A terminal with few rows names only the promises that did not hold.
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
        // A prompt follows, perhaps with an empty line above it.
        if ROWS_MIN + summary.len() + 2 > rows {
            summary = fit(lines(verdict, true));
        }
        // The table is complete even if it does not fit: the user can scroll back.
        let free = summary.len().min(rows.saturating_sub(ROWS_MIN + 1));
        self.draw(terminal, &[], free)?;
        self.covered.clear();
        let painted = summary
            .iter()
            .map(|line| line.paint(terminal.has_colours) + "\n");
        io::stdout().write_all(painted.collect::<String>().as_bytes())
    }
}

/// The summary, each line with its indent. In brief, promises that held are counted and not named.
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
        lines.push(Line::with_prefix(
            Style::Good,
            4,
            &format!("held    {all}{held}{of} promises"),
        ));
    }
    for (what, outcome) in &verdict.promises {
        match outcome {
            Outcome::Held if in_brief => {}
            Outcome::Held => lines.push(Line::with_prefix(
                Style::Good,
                4,
                &format!("held    {what}"),
            )),
            Outcome::Unchecked => {
                lines.push(Line::with_prefix(Style::Dim, 6, &format!("unseen  {what}")));
            }
            Outcome::Broken(why) => {
                lines.push(Line::with_prefix(Style::Bad, 6, &format!("BROKEN  {what}")));
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
