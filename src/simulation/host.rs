//! A simulated host: its addresses, its power, and calls on it that fail.
//!
//! Nothing here is a loop: [`Host::net`] is what a loop is made of.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
};

use super::{
    connection::Owner,
    failures::Call,
    net::HostNet,
    state::{Shared, State},
};

/// A host of a [`Network`](super::Network), on which one loop runs, or several.
///
/// Clones are the same host.
///
/// # Examples
///
/// ```
/// use quorum_cnx::{Config, EventLoop, Frame, Handle, Handler, Listening, Sid};
/// use quorum_cnx::simulation::{Call, Network};
/// use std::{io, time::Duration};
///
/// struct Ignore;
///
/// impl Handler for Ignore {
///     fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {}
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = Network::new();
/// let host = network.host([10, 0, 0, 1]);
/// host.fail_next(Call::Listen, io::ErrorKind::PermissionDenied.into());
/// let config = Config::builder(Sid(1)).server(Sid(1), "10.0.0.1:3888").build()?;
/// let mut loops = [EventLoop::with_net(config, Ignore, host.net())?];
/// assert_eq!(host.listening(), []);
///
/// // The loop tries again after a second.
/// network.run(&mut loops, Duration::from_secs(1))?;
/// assert_eq!(host.listening(), ["10.0.0.1:3888".parse()?]);
/// assert_eq!(host.calls(Call::Listen), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Host {
    shared: Shared,
    host: usize,
}

impl Host {
    pub(super) fn new(shared: Shared, host: usize) -> Self {
        Self { shared, host }
    }

    /// The network of a new process on this host, for [`EventLoop::with_net`](crate::EventLoop::with_net). The process ends when
    /// the loop is dropped.
    ///
    /// # Panics
    ///
    /// If the host has no power.
    #[must_use]
    pub fn net(&self) -> HostNet {
        assert!(
            self.shared.lock().hosts[self.host].has_power,
            "a loop is started on a host without power"
        );
        HostNet::new(self.shared.clone(), self.host)
    }

    /// The address of the host: the first one, if it has several.
    ///
    /// # Panics
    ///
    /// If all addresses were removed.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        *self.shared.lock().hosts[self.host]
            .ips
            .first()
            .expect("the host has an address")
    }

    /// Gives the host another address. Dials leave from the first address of the same version of IP.
    ///
    /// # Panics
    ///
    /// If another host has this address.
    pub fn add_ip(&self, ip: impl Into<IpAddr>) {
        let (ip, mut state) = (ip.into(), self.shared.lock());
        match state.host_of(ip) {
            Some(host) => assert_eq!(host, self.host, "another host has the address {ip}"),
            None => {
                let State { hosts, paths, .. } = &mut *state;
                paths.learn(ip, &hosts[self.host].ips);
                hosts[self.host].ips.push(ip);
                state.on_new_ip(ip);
            }
        }
    }

    /// Takes an address from the host. Nothing can listen there or dial from there any more. Sockets that are open stay open, and so do
    /// connections, but new connections to this address no longer reach the host. Another host can have the address from now on.
    pub fn remove_ip(&self, ip: impl Into<IpAddr>) {
        let ip = ip.into();
        let mut state = self.shared.lock();
        state.hosts[self.host].ips.retain(|other| *other != ip);
    }

    /// The next call of this kind that a loop on this host makes fails with this error. Several errors are returned in order, one
    /// by each call.
    ///
    /// # Panics
    ///
    /// If the error is [`WouldBlock`](io::ErrorKind::WouldBlock): the loop would wait for an event that does not come.
    /// [`Network::set_buffers`](super::Network::set_buffers) and [`RemoteEnd::set_room`](super::RemoteEnd::set_room) make writes
    /// block.
    pub fn fail_next(&self, call: Call, error: io::Error) {
        let would_block = error.kind() == io::ErrorKind::WouldBlock;
        assert!(!would_block, "no event would follow `WouldBlock`");
        let mut state = self.shared.lock();
        state.hosts[self.host].failures.push(call, error);
    }

    /// No call fails any more that was to fail by [`fail_next`](Self::fail_next).
    pub fn clear_failures(&self) {
        self.shared.lock().hosts[self.host].failures.clear();
    }

    /// How many calls of this kind the loops on this host have made, including those that failed.
    #[must_use]
    pub fn calls(&self, call: Call) -> u64 {
        self.shared.lock().hosts[self.host].failures.calls(call)
    }

    /// The addresses at which loops on this host listen, in the order in which they were opened.
    #[must_use]
    pub fn listening(&self) -> Vec<SocketAddr> {
        self.shared.lock().listening(self.host).collect()
    }

    /// How many connections wait to be accepted by the loop that listens at this address.
    #[must_use]
    pub fn backlog(&self, at: SocketAddr) -> usize {
        self.shared.lock().backlog(self.host, at)
    }

    /// How many connections the loops on this host hold open. A connection that was not accepted yet does not count.
    #[must_use]
    pub fn connections(&self) -> usize {
        let state = self.shared.lock();
        let live = state.live.iter().map(|index| &state.connections[*index]);
        let ends = live.flat_map(|it| &it.ends);
        let is_here = |owner| match owner {
            Owner::Process(process) => state.processes[process].host == self.host,
            Owner::Nothing | Owner::Test => false,
        };
        ends.filter(|end| end.held && is_here(end.owner)).count()
    }

    /// Cuts the power. The processes on this host end, and no packet tells so. The far ends of their connections notice after
    /// [`peer_dead_after`](crate::ConfigBuilder::peer_dead_after).
    ///
    /// The loops of these processes are not turned any more: [`Network::run`](super::Network::run) skips them, and
    /// [`EventLoop::turn`](crate::EventLoop::turn) returns an error. They may be dropped at any time. Their handlers and counters can
    /// still be read. [`to_send`](crate::Handle::to_send) on such a server returns [`SendError::Halted`](crate::SendError::Halted) from
    /// the next run on. Until then it accepts the frame, which goes nowhere.
    ///
    /// A frame that another server sends to this one waits, as on a real network: first in the buffers of their connection, and after
    /// the end of the connection in the outbox. The newest frame arrives once a new loop of this server is linked.
    pub fn power_off(&self) {
        self.shared.lock().power_off(self.host);
    }

    /// Gives the host power again. Far ends that have not noticed yet receive a reset. Processes that have ended stay ended: a new
    /// loop is started with [`net`](Self::net), and takes the place of the old one among the loops of the test. See the
    /// [module](super#servers-that-are-lost-and-return).
    pub fn power_on(&self) {
        let mut state = self.shared.lock();
        state.hosts[self.host].has_power = true;
        state.update_paths();
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("ips", &self.shared.lock().hosts[self.host].ips)
            .finish_non_exhaustive()
    }
}
