//! One command line for the programs to which the library is compared.
//!
//! The harness `benches/frames` drives them in the same way as the library, by the protocol in `control`.

mod beats;
mod by_hand;
#[path = "../../frames/ends/certificates.rs"]
mod certificates;
mod control;
mod meter;
mod mix;
#[path = "../../frames/output.rs"]
mod output;
mod payload;
mod with_java;
mod with_message_io;
mod with_tasks;
mod with_tokio;
mod with_zmq;

use std::{ffi::OsString, io, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// One end of a connection that is made without quorum-cnx, or by quorum-cnx in tasks of tokio.
#[derive(Debug, Parser)]
#[command(name = "compare", version)]
struct Cli {
    #[command(subcommand)]
    contender: Contender,
}

#[derive(Debug, Subcommand)]
enum Contender {
    /// Lists the contenders that can run here, as JSON
    List,
    /// tokio's current_thread runtime and the codecs of tokio-util
    Tokio {
        #[command(subcommand)]
        role: Role,
    },
    /// The same with TLS, by tokio-rustls
    TokioRustls {
        #[command(subcommand)]
        role: Role,
    },
    /// quorum-cnx: a task of tokio that receives from a manager
    RecvAsync {
        #[command(subcommand)]
        role: Role,
    },
    /// quorum-cnx, whose messages reach a task of tokio by tokio's channel
    RecvChannel {
        #[command(subcommand)]
        role: Role,
    },
    /// quorum-cnx: an event loop in an AsyncFd of tokio
    AsyncFd {
        #[command(subcommand)]
        role: Role,
    },
    /// tokio's sockets without a codec, as an expert uses them
    TokioByHand {
        #[command(subcommand)]
        role: Role,
    },
    /// libzmq: PAIR, and PUSH to PULL
    Libzmq {
        #[command(subcommand)]
        role: Role,
    },
    /// libzmq with ZMQ_CONFLATE
    LibzmqConflate {
        #[command(subcommand)]
        role: Role,
    },
    /// message-io's FramedTcp
    MessageIo {
        #[command(subcommand)]
        role: Role,
    },
    /// ZooKeeper's own QuorumCnxManager, from Debian's jars: serve, drive, or mesh --managers N
    Java {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// The same, from the jars in ZOOKEEPER_CLASSPATH
    JavaGiven {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

#[derive(Clone, Debug, Subcommand)]
enum Role {
    /// Listens
    Serve {
        /// Address to listen at
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
        listen: String,

        #[command(flatten)]
        task: Task,
    },
    /// Connects, and sends
    Drive {
        /// Address of the other end
        #[arg(long, value_name = "HOST:PORT")]
        to: String,

        #[command(flatten)]
        task: Task,
    },
}

/// The options of both ends.
#[derive(Clone, Debug, Args)]
struct Task {
    #[arg(long)]
    workload: Workload,

    /// The variant, for contenders with several; `README.md` lists them
    #[arg(long, default_value = "default")]
    variant: String,

    /// Bytes of a payload
    #[arg(long, value_name = "BYTES", default_value_t = 64, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=524_288))]
    size: u32,

    /// Frames per call, if the contender supports it
    #[arg(long, value_name = "K", default_value_t = 64, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    frames_per_call: u32,

    /// Entries that not both followers have acknowledged, at most (`mix`)
    #[arg(long, value_name = "N", default_value_t = 1000, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: u32,

    /// Streams beside the heartbeats: none or one (`beats`)
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(0..=1))]
    streams: u32,

    /// Receivers; no contender supports more than one
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1))]
    peers: u32,

    /// Exits after this time in any case
    #[arg(long, value_name = "SECONDS", default_value_t = 120, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    at_most: u32,
}

impl Task {
    fn bytes(&self) -> usize {
        self.size as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Ping-pong: one frame at a time
    Latency,
    /// A sender that never waits; the newest frame wins
    Latest,
    /// A sender that waits until the frame before is written
    Lossless,
    /// Every frame arrives, with as many per call as possible
    Stream,
    /// A leader that sends entries to two followers, each of which acknowledges them; the leader is `serve`
    Mix,
    /// Heartbeats beside a stream, each over a connection of its own
    Beats,
}

fn main() -> ExitCode {
    let done = match Cli::parse().contender {
        Contender::List => list(),
        Contender::Tokio { role } => control::run(role, with_tokio::run),
        Contender::TokioRustls { role } => control::run(role, with_tokio::run_tls),
        Contender::RecvAsync { role } => control::run(role, with_tasks::run_recv_async),
        Contender::RecvChannel { role } => control::run(role, with_tasks::run_channel),
        Contender::AsyncFd { role } => control::run(role, with_tasks::run_async_fd),
        Contender::TokioByHand { role } => control::run(role, by_hand::run),
        Contender::Libzmq { role } => control::run(role, with_zmq::run),
        Contender::LibzmqConflate { role } => control::run(role, with_zmq::run_conflated),
        Contender::MessageIo { role } => control::run(role, with_message_io::run),
        Contender::Java { arguments } => with_java::run(with_java::Jars::Debian, &arguments),
        Contender::JavaGiven { arguments } => with_java::run(with_java::Jars::Given, &arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(format_args!("compare: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Lists what can run. For the rest, the reason is printed to standard error.
fn list() -> io::Result<()> {
    let contender = |name: &str, command: &str, workloads: &[&str]| serde_json::json!({"name": name, "command": [command], "workloads": workloads});
    let mut list = vec![
        contender(
            "tokio",
            "tokio",
            &["latency", "latest", "lossless", "stream", "mix", "beats"],
        ),
        contender("tokio-rustls", "tokio-rustls", &["latency", "stream"]),
        contender(
            "tokio-by-hand",
            "tokio-by-hand",
            &["latency", "stream", "mix"],
        ),
        contender("recv-async", "recv-async", &["latency"]),
        contender("recv-channel", "recv-channel", &["latency"]),
        contender("async-fd", "async-fd", &["latency"]),
        contender(
            "libzmq",
            "libzmq",
            &["latency", "latest", "lossless", "stream"],
        ),
        contender("libzmq-conflate", "libzmq-conflate", &["latest"]),
        contender(
            "message-io",
            "message-io",
            &["latency", "lossless", "stream"],
        ),
    ];
    for (jars, command) in [
        (with_java::Jars::Debian, "java"),
        (with_java::Jars::Given, "java-given"),
    ] {
        match with_java::version(jars) {
            Ok(Some(version)) => {
                let mut name = format!("zookeeper-{version}");
                if list.iter().any(|other| other["name"] == name) {
                    name += "-given";
                }
                list.push(contender(
                    &name,
                    command,
                    &["latency", "latest", "lossless"],
                ));
            }
            Ok(None) => {}
            Err(why) => output::print_error(format_args!("compare: no {command}: {why}")),
        }
    }
    output::print_line(serde_json::Value::from(list))?;
    Ok(())
}
