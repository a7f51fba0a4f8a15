//! A checked configuration, as the loop and the manager read it.
//!
//! Nothing here checks a value. `validate` has done so before anything starts.

use std::{
    fmt,
    net::{IpAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use super::policy::{Dial, Idle, Outbox, Replace, Unknown};
#[cfg(feature = "tls")]
use crate::tls::TlsContext;
use crate::{
    inbox::{InboxFull, Room},
    limits,
    proto::{Address, InitialMessageVersion, Sid},
};

/// A server of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) sid: Sid,
    pub(crate) addresses: Vec<Address>,
}

/// A checked configuration, from [`Config::builder`] or [`Config::from_zoo_cfg`].
///
/// A clone does not have the sockets that were handed over with [`ConfigBuilder::listener`](crate::ConfigBuilder::listener), since
/// a socket has one owner. It listens where the other options say.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) own: Sid,
    /// This server's advertised addresses.
    pub(crate) own_addresses: Vec<Address>,
    /// Where to listen: `own_addresses`, unless the application has set other addresses.
    pub(crate) listen: Vec<Address>,
    pub(crate) sockets: Sockets,
    /// All other servers, sorted by sid.
    pub(crate) members: Vec<Server>,
    pub(crate) options: Options,
}

/// Where this server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listens {
    OnOwn,
    /// On the wildcard address with each own port.
    OnAllIps,
    /// At addresses that the application has set, whatever the own ones are.
    Elsewhere,
}

/// Listening sockets that were handed over. A clone has none of them.
#[derive(Debug, Default)]
pub(crate) struct Sockets(pub(crate) Vec<TcpListener>);

impl Clone for Sockets {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// A function of the application, which the thread of a manager's loop calls once. All clones of a configuration share it.
#[derive(Clone)]
pub(crate) struct OnLoopStart(pub(crate) Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for OnLoopStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnLoopStart")
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) initial_message: InitialMessageVersion,
    pub(crate) native_only: bool,
    pub(crate) cluster_id: [u8; 16],
    pub(crate) dial: Dial,
    pub(crate) replace: Replace,
    pub(crate) unknown: Unknown,
    pub(crate) idle: Idle,
    pub(crate) outbox: Outbox,
    pub(crate) connect_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) peer_dead_after: Duration,
    pub(crate) ping_every: Option<Duration>,
    pub(crate) listen_tries: u32,
    pub(crate) listen_pause: Duration,
    pub(crate) inbox_full: InboxFull,
    pub(crate) inbox_frames: usize,
    pub(crate) inbox_bytes: usize,
    /// Where to listen when the own addresses change.
    pub(crate) listens: Listens,
    pub(crate) observers_max: usize,
    /// How many servers, this one included, may be members or leave at one time. `build` replaces 0, the default.
    pub(crate) members_max: usize,
    pub(crate) pending_max: usize,
    pub(crate) unsent_limit: Option<u32>,
    pub(crate) receive_buffer: Option<usize>,
    pub(crate) congestion_control: Option<String>,
    pub(crate) dial_from: Option<IpAddr>,
    pub(crate) seed: Option<u64>,
    /// `None` exactly when this server does not speak TLS.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Arc<TlsContext>>,
    pub(crate) on_loop_start: Option<OnLoopStart>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            initial_message: InitialMessageVersion::default(),
            native_only: false,
            cluster_id: [0; 16],
            dial: Dial::default(),
            replace: Replace::default(),
            unknown: Unknown::default(),
            idle: Idle::default(),
            outbox: Outbox::default(),
            connect_timeout: limits::CONNECT_TIMEOUT,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            backoff_min: limits::BACKOFF_MIN,
            backoff_max: limits::BACKOFF_MAX,
            peer_dead_after: limits::PEER_DEAD_AFTER,
            ping_every: None,
            listen_tries: 0,
            listen_pause: limits::LISTEN_PAUSE,
            inbox_full: InboxFull::DropOldest,
            inbox_frames: limits::INBOX_FRAMES,
            inbox_bytes: limits::INBOX_BYTES,
            listens: Listens::OnOwn,
            observers_max: 0,
            members_max: 0,
            pending_max: limits::PENDING_MAX,
            unsent_limit: None,
            receive_buffer: None,
            congestion_control: None,
            dial_from: None,
            seed: None,
            #[cfg(feature = "tls")]
            tls: None,
            on_loop_start: None,
        }
    }
}

impl Options {
    pub(crate) fn inbox_room(&self) -> Room {
        Room {
            items: self.inbox_frames,
            bytes: self.inbox_bytes,
        }
    }
}
