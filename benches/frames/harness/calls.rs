//! Counts system calls and wake-ups per frame, in a short round that is traced by `strace`.
//!
//! Times of this round are not used, since tracing is slow. Variants that spin are not counted: their number of calls is arbitrary.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    time::Duration,
};

use serde_json::{Map, Value, json};

use super::{
    measurement::{Traces, measure},
    plan::{Cell, Participant, Plan},
    progress::Progress,
    rounds::{Measured, Series},
};
use crate::{
    failure::{While, failure},
    variants::Mode,
    workloads::Workload,
};

/// Larger cells are not traced: it would take too long.
const PEERS_MAX: u32 = 100;

/// Shortest time of a traced measurement: a traced program is slow.
const TIME_MIN: Duration = Duration::from_millis(300);

/// Counts for all participants that block, in the smallest cells. A failure is reported, and does not fail the run.
pub(crate) fn count(plan: &Plan, progress: &Progress) -> io::Result<Vec<Measured>> {
    let is_there = |status: io::Result<process::ExitStatus>| status.is_ok_and(|it| it.success());
    let mut strace = Command::new("strace");
    strace.arg("-V").stdin(Stdio::null()).stdout(Stdio::null());
    if !is_there(strace.stderr(Stdio::null()).status()) {
        progress.print("note: no system calls per frame: `strace` is not installed");
        return Ok(Vec::new());
    }
    let mut counted = Vec::new();
    for (cell, participants) in chosen(plan) {
        let mut measured = Measured {
            cell,
            series: Vec::new(),
        };
        for participant in participants {
            if plan.is_over() {
                progress.print("note: some system calls were not counted: the time was over");
                return Ok(counted);
            }
            progress.begin(cell, &participant);
            match once(plan, cell, &participant) {
                Ok(calls) => measured.series.push(Series {
                    participant,
                    rounds: vec![Some(calls)],
                }),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) => progress.print(&format!("note: no system calls counted: {error}")),
            }
        }
        counted.push(measured);
    }
    Ok(counted)
}

/// The cells to trace: the first size of each workload that counts frames.
fn chosen(plan: &Plan) -> Vec<(Cell, Vec<Participant>)> {
    let mut chosen: Vec<(Cell, Vec<Participant>)> = Vec::new();
    for (cell, participants) in &plan.cells {
        let first = chosen
            .iter()
            .find(|(other, _)| other.workload == cell.workload);
        let is_other_size = first.is_some_and(|(first, _)| first.size != cell.size);
        // A test traces one cell, a quick run one of each workload.
        let is_left_out =
            (plan.is_brief && first.is_some()) || (plan.is_test && !chosen.is_empty());
        if frames_key(cell.workload).is_none()
            || is_other_size
            || is_left_out
            || cell.count > PEERS_MAX
        {
            continue;
        }
        let spins = |mode: Mode| matches!(mode, Mode::Spin | Mode::Watch | Mode::Chunks);
        let blocks =
            |participant: &&Participant| participant.variant().is_some_and(|it| !spins(it.mode));
        chosen.push((*cell, participants.iter().filter(blocks).cloned().collect()));
    }
    chosen
}

/// The key of the result that counts frames, and the frames per unit of it.
fn frames_key(workload: Workload) -> Option<(&'static str, f64)> {
    match workload {
        Workload::Latency => Some(("round_trips", 2.0)),
        Workload::Latest | Workload::Lossless | Workload::Stream => Some(("delivered", 1.0)),
        Workload::FanOut | Workload::Contended => Some(("delivered", 1.0)),
        Workload::Many
        | Workload::SlowPeer
        | Workload::Mesh
        | Workload::Mix
        | Workload::Beats
        | Workload::Delayed => None,
    }
}

fn once(plan: &Plan, cell: Cell, participant: &Participant) -> io::Result<Map<String, Value>> {
    let files = [Trace::new("drive"), Trace::new("serve")];
    let [drive, serve] = &files;
    let traces = Traces {
        serve: &serve.0,
        drive: &drive.0,
    };
    let results = measure(
        plan,
        cell,
        participant,
        plan.time.max(TIME_MIN),
        Some(traces),
    )?;
    let (key, each) = frames_key(cell.workload).unwrap_or(("", 1.0));
    let frames = results.get(key).and_then(Value::as_f64).unwrap_or(0.0) * each;
    let [drive, serve] = [drive.read()?, serve.read()?];
    let mut calls = Map::new();
    let mut add = |key: &str, n: u64| calls.insert(key.into(), json!(n as f64 / frames.max(1.0)));
    add("calls_per_frame", drive.calls + serve.calls);
    add("drive_calls_per_frame", drive.calls);
    add("serve_calls_per_frame", serve.calls);
    add("wakes_per_frame", drive.wakes + serve.wakes);
    Ok(calls)
}

/// A trace file, removed when dropped.
struct Trace(PathBuf);

/// The counts of a trace between `mark` and `stop`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Calls {
    calls: u64,
    wakes: u64,
}

impl Trace {
    fn new(side: &str) -> Self {
        let name = format!("quorum-cnx-frames-{}-{side}.trace", process::id());
        Self(env::temp_dir().join(name))
    }

    fn read(&self) -> io::Result<Calls> {
        let path: &Path = &self.0;
        let text = fs::read(path).context(format_args!("reading {}", path.display()))?;
        Ok(count_lines(&String::from_utf8_lossy(&text)))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Fails if the file was never created.
        let _ = fs::remove_file(&self.0);
    }
}

/// Counts calls. Each has a line that begins with the number of its thread; an interrupted one has a second line.
fn count_lines(text: &str) -> Calls {
    let mut counted = Calls::default();
    let mut is_measured = false;
    for line in text.lines() {
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        // `mark` and `stop` are read from stdin.
        if call.contains("read") && call.contains("\"mark\\n\"") {
            counted = Calls::default();
            is_measured = true;
            continue;
        }
        if call.contains("read") && call.contains("\"stop\\n\"") {
            break;
        }
        if !is_measured || !call.starts_with(|c: char| c.is_ascii_lowercase()) {
            continue;
        }
        counted.calls += 1;
        let is_eventfd = call.starts_with("write(") && call.contains(r#", "\1\0\0\0\0\0\0\0", 8"#);
        let is_futex = call.starts_with("futex(") && call.contains("FUTEX_WAKE");
        counted.wakes += u64::from(is_eventfd || is_futex);
    }
    counted
}

/// Tests the parsing of each kind of line.
pub(super) fn check() -> io::Result<()> {
    let text = r#"
10 write(4, "early", 5) = 5
11 read(0, "mark\n", 8192) = 5
10 write(4, "\0\0\0@", 68 <unfinished ...>
12 write(5, "\1\0\0\0\0\0\0\0", 8) = 8
10 <... write resumed>) = 68
12 futex(0x7f, FUTEX_WAKE_PRIVATE, 1) = 1
12 futex(0x7f, FUTEX_WAIT_PRIVATE, 1, NULL) = 0
12 --- SIGCHLD {si_signo=SIGCHLD} ---
11 <... read resumed>"stop\n", 8192) = 5
12 write(4, "late", 4) = 4
"#;
    let counted = count_lines(text);
    let expected = Calls { calls: 4, wakes: 2 };
    if counted != expected {
        return Err(failure(format_args!(
            "{counted:?} in a trace that has {expected:?}"
        )));
    }
    Ok(())
}
