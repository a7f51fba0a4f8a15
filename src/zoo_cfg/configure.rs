//! Makes a [`Config`] from a `zoo.cfg`, and [`Members`] from a newer configuration of a running ensemble.
//!
//! Nothing here parses or checks a value.

use std::path::Path;

use super::types::ZooCfg;
use crate::{
    config::{Config, ConfigBuilder, Members},
    error::ConfigError,
    limits,
    proto::{InitialMessageVersion, Sid},
};

impl Config {
    /// Takes the servers and options from the text of a ZooKeeper `zoo.cfg`, for the server `own`.
    ///
    /// These keys are used:
    ///
    /// - the election addresses of the `server.N` lines; observers are peers as well,
    /// - `cnxTimeout`,
    /// - `quorumCnxnTimeoutMs`, or else `tickTime` x `syncLimit`, as the handshake timeout,
    /// - `electionPortBindRetry`, `quorumListenOnAllIPs` and `multiAddress.enabled`.
    ///
    /// With the feature `tls-ring`, the keys of TLS between servers are used too: `sslQuorum`, `portUnification` and `ssl.quorum.*`, with
    /// stores in PEM files ([`ZooCfg`] has a table). Without it, `sslQuorum` is refused.
    ///
    /// `initLimit` and `tcpKeepAlive` are checked and otherwise ignored: keepalive is always on, with times that follow from
    /// [`peer_dead_after`](ConfigBuilder::peer_dead_after). SASL between servers is refused, since it is not supported. Other keys are
    /// ignored.
    ///
    /// # Errors
    ///
    /// [`ConfigError::ZooCfg`] with the line and the mistake.
    pub fn from_zoo_cfg(text: &str, own: Sid) -> Result<ConfigBuilder, ConfigError> {
        Ok(ZooCfg::parse(text)?.builder(own))
    }

    /// Reads a `zoo.cfg` file, and the dynamic configuration file that it names, as [`ZooCfg::read`] does.
    ///
    /// # Errors
    ///
    /// [`ConfigError::ZooCfg`] with the line and the mistake. The line is 0 if a file cannot be read, and for a mistake in the
    /// dynamic file: the text then names that file and its line.
    pub fn from_zoo_cfg_file(
        path: impl AsRef<Path>,
        own: Sid,
    ) -> Result<ConfigBuilder, ConfigError> {
        Ok(ZooCfg::read(path)?.builder(own))
    }
}

impl ZooCfg {
    /// The configuration of the server `own`, which is one of these servers. See [`Config::from_zoo_cfg`].
    pub fn builder(&self, own: Sid) -> ConfigBuilder {
        of_zoo_cfg(self, own)
    }

    /// The servers at this version, for [`Handle::reconfigure`](crate::Handle::reconfigure): with it, a running server follows an
    /// ensemble whose members change. Observers are members as well. Groups and weights concern the election only.
    ///
    /// The newer configuration comes from [`read`](Self::read), which finds the dynamic file that the `zoo.cfg` names now, or from the
    /// text in an election message ([`parse_dynamic`](Self::parse_dynamic)). A file `zoo.cfg.dynamic.next` is only a proposal.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use quorum_cnx::{CnxManager, Sid, ZooCfg};
    ///
    /// let file = ZooCfg::parse("server.1=127.0.0.1:2888:3888\nserver.2=127.0.0.2:2888:3888")?;
    /// let manager = CnxManager::start(file.builder(Sid(1)).build()?)?;
    /// // Later, in a message of another server.
    /// let text = "server.1=127.0.0.1:2888:3888:participant\n\
    ///             server.3=127.0.0.3:2888:3888:participant;0.0.0.0:2181\nversion=100000002";
    /// let changes = manager.reconfigure(ZooCfg::parse_dynamic(text)?.members())?;
    /// assert_eq!((changes.joined, changes.left), (vec![Sid(3)], vec![Sid(2)]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn members(&self) -> Members {
        // No text with a negative version is accepted, but the field is public.
        let members = Members::new(u64::try_from(self.version).unwrap_or(0));
        self.servers.iter().fold(members, |members, server| {
            members.server_at(server.sid, server.election.clone())
        })
    }
}

fn of_zoo_cfg(file: &ZooCfg, own: Sid) -> ConfigBuilder {
    let mut builder = Config::builder(own);
    for server in &file.servers {
        builder = builder.server_at(server.sid, server.election.clone());
    }
    let ticks = file
        .tick_time
        .zip(file.sync_limit)
        .and_then(|(tick, limit)| tick.checked_mul(limit));
    if let Some(timeout) = file.quorum_cnxn_timeout.or(ticks) {
        builder = builder.handshake_timeout(timeout);
    }
    if let Some(timeout) = file.cnx_timeout {
        builder = builder.connect_timeout(timeout);
    }
    let tries = file.election_port_bind_retry;
    builder = builder.listen_tries(tries.unwrap_or(limits::LISTEN_TRIES));
    if file.multi_address_enabled {
        builder = builder.initial_message(InitialMessageVersion::V2);
    }
    #[cfg(feature = "tls-ring")]
    if let Some(tls) = file.tls().transpose() {
        builder = builder.tls_or(tls);
    }
    builder
        .observers_max(limits::OBSERVERS_MAX)
        .listen_on_all_ips(file.quorum_listen_on_all_ips)
}
