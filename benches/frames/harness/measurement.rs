//! Runs one measurement: starts two ends, sends `mark` and `stop` to both, and reaps them.
//!
//! Every step has a deadline, after which the ends are killed.

use std::{
    env,
    ffi::OsString,
    io,
    path::Path as FilePath,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Map, Value};

use super::{
    child::{Process, check_interrupt},
    end::End,
    path::Path,
    plan::{Cell, Participant, Plan},
    watch::Watch,
};
use crate::{
    cli::Placement,
    ends::{Order, Role, Task},
    failure::{While, failure},
    variants::Variant,
    workloads::Workload,
};

/// Time for an end to become ready. A Java virtual machine starts and warms up in it.
const READY: Duration = Duration::from_secs(60);

/// The same, when the time of the whole run is nearly over.
const READY_AT_LEAST: Duration = Duration::from_secs(5);

/// Time for an end to return its results. A mesh of many managers is completed first.
const RESULTS: Duration = Duration::from_secs(30);

/// A delayed stream is measured for at least so many round trips, since it arrives in bursts, one in each: one more or less is then 2 %.
const ROUND_TRIPS_MIN: u32 = 50;

/// Time after the measurement when an end exits by itself, if nothing else ends it.
const MARGIN: Duration = Duration::from_secs(120);

/// With so many peers or more, an end needs more descriptors than the usual limit.
const MANY_PEERS: u32 = 100;

/// Raises the limit of descriptors as far as possible, then executes the rest of the command.
const RAISE_LIMIT: &str = "ulimit -n \"$(ulimit -H -n)\"; exec \"$0\" \"$@\"";

/// The trace files of the two ends, if their system calls are counted.
#[derive(Clone, Copy)]
pub(crate) struct Traces<'a> {
    pub(crate) serve: &'a FilePath,
    pub(crate) drive: &'a FilePath,
}

/// Measures once for this time. Returns the results of both ends.
pub(crate) fn measure(
    plan: &Plan,
    cell: Cell,
    participant: &Participant,
    time: Duration,
    traces: Option<Traces<'_>>,
) -> io::Result<Map<String, Value>> {
    if let (Participant::Contender(contender), Workload::Mesh) = (participant, cell.workload) {
        let command = contender.mesh_command(cell.count);
        let end = End::Process(Process::start(
            format!("{} mesh", participant.name()),
            &command,
        )?);
        let results = end.read_answer("results", RESULTS)?;
        end.end()?;
        return Ok(results);
    }
    if cell.workload != Workload::Delayed {
        return measure_ends(plan, cell, participant, time, traces, None);
    }
    // In a thread of its own: this one stays in its namespace.
    let delay = Duration::from_millis(cell.count.into());
    let time = time.max(2 * delay * ROUND_TRIPS_MIN);
    let measured = thread::scope(|scope| {
        let measure = || {
            let path = Path::enter(delay)?;
            measure_ends(plan, cell, participant, time, traces, Some(path))
        };
        scope.spawn(measure).join()
    });
    measured.unwrap_or_else(|_| Err(failure("the thread of the measurement has panicked")))
}

/// Starts both ends, and measures once.
fn measure_ends(
    plan: &Plan,
    cell: Cell,
    participant: &Participant,
    time: Duration,
    traces: Option<Traces<'_>>,
    mut path: Option<Path>,
) -> io::Result<Map<String, Value>> {
    let start = |role, to| start(plan, cell, participant, role, to, traces);
    let mut ends = Vec::new();
    let mut to = None;
    if cell.workload.has_two_ends() {
        let serve = start(Role::Serve, None)?;
        to = Some(ready(plan, &serve)?);
        ends.push(serve);
    }
    let drive = start(Role::Drive, to.clone())?;
    ready(plan, &drive)?;
    // The sender stops first: its peer must be there until then.
    ends.insert(0, drive);
    for end in &mut ends {
        end.order(Order::Mark)?;
    }
    if let Some(path) = &mut path {
        path.mark();
    }
    let mut watch = match (&ends[..], &to) {
        ([drive, serve], Some(at)) if cell.workload.is_stream() && traces.is_none() => {
            let ends = serve.process().zip(drive.process());
            ends.map(|(serve, drive)| Watch::start(serve, drive, at))
        }
        _ => None,
    };
    pause(time, watch.as_mut())?;
    if let Some(path) = &path {
        path.check()?;
    }
    let mut seen = watch.map_or_else(Map::new, Watch::results);
    seen.extend(path.iter().flat_map(Path::results));
    for end in &mut ends {
        end.order(Order::Stop)?;
    }
    let mut results = Map::new();
    for end in &ends {
        results.extend(end.read_answer("results", RESULTS)?);
    }
    results.extend(seen);
    for end in ends {
        end.end()?;
    }
    Ok(results)
}

fn ready(plan: &Plan, end: &End) -> io::Result<String> {
    let within = plan.left().clamp(READY_AT_LEAST, READY);
    let answer = end.read_answer("`ready`", within)?;
    match answer.get("ready") {
        Some(Value::String(at)) => Ok(at.clone()),
        _ => Err(failure(format_args!(
            "`{}` instead of `ready`",
            Value::from(answer)
        ))),
    }
}

