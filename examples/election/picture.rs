//! Draws an election: a lane for each server, time downwards, an arrow for each message, a colour for each candidate.
//!
//! Time is not to scale, since nearly everything happens in the first millisecond: long gaps are shortened.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use quorum_cnx::Sid;

use crate::{
    notification::State,
    timeline::{Entry, Fact, Message},
};

const WIDTH: f64 = 860.0;
/// Width of the column of times.
const LEFT: f64 = 78.0;
const RIGHT: f64 = 24.0;
/// Where the lanes begin.
const TOP: f64 = 118.0;
/// Smallest distance between two lines of the axis.
const TICK: f64 = 15.0;
/// A gap without events is labelled from this length on.
const GAP_LABELLED: Duration = Duration::from_millis(50);

/// Colours that most people can distinguish (Okabe and Ito).
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195",
];

pub(crate) fn draw(lanes: &[Sid], messages: &[Message], entries: &[Entry]) -> String {
    let mut canvas = Canvas::new(lanes, messages, entries);
    canvas.axis();
    canvas.lanes(entries);
    for message in messages {
        canvas.message(message);
    }
    canvas.marks(entries);
    canvas.gap_labels();
    canvas.finish(entries)
}

struct Canvas {
    lanes: BTreeMap<Sid, f64>,
    /// The times of all events, with their vertical positions.
    times: BTreeMap<Duration, f64>,
    colours: BTreeMap<Sid, &'static str>,
    start: Duration,
    bottom: f64,
    /// Labelled gaps: vertical positions and lengths.
    gaps: Vec<(f64, Duration)>,
    svg: String,
}

impl Canvas {
    fn new(lanes: &[Sid], messages: &[Message], entries: &[Entry]) -> Self {
        let is_drawn = |entry: &&Entry| !matches!(entry.fact, Fact::Sent(..) | Fact::Received(..));
        let own = entries.iter().filter(is_drawn).map(|entry| entry.at);
        let of_messages = messages
            .iter()
            .flat_map(|message| [message.sent, message.received]);
        let moments: BTreeSet<Duration> = own.chain(of_messages.flatten()).collect();
        let start = moments.first().copied().unwrap_or_default();
        let (mut times, mut y, mut before) = (BTreeMap::new(), TOP + 42.0, start);
        for moment in moments {
            let gap = moment - before;
            if gap > Duration::ZERO {
                let micros = gap.as_micros() as f64;
                y += 4.0 + 6.0 * (1.0 + micros / 10.0).log10();
                if gap >= GAP_LABELLED {
                    y += 2.0 * TICK;
                }
            }
            times.insert(moment, y);
            before = moment;
        }
        let voted = entries.iter().filter_map(|entry| match entry.fact {
            Fact::Vote(vote) => Some(vote.leader),
            Fact::Elected(outcome) => Some(outcome.vote.leader),
            _ => None,
        });
        let in_messages = messages
            .iter()
            .map(|message| message.notification.vote.leader);
        let candidates: BTreeSet<Sid> = voted.chain(in_messages).collect();
        let colours = candidates.into_iter().zip(COLOURS.iter().cycle().copied());
        let step = (WIDTH - LEFT - RIGHT) / lanes.len().max(1) as f64;
        let place = |(at, sid): (usize, &Sid)| (*sid, LEFT + step * (at as f64 + 0.5));
        Self {
            lanes: lanes.iter().enumerate().map(place).collect(),
            times,
            colours: colours.collect(),
            start,
            bottom: y + 46.0,
            gaps: Vec::new(),
            svg: String::new(),
        }
    }

    fn x(&self, sid: Sid) -> Option<f64> {
        self.lanes.get(&sid).copied()
    }

    fn y(&self, at: Duration) -> f64 {
        self.times.get(&at).copied().unwrap_or(TOP)
    }

