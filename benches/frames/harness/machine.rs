//! Records the machine and the settings of a run. What cannot be found out is recorded as unknown.

use std::{
    fmt, fs,
    process::Command,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};

use super::{
    contenders::Contender,
    namespace::{self, Network},
    plan::Plan,
};
use crate::cli::Placement;

/// Width of the values, so that the lines are as wide as the tables.
const VALUE_WIDTH: usize = 80;

/// Names and values, printed above the tables and written to the file.
#[derive(Debug)]
pub(crate) struct Record(Vec<(&'static str, String)>);

impl Record {
    pub(crate) fn new(plan: &Plan, network: Network, contenders: &[Contender]) -> Self {
        let processors = thread::available_parallelism().map_or(0, usize::from);
        let mut record = vec![
            ("date", date()),
            ("processor", format!("{processors} x {}", processor())),
            ("caches", caches()),
            ("kernel", kernel()),
            ("rustc", first_line("rustc", &["--version"])),
            ("quorum-cnx", env!("CARGO_PKG_VERSION").into()),
            ("congestion_control", namespace::congestion_control()),
            ("network", network.to_string()),
            ("placement", placement(plan)),
            ("rounds", plan.rounds.to_string()),
            ("time_ms", plan.time.as_millis().to_string()),
            ("spin_us", plan.spin_us.to_string()),
            ("unsent_limit", bytes_or_default(plan.unsent_limit)),
            ("receive_buffer", bytes_or_default(plan.receive_buffer)),
            (
                "processes",
                if plan.one_process { "one" } else { "two" }.into(),
            ),
        ];
        if !contenders.is_empty() {
            let names: Vec<&str> = contenders.iter().map(|one| &*one.name).collect();
            record.push(("contenders", names.join(", ")));
            record.push(("java", first_line("java", &["-version"])));
        }
        Self(record)
    }

    pub(crate) fn to_json(&self) -> Value {
        let pairs = self.0.iter();
        let map: Map<String, Value> = pairs
            .map(|(key, value)| ((*key).to_owned(), json!(value)))
            .collect();
        map.into()
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in &self.0 {
            let (mut line, mut width) = (format!("{:20}", key.replace('_', " ")), 0);
            for word in value.split(' ') {
                if width > 0 && width + word.len() > VALUE_WIDTH {
                    line.push_str(&format!("\n{:20}", ""));
                    width = 0;
                }
                line.push_str(word);
                line.push(' ');
                width += word.len() + 1;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The placement of each workload: `split: latency, many; free: mesh`.
fn placement(plan: &Plan) -> String {
    let mut groups: Vec<(Placement, Vec<&str>)> = Vec::new();
    for (cell, _) in &plan.cells {
        let (placement, name) = (plan.placement(cell.workload), cell.workload.name());
        match groups.iter_mut().find(|(other, _)| *other == placement) {
            Some((_, names)) if names.contains(&name) => {}
            Some((_, names)) => names.push(name),
            None => groups.push((placement, vec![name])),
        }
    }
    let text = |(placement, names): &(Placement, Vec<&str>)| {
        format!(
            "{}: {}",
            format!("{placement:?}").to_lowercase(),
            names.join(", ")
        )
    };
    let texts: Vec<String> = groups.iter().map(text).collect();
    texts.join("; ")
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find(|line| line.starts_with("model name"));
    let name = model.and_then(|line| line.split_once(':'));
    name.map_or_else(
        || std::env::consts::ARCH.into(),
        |(_, name)| name.trim().into(),
    )
}

/// The caches of the first processor: `L1 Data 32K, L1 Instruction 32K, L2 Unified 512K, L3 Unified 32768K`.
fn caches() -> String {
    let of = |index: u32| {
        let read = |name: &str| {
            let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}");
            fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .ok()
        };
        let (level, kind, size) = (read("level")?, read("type")?, read("size")?);
        Some(format!("L{level} {kind} {size}"))
    };
    let caches: Vec<String> = (0..8).map_while(of).collect();
    if caches.is_empty() {
        return "unknown".into();
    }
    caches.join(", ")
}

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {}", std::env::consts::OS, release.trim())
}

/// The first line of a program's standard output or standard error.
fn first_line(program: &str, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        return "unknown".into();
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

/// The present date and time in UTC.
fn bytes_or_default(bytes: Option<u32>) -> String {
    bytes.map_or_else(|| "default".into(), |bytes| bytes.to_string())
}

fn date() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    let is_leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute) = (of_day / 3600, of_day / 60 % 60);
    format!(
        "{year}-{month:02}-{:02} {hour:02}:{minute:02} UTC",
        days + 1
    )
}