/// Sleeps, and looks at what is watched; an interrupt ends it.
fn pause(time: Duration, mut watch: Option<&mut Watch>) -> io::Result<()> {
    let deadline = Instant::now() + time;
    loop {
        check_interrupt()?;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(match &mut watch {
            Some(watch) => watch.look(),
            None => Duration::from_millis(50),
        }));
    }
}

fn start(
    plan: &Plan,
    cell: Cell,
    participant: &Participant,
    role: Role,
    to: Option<String>,
    traces: Option<Traces<'_>>,
) -> io::Result<End> {
    let side = match role {
        Role::Serve => "serve",
        Role::Drive => "drive",
    };
    let name = format!("{} {} {side}", cell.workload.name(), participant.name());
    match participant {
        Participant::Own(variant) if plan.one_process => {
            let task = task(plan, cell, *variant, role, to.as_deref())?;
            Ok(End::thread(name, task))
        }
        _ => {
            let mut command = prefix(plan, cell, role, traces);
            command.extend(program(participant)?);
            command.extend(arguments(plan, cell, participant, side, to));
            Ok(End::Process(Process::start(name, &command)?))
        }
    }
}

/// The part of the command line in front of the program, the same for all participants.
fn prefix(plan: &Plan, cell: Cell, role: Role, traces: Option<Traces<'_>>) -> Vec<OsString> {
    let mut command: Vec<OsString> = Vec::new();
    if cell.count >= MANY_PEERS || cell.workload == Workload::Mesh {
        command.extend(["sh", "-c", RAISE_LIMIT].map(OsString::from));
    }
    let processor = match (plan.placement(cell.workload), role) {
        (Placement::Free, _) => None,
        (Placement::Split, Role::Serve) => Some("1"),
        (Placement::Split | Placement::Same, _) => Some("0"),
    };
    if let Some(processor) = processor {
        command.extend(["taskset", "-c", processor].map(OsString::from));
    }
    if let Some(traces) = traces {
        command.extend(["strace", "-f", "-s", "16", "-o"].map(OsString::from));
        command.push(match role {
            Role::Serve => traces.serve.into(),
            Role::Drive => traces.drive.into(),
        });
    }
    command
}

fn program(participant: &Participant) -> io::Result<Vec<OsString>> {
    match participant {
        Participant::Own(_) => {
            let own = env::current_exe().context("finding the own executable")?;
            Ok(vec![own.into()])
        }
        Participant::Contender(contender) => Ok(contender.command.clone()),
    }
}

fn arguments(
    plan: &Plan,
    cell: Cell,
    participant: &Participant,
    side: &str,
    to: Option<String>,
) -> Vec<OsString> {
    let at_most = (plan.longer() + MARGIN).as_secs();
    let mut arguments = vec![
        side.to_owned(),
        "--workload".into(),
        cell.workload.name().into(),
        "--variant".into(),
        participant
            .variant()
            .map_or_else(|| "default".into(), |variant| variant.to_string()),
        "--size".into(),
        cell.size.to_string(),
        "--at-most".into(),
        at_most.to_string(),
    ];
    let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
    match cell.workload {
        Workload::Stream => add("--frames-per-call", cell.count.to_string()),
        Workload::SlowPeer => add("--slow-mbps", cell.count.to_string()),
        Workload::FanOut | Workload::Many | Workload::Mesh | Workload::Contended => {
            add("--peers", cell.count.to_string());
        }
        Workload::Mix => add("--in-flight", cell.count.to_string()),
        Workload::Beats => add("--streams", cell.count.to_string()),
        Workload::Delayed => add("--delay-ms", cell.count.to_string()),
        Workload::Latency | Workload::Latest | Workload::Lossless => {}
    }
    if participant.variant().is_some() {
        add("--spin-us", plan.spin_us.to_string());
        if let Some(bytes) = plan.unsent_limit {
            add("--unsent-limit", bytes.to_string());
        }
        if let Some(bytes) = plan.receive_buffer {
            add("--receive-buffer", bytes.to_string());
        }
    }
    if let Some(to) = to {
        add("--to", to);
    }
    arguments.into_iter().map(OsString::from).collect()
}

/// The same as [`arguments`], for an end in this process.
fn task(
    plan: &Plan,
    cell: Cell,
    variant: Variant,
    role: Role,
    to: Option<&str>,
) -> io::Result<Task> {
    let to = to.map(str::parse).transpose().context("where to connect")?;
    Ok(Task {
        workload: cell.workload,
        variant,
        size: cell.size,
        frames_per_call: match cell.workload {
            Workload::Stream => cell.count,
            _ => 1,
        },
        peers: cell.count.max(1),
        slow_mbps: cell.count,
        in_flight: cell.count.max(1),
        streams: cell.count.min(1),
        delay_ms: match cell.workload {
            Workload::Delayed => cell.count,
            _ => 0,
        },
        spin_us: plan.spin_us,
        unsent_limit: plan.unsent_limit,
        receive_buffer: plan.receive_buffer,
        listen: ([127, 0, 0, 1], 0).into(),
        to,
        at_most: Some((plan.longer() + MARGIN).as_secs() as u32),
        seconds: None,
        role,
    })
}