    fn colour(&self, leader: Sid) -> &'static str {
        self.colours.get(&leader).copied().unwrap_or("#777777")
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.svg.write_fmt(element);
        self.svg.push('\n');
    }

    /// The times on the left where there is room for them, and the gaps.
    fn axis(&mut self) {
        let times: Vec<(Duration, f64)> = self.times.iter().map(|(at, y)| (*at, *y)).collect();
        let mut lowest = f64::MIN;
        for (index, (at, y)) in times.iter().enumerate() {
            if let Some((before, above)) = index.checked_sub(1).map(|before| times[before]) {
                if *at - before >= GAP_LABELLED {
                    self.gap(above, *y, *at - before);
                    lowest = f64::MIN;
                }
            }
            if *y - lowest < TICK {
                continue;
            }
            lowest = *y;
            let millis = (*at - self.start).as_secs_f64() * 1000.0;
            let text = if millis < 10.0 {
                format!("{millis:.2}")
            } else {
                format!("{millis:.1}")
            };
            self.put(format_args!(
                r##"<line x1="{LEFT}" x2="{}" y1="{y:.1}" y2="{y:.1}" stroke="#eeeeee"/><text x="{}" y="{:.1}" text-anchor="end" fill="#777777">{text}</text>"##,
                WIDTH - RIGHT,
                LEFT - 10.0,
                y + 4.0,
            ));
        }
    }

    fn gap(&mut self, above: f64, below: f64, length: Duration) {
        let (top, height) = (above + 12.0, below - above - 24.0);
        self.put(format_args!(
            r##"<rect x="{LEFT}" y="{top:.1}" width="{}" height="{height:.1}" fill="#f4f4f4"/>"##,
            WIDTH - LEFT - RIGHT,
        ));
        self.gaps.push(((above + below) / 2.0 + 4.0, length));
    }

    /// The labels of the gaps, drawn over the lanes so that they can be read.
    fn gap_labels(&mut self) {
        let x = (LEFT + WIDTH - RIGHT) / 2.0;
        for (y, length) in std::mem::take(&mut self.gaps) {
            let millis = length.as_millis();
            self.put(format_args!(
                r##"<text x="{x}" y="{y:.1}" text-anchor="middle" fill="#555555" font-style="italic" stroke="#f4f4f4" stroke-width="8" paint-order="stroke">{millis} ms: no better vote arrives</text>"##,
            ));
        }
    }

    /// The lanes, each in the colour of its server's candidate; grey where it is unknown.
    fn lanes(&mut self, entries: &[Entry]) {
        for (sid, x) in self.lanes.clone() {
            let (mut y, mut colour, mut width) = (TOP + 26.0, "#cccccc", 2);
            let own = entries.iter().filter(|entry| entry.own == sid);
            for entry in own {
                if let Fact::Looking { round } = entry.fact {
                    self.put(format_args!(
                        r##"<text x="{x:.1}" y="{:.1}" text-anchor="middle" font-size="11" fill="#777777">looks, round {round}</text>"##,
                        TOP + 19.0,
                    ));
                }
                let next = match entry.fact {
                    Fact::Vote(vote) => (self.colour(vote.leader), 5),
                    Fact::Elected(outcome) => (self.colour(outcome.vote.leader), 9),
                    _ => continue,
                };
                let at = self.y(entry.at);
                self.lane(x, y, at, colour, width);
                y = at;
                (colour, width) = next;
            }
            self.lane(x, y, self.bottom - 26.0, colour, width);
            self.put(format_args!(
                r##"<text x="{x:.1}" y="{:.1}" text-anchor="middle" font-size="15" font-weight="bold" fill="#222222">server {sid}</text>"##,
                TOP + 4.0,
            ));
        }
    }

    fn lane(&mut self, x: f64, from: f64, to: f64, colour: &str, width: u32) {
        self.put(format_args!(
            r##"<line x1="{x:.1}" x2="{x:.1}" y1="{from:.1}" y2="{to:.1}" stroke="{colour}" stroke-width="{width}"/>"##,
        ));
    }

    /// An arrow. It is drawn level if the time of one end is unknown.
    fn message(&mut self, message: &Message) {
        let (Some(from), Some(to)) = (self.x(message.from), self.x(message.to)) else {
            return;
        };
        let vote = message.notification.vote;
        let colour = self.colour(vote.leader);
        let dashes = match message.notification.state {
            State::Looking => "",
            _ => r#" stroke-dasharray="6 4""#,
        };
        let side = (to - from).signum();
        let known = message.sent.or(message.received).map(|at| self.y(at));
        let top = known.unwrap_or(TOP);
        let (x1, mut x2) = (from + 4.0 * side, to - 7.0 * side);
        let mut y2 = message.received.map_or(top, |at| self.y(at));
        let is_lost = message.received.is_none() && message.is_ours;
        if is_lost {
            (x2, y2) = (x1 + 46.0 * side, top);
        }
        let title = format!(
            "{} to {}: {} {}, round {}, zxid {:#x}, epoch {}",
            message.from,
            message.to,
            message.notification.state.name(),
            vote.leader,
            vote.round,
            vote.zxid,
            vote.epoch,
        );
        self.put(format_args!(
            r##"<g><title>{title}</title><line x1="{x1:.1}" y1="{top:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}" stroke-width="1.4"{dashes}/>"##,
        ));
        if is_lost {
            self.put(format_args!(
                r##"<path d="M{:.1} {:.1} l8 8 m0 -8 l-8 8" stroke="{colour}" stroke-width="1.4"/></g>"##,
                x2 - 4.0,
                y2 - 4.0,
            ));
            return;
        }
        let angle = (y2 - top).atan2(x2 - x1).to_degrees();
        let fill = if message.received.is_some() {
            colour
        } else {
            "white"
        };
        self.put(format_args!(
            r##"<path transform="translate({x2:.1} {y2:.1}) rotate({angle:.1})" d="M3 0 L-6 -3.6 L-6 3.6 Z" fill="{fill}" stroke="{colour}"/></g>"##,
        ));
    }

    /// The votes and decisions of the servers.
    fn marks(&mut self, entries: &[Entry]) {
        for entry in entries {
            let Some(x) = self.x(entry.own) else {
                continue;
            };
            let y = self.y(entry.at);
            match entry.fact {
                Fact::Vote(vote) => {
                    let colour = self.colour(vote.leader);
                    let leader = vote.leader;
                    self.put(format_args!(
                        r##"<circle cx="{x:.1}" cy="{y:.1}" r="9" fill="{colour}" stroke="white" stroke-width="1.5"/><text x="{x:.1}" y="{:.1}" text-anchor="middle" fill="white" font-weight="bold">{leader}</text>"##,
                        y + 4.2,
                    ));
                }
                Fact::Elected(outcome) => {
                    let colour = self.colour(outcome.vote.leader);
                    let text = match outcome.state {
                        State::Leading => "LEADING".to_owned(),
                        state => format!("{} {}", state.name(), outcome.vote.leader),
                    };
                    let half = 8.0 + 3.6 * text.len() as f64;
                    self.put(format_args!(
                        r##"<rect x="{:.1}" y="{:.1}" width="{:.1}" height="20" rx="4" fill="{colour}" stroke="white" stroke-width="1.5"/><text x="{x:.1}" y="{:.1}" text-anchor="middle" fill="white" font-weight="bold">{text}</text>"##,
                        x - half,
                        y - 10.0,
                        2.0 * half,
                        y + 4.2,
                    ));
                }
                _ => {}
            }
        }
    }

    /// The title and the legend.
    fn finish(mut self, entries: &[Entry]) -> String {
        let outcome = entries.iter().rev().find_map(|entry| match entry.fact {
            Fact::Elected(outcome) => Some(outcome),
            _ => None,
        });
        let title = match outcome {
            Some(outcome) => format!(
                "Round {}: server {} is elected",
                outcome.vote.round, outcome.vote.leader
            ),
            None => "An election that is not over".to_owned(),
        };
        self.put(format_args!(
            r##"<text x="{LEFT}" y="30" font-size="19" font-weight="bold" fill="#222222">{title}</text>"##,
        ));
        self.put(format_args!(
            r##"<text x="{}" y="{:.1}" text-anchor="end" fill="#777777">ms</text>"##,
            LEFT - 10.0,
            TOP + 4.0,
        ));
        let mut x = LEFT;
        for (leader, colour) in self.colours.clone() {
            self.put(format_args!(
                r##"<circle cx="{:.1}" cy="54" r="8" fill="{colour}"/><text x="{:.1}" y="58">a vote for {leader}</text>"##,
                x + 8.0,
                x + 22.0,
            ));
            x += 112.0;
        }
        self.put(format_args!(
            r##"<text x="{LEFT}" y="84" fill="#555555">arrow: a vote (open: its arrival is unknown); dashed: from a server that has a leader; cross: superseded before it was sent</text>"##,
        ));
        let height = self.bottom;
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" height="{height:.0}" font-family="Helvetica, Arial, sans-serif" font-size="12">
<rect width="{WIDTH}" height="{height:.0}" fill="white"/>
{}</svg>
"##,
            self.svg,
        )
    }
}
