//! The public face of a simulated network: hosts, names, partitions and the clock.
//!
//! Nothing here is a rule of TCP: see [`connection`](super::connection).

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{host::Host, paths::Paths, remote_end::RemoteEnd, state::Shared};

/// A network in memory, with a clock of its own. See the [module](super).
///
/// Clones are the same network. Hosts, loops and ends of connections keep it alive. Each connection takes about half a KiB until the
/// network is dropped, also after its end.
///
/// # Examples
///
/// ```
/// use quorum_cnx::{Config, EventLoop, Frame, Handle, Handler, Sid};
/// use quorum_cnx::simulation::Network;
/// use std::time::Duration;
///
/// /// Counts frames.
/// #[derive(Default)]
/// struct Count(u32);
///
/// impl Handler for Count {
///     fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {
///         self.0 += 1;
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = Network::new();
/// network.set_name("one.example", [[10, 0, 0, 1]]);
/// network.set_name("two.example", [[10, 0, 0, 2]]);
/// let mut loops = Vec::new();
/// for (sid, ip) in [(Sid(1), [10, 0, 0, 1]), (Sid(2), [10, 0, 0, 2])] {
///     let config = Config::builder(sid)
///         .server(Sid(1), "one.example:3888")
///         .server(Sid(2), "two.example:3888")
///         .build()?;
///     loops.push(EventLoop::with_net(config, Count::default(), network.host(ip).net())?);
/// }
/// loops[0].handle().to_send(Sid(2), "hello")?;
/// let has_come = |loops: &mut [EventLoop<Count, _>]| loops[1].handler().0 == 1;
/// assert!(network.run_until(&mut loops, Duration::from_secs(1), has_come)?);
/// assert!(network.elapsed() < Duration::from_secs(1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Network {
    pub(super) shared: Shared,
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl Network {
    /// A network without hosts and names.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Shared::new(),
        }
    }

    /// The host with this address. It is created if there is none, with power and without a process. It refuses dials that
    /// [wait](Self::take_dials) at the address.
    pub fn host(&self, ip: impl Into<IpAddr>) -> Host {
        let (ip, mut state) = (ip.into(), self.shared.lock());
        let host = state.host_of(ip).unwrap_or_else(|| state.add_host(ip));
        Host::new(self.shared.clone(), host)
    }

    // Time.

    /// The time since the network was created. It moves only with [`advance`](Self::advance), [`run`](Self::run) and its
    /// variants, and [`move_time_in_waits`](Self::move_time_in_waits).
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.shared.lock().now
    }

    /// The current simulated time. Times in the statistics, such as [`LinkStats::since`](crate::LinkStats::since) and
    /// [`PeerStats::last_received`](crate::PeerStats::last_received), are times of the same clock, which has nothing to do with
    /// [`Instant::now`]. Code that computes the age of a link has this time as an argument, so that a test can pass it.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.shared.lock().instant()
    }

    /// Moves the clock. No loop is turned: what is due in a loop is done in its next turn. The clock stops after 100 years.
    pub fn advance(&self, time: Duration) {
        self.shared.lock().advance(time);
    }

    /// From now on a loop that waits moves the clock: by the timeout of its wait if nothing is ready, and by at least `least`. So
    /// one loop alone can [run](crate::EventLoop::run) in simulated time. A wait that nothing would ever end is an error, which
    /// ends the loop.
    ///
    /// Without this call, a wait ends at once, and the clock stands still. So [`EventLoop::run`](crate::EventLoop::run) would wait for
    /// ever, and so would a [`turn`](crate::EventLoop::turn) of a loop that [spins](crate::Idle::Spin). Such a wait is an error once a
    /// loop has waited 100 000 times while nothing happened.
    ///
    /// # Panics
    ///
    /// If `least` is zero: a loop that spins would never reach the end of its wait.
    pub fn move_time_in_waits(&self, least: Duration) {
        assert!(!least.is_zero(), "the least time of a wait is zero");
        self.shared.lock().wait_min = Some(least);
    }

    /// The sizes in bytes of the buffers of each end of later connections: for bytes that cannot arrive yet, and for bytes that have
    /// arrived and were not read. A write that finds both full fails with `WouldBlock`, or writes a part.
    ///
    /// Default: 64 KiB each. The ends of a test have no bound, except by [`RemoteEnd::set_room`].
    ///
    /// # Panics
    ///
    /// If a size is 0.
    pub fn set_buffers(&self, send: usize, receive: usize) {
        assert!(send > 0 && receive > 0, "a buffer has room for a byte");
        let mut state = self.shared.lock();
        (state.send_buffer, state.receive_buffer) = (send, receive);
    }

    // Partitions.

    /// Nothing arrives from `a` at `b` any more, nor from `b` at `a`. Bytes that are written wait at their sender.
    ///
    /// # Panics
    ///
    /// If there is no such address, or `a` and `b` are the same. There are the addresses of hosts, and those of the ends of
    /// connections, which the test may hold: this finds a mistake in the test.
    pub fn cut(&self, a: impl Into<IpAddr>, b: impl Into<IpAddr>) {
        let (a, b) = (a.into(), b.into());
        self.change_paths(|paths| {
            paths.cut(a, b);
            paths.cut(b, a);
        });
    }

    /// Nothing arrives from `from` at `to` any more. Since acknowledgements are lost too, no connection can be made in either
    /// direction, and those that exist end after [`peer_dead_after`](crate::ConfigBuilder::peer_dead_after).
    ///
    /// # Panics
    ///
    /// As [`cut`](Self::cut).
    pub fn cut_one_way(&self, from: impl Into<IpAddr>, to: impl Into<IpAddr>) {
        let (from, to) = (from.into(), to.into());
        self.change_paths(|paths| paths.cut(from, to));
    }

    /// Cuts the host with this address off from all other addresses, in both directions, also from addresses that appear later. This
    /// lasts until [`rejoin`](Self::rejoin) or [`heal_all`](Self::heal_all). Single paths can be [healed](Self::heal) before.
    ///
    /// # Panics
    ///
    /// If there is no such address.
    pub fn isolate(&self, ip: impl Into<IpAddr>) {
        self.change_host_paths(ip.into(), Paths::isolate);
    }

    /// Ends all partitions between the host with this address and others that are not isolated. What waited arrives.
    ///
    /// # Panics
    ///
    /// If there is no such address.
    pub fn rejoin(&self, ip: impl Into<IpAddr>) {
        self.change_host_paths(ip.into(), Paths::rejoin);
    }

    /// Ends a partition in both directions. What waited arrives.
    ///
    /// # Panics
    ///
    /// As [`cut`](Self::cut).
    pub fn heal(&self, a: impl Into<IpAddr>, b: impl Into<IpAddr>) {
        let (a, b) = (a.into(), b.into());
        self.change_paths(|paths| {
            paths.heal(a, b);
            paths.heal(b, a);
        });
    }

    /// Ends a partition from `from` to `to`. The other direction stays as it is.
    ///
    /// # Panics
    ///
    /// As [`cut`](Self::cut).
    pub fn heal_one_way(&self, from: impl Into<IpAddr>, to: impl Into<IpAddr>) {
        let (from, to) = (from.into(), to.into());
        self.change_paths(|paths| paths.heal(from, to));
    }

    /// Ends all partitions.
    pub fn heal_all(&self) {
        self.change_paths(Paths::heal_all);
    }

    /// Whether a partition keeps what `from` sends from `to`. Hosts without power make no difference.
    ///
    /// # Panics
    ///
    /// As [`cut`](Self::cut).
    #[must_use]
    pub fn is_cut(&self, from: impl Into<IpAddr>, to: impl Into<IpAddr>) -> bool {
        let (from, to, state) = (from.into(), to.into(), self.shared.lock());
        state.paths.check(from, to);
        state.paths.is_cut(from, to)
    }

    fn change_paths(&self, change: impl FnOnce(&mut Paths)) {
        let mut state = self.shared.lock();
        change(&mut state.paths);
        state.update_paths();
    }

    fn change_host_paths(&self, ip: IpAddr, change: impl FnOnce(&mut Paths, &[IpAddr])) {
        let mut state = self.shared.lock();
        state.paths.check_known(ip);
        let ips = state.ips_beside(ip);
        change(&mut state.paths, &ips);
        state.update_paths();
    }

    // Names.

    /// The name means these addresses from now on. Other names are unknown: their lookup fails.
    pub fn set_name<A: Into<IpAddr>>(&self, name: &str, addresses: impl IntoIterator<Item = A>) {
        let addresses = addresses.into_iter().map(Into::into).collect();
        self.shared.lock().names.set(name, Ok(addresses));
    }

    /// Lookups of this name fail from now on, with this message of the resolver.
    pub fn fail_name(&self, name: &str, message: &str) {
        let answer = Err(message.to_owned());
        self.shared.lock().names.set(name, answer);
    }

    /// The name is unknown from now on.
    pub fn remove_name(&self, name: &str) {
        self.shared.lock().names.remove(name);
    }

    /// From now on lookups wait, as for a name server that does not answer, until [`answer_lookups`](Self::answer_lookups).
    pub fn hold_lookups(&self) {
        self.shared.lock().names.is_holding = true;
    }

    /// From now on lookups are answered at once again. Those that wait are answered too.
    pub fn release_lookups(&self) {
        self.shared.lock().names.is_holding = false;
        self.answer(|_| true);
    }

    /// The names of the lookups that wait, in the order in which they were asked for. A name that is looked up twice is there
    /// twice.
    #[must_use]
    pub fn waiting_lookups(&self) -> Vec<String> {
        self.shared.lock().names.waiting()
    }

    /// Answers the lookups of this name that wait, with what it means now. Returns how many there were.
    pub fn answer_lookups(&self, name: &str) -> usize {
        self.answer(|asked| asked == name)
    }

    fn answer(&self, is_asked: impl Fn(&str) -> bool) -> usize {
        let mut state = self.shared.lock();
        let lookups = state.names.take(is_asked);
        for lookup in &lookups {
            state.answer(lookup);
        }
        lookups.len()
    }

    // Ends of connections that the test holds.

    /// Connects from any address to a loop that listens. The connection is established at once, before the loop accepts it.
    ///
    /// # Errors
    ///
    /// `ConnectionRefused` if nothing listens there. `TimedOut` if one address does not reach the other.
    pub fn connect(&self, from: SocketAddr, to: SocketAddr) -> io::Result<RemoteEnd> {
        let connection = self.shared.lock().connect_from(from, to)?;
        Ok(RemoteEnd::new(self.shared.clone(), connection, 0))
    }

    /// The dials of loops to addresses of no host since the last call, in order. Each waits until the test
    /// [accepts](RemoteEnd::accept) or [refuses](RemoteEnd::refuse) it, or the loop gives up.
    ///
    /// A dial that was not returned yet reaches a host that gets its address ([`host`](Self::host), [`Host::add_ip`]). The host refuses
    /// it if nothing listens there, as on a new host. The loop then dials again.
    #[must_use = "the dials are returned by no later call"]
    pub fn take_dials(&self) -> Vec<RemoteEnd> {
        let dials = std::mem::take(&mut self.shared.lock().dials);
        let end = |connection| RemoteEnd::new(self.shared.clone(), connection, 1);
        dials.into_iter().map(end).collect()
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("elapsed", &self.elapsed())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
