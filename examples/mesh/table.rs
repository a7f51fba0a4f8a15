//! Builds the table of all servers for a given number of rows and columns. `screen` draws it.

use std::time::Duration;

use quorum_cnx::{Event, Sid};

use crate::{
    SERVERS, VICTIM,
    seen::{Server, State, micros},
    sids,
    terminal::{Line, Style},
};

/// The header and the servers.
pub(crate) const ROWS_MIN: usize = SERVERS + 1;

/// Rows needed for a title and a legend, and for blank lines around them.
const ROWS_WITH_TITLE: usize = ROWS_MIN + 4;
const ROWS_WITH_BLANKS: usize = ROWS_MIN + 12;

/// Blanks between two columns.
const GAP: usize = 2;

struct Column {
    head: &'static str,
    width: usize,
    is_left: bool,
    /// When there is no room, columns with the largest rank are left out first.
    rank: usize,
    cell: fn(Sid, &Server) -> String,
}

const COLUMNS: [Column; 7] = [
    Column {
        head: "server",
        width: 6,
        is_left: false,
        rank: 0,
        cell: |own, _| own.to_string(),
    },
    Column {
        head: "address",
        width: 15,
        is_left: true,
        rank: 6,
        cell: |_, server| server.address.clone(),
    },
    Column {
        head: "links",
        width: 2 * SERVERS,
        is_left: true,
        rank: 1,
        cell: links,
    },
    Column {
        head: "value",
        width: 7,
        is_left: false,
        rank: 5,
        cell: |_, server| server.version.to_string(),
    },
    Column {
        head: "frames/s",
        width: 8,
        is_left: false,
        rank: 2,
        cell: |_, server| last(server, |second| second.len() as u128),
    },
    Column {
        head: "p50 us",
        width: 7,
        is_left: false,
        rank: 3,
        cell: |_, server| last(server, |second| micros(second)[0]),
    },
    Column {
        head: "p99 us",
        width: 7,
        is_left: false,
        rank: 4,
        cell: |_, server| last(server, |second| micros(second)[1]),
    },
];

/// A figure of the last second. A dead server has none; a halted one keeps those of its last second.
fn last(server: &Server, figure: fn(&[Duration]) -> u128) -> String {
    if server.has_died() {
        return "-".into();
    }
    figure(&server.last_second).to_string()
}

/// The links of a server, or why it has none.
fn links(own: Sid, server: &Server) -> String {
    if let Some(absence) = server.absence() {
        return absence.to_owned();
    }
    let mark = |sid| match server.links.get(&sid) {
        _ if sid == own => "  ",
        Some(Event::Up { dialed: true, .. }) => "> ",
        Some(Event::Up { dialed: false, .. }) => "< ",
        _ => ". ",
    };
    sids().map(mark).collect()
}

/// The table at the time `after` the start, with at most so many rows and columns.
pub(crate) fn table(state: &State, after: Duration, rows: usize, columns: usize) -> Vec<Line> {
    let chosen = choose(columns);
    let heads = chosen.iter().map(|column| match column.head {
        "links" => sids().map(|sid| format!("{sid} ")).collect(),
        head => head.to_owned(),
    });
    let mut lines = vec![Line::styled(Style::Bold, &row(&chosen, heads))];
    for (own, server) in &state.servers {
        let text = row(
            &chosen,
            chosen.iter().map(|column| (column.cell)(*own, server)),
        );
        lines.push(match server.absence() {
            Some("dead") => Line::styled(Style::Bad, &text),
            _ => Line::plain(&text),
        });
    }
    if rows >= ROWS_WITH_TITLE {
        let after = after.as_secs_f64();
        let tls = if state.is_secure {
            ", all links TLS"
        } else {
            ""
        };
        let brief = format!("{after:.1} s: {SERVERS} servers in one process{tls}");
        let title = format!("{brief}; {VICTIM} is an EventLoop, the others CnxManagers");
        let title = if title.len() > columns { brief } else { title };
        let legend = "> it dialed, < it was dialed, . no link";
        lines.insert(0, Line::styled(Style::Bold, &title));
        lines.push(Line::styled(Style::Dim, legend));
    }
    if rows >= ROWS_WITH_BLANKS {
        lines.insert(0, Line::plain(""));
        lines.insert(2, Line::plain(""));
        lines.insert(lines.len() - 1, Line::plain(""));
        lines.push(Line::plain(""));
    }
    lines.truncate(rows);
    lines.into_iter().map(|line| line.cut(columns)).collect()
}

/// The columns for which there is room. The two most important ones are always there, and cut if need be.
fn choose(columns: usize) -> Vec<&'static Column> {
    let mut chosen = Vec::from_iter(&COLUMNS);
    let width = |chosen: &[&Column]| -> usize {
        chosen
            .iter()
            .map(|column| column.width + GAP)
            .sum::<usize>()
            - GAP
    };
    while chosen.len() > 2 && width(&chosen) > columns {
        let last = chosen.iter().map(|column| column.rank).max();
        chosen.retain(|column| Some(column.rank) != last);
    }
    chosen
}

fn row(chosen: &[&Column], cells: impl Iterator<Item = String>) -> String {
    let cells = chosen.iter().zip(cells).map(|(column, cell)| {
        let width = column.width;
        if column.is_left {
            format!("{cell:<width$}")
        } else {
            format!("{cell:>width$}")
        }
    });
    let cells: Vec<String> = cells.collect();
    cells.join(&" ".repeat(GAP)).trim_end().to_owned()
}
