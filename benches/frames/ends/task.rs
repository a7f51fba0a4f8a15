//! The options of one end.

use std::{net::SocketAddr, time::Duration};

use clap::Args;
use quorum_cnx::{Idle, simulation::limits};

use crate::{
    variants::{Mode, Variant},
    workloads::Workload,
};

/// Which of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Listens, receives, answers.
    Serve,
    /// Connects and sends.
    Drive,
}

/// The options of an end.
#[derive(Args, Clone, Debug)]
pub(crate) struct Task {
    /// The workload
    #[arg(long, value_name = "NAME")]
    pub(crate) workload: Workload,

    /// The interface that carries the frames, and how it waits, for example `handler/spin`
    #[arg(long, value_name = "NAME")]
    pub(crate) variant: Variant,

    /// Payload bytes of a frame
    #[arg(long, value_name = "BYTES", default_value_t = 64, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(16..=524_288))]
    pub(crate) size: u32,

    /// Frames given to one call (`stream`)
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) frames_per_call: u32,

    /// Peers (`fan-out`, `contended`), idle links (`many`), managers (`mesh`)
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=16_000))]
    pub(crate) peers: u32,

    /// MB per second that the slow peer reads; 0: nothing (`slow-peer`)
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) slow_mbps: u32,

    /// Entries that not both followers have acknowledged, at most (`mix`)
    #[arg(long, value_name = "N", default_value_t = 1000, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=16_000))]
    pub(crate) in_flight: u32,

    /// Streams beside the heartbeats: none or one (`beats`)
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(0..=1))]
    pub(crate) streams: u32,

    /// The delay of the path each way, of which the warm-up is a multiple (`delayed`)
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) delay_ms: u32,

    /// How long a spinning loop spins before it blocks
    #[arg(long, value_name = "N", default_value_t = 1000, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) spin_us: u32,

    /// Bytes that the kernel may hold unsent in front of the newest frame; 0 leaves it to the kernel, which is the default for
    /// queues [default: 16384]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) unsent_limit: Option<u32>,

    /// Bytes of the receive buffer of the library's links (SO_RCVBUF) [default: the kernel chooses it]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1_073_741_824))]
    pub(crate) receive_buffer: Option<u32>,

    /// Address at which `serve` listens
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,

    /// Address of `serve`, for `drive`
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) to: Option<SocketAddr>,

    /// Gives up after this time in any case [default: 120 more than --seconds]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) at_most: Option<u32>,

    /// Measures for this time when the other end is connected, instead of waiting for `mark` and `stop` on stdin
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: Option<u32>,

    /// Which end; set by the subcommand
    #[arg(skip = Role::Serve)]
    pub(crate) role: Role,
}

/// Default of `--at-most` beyond `--seconds`, in seconds.
const MARGIN: u32 = 120;

impl Task {
    /// An error, in words, if the options contradict each other.
    pub(crate) fn check(&self) -> Result<(), String> {
        let variants = self.workload.variants();
        if !variants.contains(&self.variant) {
            let names: Vec<String> = variants.iter().map(ToString::to_string).collect();
            return Err(format!(
                "--variant {}: `{}` has no such variant; it has {}",
                self.variant,
                self.workload.name(),
                names.join(", ")
            ));
        }
        match (self.seconds, self.at_most) {
            (Some(seconds), Some(at_most)) if at_most <= seconds => Err(format!(
                "--at-most {at_most}: the end would give up before the {seconds} s of --seconds are over"
            )),
            _ => Ok(()),
        }
    }

    /// When to give up, in seconds.
    pub(crate) fn at_most(&self) -> u32 {
        let usual = || MARGIN + self.seconds.unwrap_or(0);
        self.at_most.unwrap_or_else(usual)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.size as usize
    }

    pub(crate) fn spins(&self) -> bool {
        self.variant.mode == Mode::Spin
    }

    pub(crate) fn idle(&self) -> Idle {
        if self.spins() {
            Idle::spin(Duration::from_micros(self.spin_us.into()))
        } else {
            Idle::Block
        }
    }

    /// Whether frames go through a queue instead of a slot.
    fn has_queue(&self) -> bool {
        let is_queue = matches!(self.variant.mode, Mode::Queue | Mode::QueueAlone);
        is_queue || self.workload.is_stream() || self.workload == Workload::Mix
    }

    pub(crate) fn unsent_limit(&self) -> Option<u32> {
        // The defaults of the library.
        let default = if self.has_queue() {
            0
        } else if self.workload == Workload::Beats {
            limits::LANES_UNSENT_LIMIT
        } else {
            limits::UNSENT_LIMIT
        };
        Some(self.unsent_limit.unwrap_or(default)).filter(|bytes| *bytes > 0)
    }

    /// Time after which a silent peer is taken for dead. The slow peer must not be.
    pub(crate) fn dead_after(&self) -> Duration {
        if self.workload == Workload::SlowPeer {
            Duration::from_secs(3600)
        } else {
            limits::PEER_DEAD_AFTER
        }
    }
}
