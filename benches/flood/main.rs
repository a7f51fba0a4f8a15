//! `cargo bench -p quorum-cnx-benches --features tls --bench flood`: round trips of two members, each a process, while strangers make
//! full handshakes: with one of the members, and in turn with a bare acceptor of rustls in a process beside them.
//!
//! The strangers have a certificate of the members' CA with another name, so that no handshake is cut short. Nothing is asserted about
//! time. Without `--bench` this is a test that all of it runs.

#[path = "../frames/ends/certificates.rs"]
mod certificates;
mod member;
mod strangers;

use std::{
    env,
    error::Error,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use member::Pinger;

/// The member that strangers connect to, and the other one.
const TARGET: i64 = 1;
const OTHER: i64 = 2;

/// Handshakes a second that the strangers begin. `None`: as many as two threads can make.
const RATES: [Option<u32>; 3] = [Some(500), Some(1500), None];

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["member", other] => member::run(other),
        ["acceptor"] => strangers::accept(),
        ["strangers", to, rate, ms] => {
            let rate: u32 = rate.parse()?;
            let time = Duration::from_millis(ms.parse()?);
            strangers::flood(to, (rate > 0).then_some(rate), time)
        }
        _ if arguments.contains(&"--bench") => measure(5, Duration::from_millis(1500)),
        _ => measure(1, Duration::from_millis(50)),
    }
}

/// What is measured at one time.
struct Row {
    name: String,
    to: Option<(String, Option<u32>)>,
    /// Of each round: handshakes a second; the median, the 99th percentile and the longest of the round trips, in microseconds.
    rounds: Vec<[f64; 4]>,
}

fn measure(rounds: usize, time: Duration) -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut target = Process::start(&["member", &listener.local_addr()?.to_string()])?;
    let mut acceptor = Process::start(&["acceptor"])?;
    let (target_at, acceptor_at) = (target.line()?, acceptor.line()?);
    let mut pinger = Pinger::new(listener, &target_at)?;
    let mut rows = vec![Row::new("no strangers".to_owned(), None)];
    for rate in RATES {
        let rate_text = match rate {
            Some(rate) => format!("{rate} a second"),
            None => "all they can".to_owned(),
        };
        for (place, at) in [("a member", &target_at), ("a bare acceptor", &acceptor_at)] {
            let name = format!("{rate_text}, with {place}");
            rows.push(Row::new(name, Some((at.clone(), rate))));
        }
    }
    for _ in 0..rounds {
        for row in &mut rows {
            row.measure(&mut pinger, time)?;
        }
    }
    println!("{:34} handshakes/s   p50 us   p99 us   max us", "strangers");
    for row in &rows {
        let [rate, p50, p99, max] = row.medians();
        println!("{:34} {rate:12.0} {p50:8.0} {p99:8.0} {max:8.0}", row.name);
    }
    Ok(())
}

impl Row {
    fn new(name: String, to: Option<(String, Option<u32>)>) -> Self {
        let rounds = Vec::new();
        Self { name, to, rounds }
    }

    fn measure(&mut self, pinger: &mut Pinger, time: Duration) -> Outcome<()> {
        let mut strangers = match &self.to {
            Some((to, rate)) => {
                let (rate, ms) = (rate.unwrap_or(0), time.as_millis());
                let arguments = ["strangers", to, &rate.to_string(), &ms.to_string()];
                let mut strangers = Process::start(&arguments)?;
                // They begin now.
                strangers.line()?;
                Some(strangers)
            }
            None => None,
        };
        let mut times = pinger.run(time)?;
        let made: u32 = match &mut strangers {
            Some(strangers) => strangers.line()?.parse()?,
            None => 0,
        };
        times.sort_unstable();
        let (Some(max), p50, p99) = (
            times.last(),
            times.get(times.len() / 2),
            times.get(times.len() * 99 / 100),
        ) else {
            return Err("there was no round trip".into());
        };
        let us = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e6);
        let rate = f64::from(made) / time.as_secs_f64();
        self.rounds.push([rate, us(p50), us(p99), us(Some(max))]);
        Ok(())
    }

    fn medians(&self) -> [f64; 4] {
        [0, 1, 2, 3].map(|figure: usize| {
            let mut figures: Vec<f64> = self.rounds.iter().map(|round| round[figure]).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        })
    }
}

/// This program in another process, with another part.
struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(arguments: &[&str]) -> Outcome<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        Ok(Self { child, stdout })
    }

    /// The next line that it prints.
    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Err("a process has ended".into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends this process when the one that has started it is gone.
fn end_with_parent() {
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
}
