//! An ensemble with TLS: one real server, and ours, each with a `zoo.cfg` and stores of its own.
//!
//! Each server has an IP address of its own, 127.0.1.N for the server N, so that its certificate names it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use quorum_cnx::{CnxManager, Config, ConfigBuilder, Sid, Tls, TlsBuilder, ZooCfg};

use crate::{
    certificates::{Ca, Kind, file, store_lines, write_trust_store},
    member::Member,
    server::{Ensemble, Server, Times},
};

/// What makes each server dial and accept with TLS only.
pub(crate) const TLS_ONLY: &str = "sslQuorum=true\n";

/// In ticks: longer than any test waits, so that a leader does not give up during a test.
const TIMES: Times = Times {
    tick_ms: 1000,
    init_limit: 60,
    sync_limit: 5,
};

pub(crate) struct TlsEnsemble {
    servers: Ensemble,
    cas: [Ca; 2],
    trust_store: PathBuf,
}

pub(crate) fn ip(sid: i64) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, sid as u8)
}

/// The names of a server's certificate. A connection on loopback comes from 127.0.0.1, wherever it goes.
pub(crate) fn names(sid: i64) -> Vec<String> {
    vec![
        ip(sid).to_string(),
        "127.0.0.1".to_owned(),
        format!("zk{sid}.example"),
    ]
}

impl TlsEnsemble {
    /// Servers that trust a CA for each kind of key.
    pub(crate) fn new(servers: usize) -> Self {
        let servers = Ensemble::at(servers, TIMES, ip);
        let cas = [
            Ca::new("ECDSA CA", Kind::Ecdsa),
            Ca::new("RSA CA", Kind::Rsa),
        ];
        let trust_store = file(servers.directory(), "trust");
        write_trust_store(&trust_store, &cas.each_ref());
        Self {
            servers,
            cas,
            trust_store,
        }
    }

    pub(crate) fn ca(&self, kind: Kind) -> &Ca {
        &self.cas[usize::from(kind == Kind::Rsa)]
    }

    /// A directory for files of this ensemble.
    pub(crate) fn directory(&self) -> &Path {
        self.servers.directory()
    }

    /// The path of a file of this ensemble.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        file(self.servers.directory(), name)
    }

    /// The configuration file of a server.
    pub(crate) fn zoo_cfg(&self, sid: i64) -> PathBuf {
        self.servers.directory().join(format!("zoo-{sid}.cfg"))
    }

    /// The key store of a server.
    pub(crate) fn key_store(&self, sid: i64) -> PathBuf {
        self.file(&format!("store-{sid}"))
    }

    /// Writes the stores of a server whose certificate has these names, and returns the lines that name them.
    pub(crate) fn stores(&self, sid: i64, kind: Kind, names: &[String]) -> String {
        let key_store = self.key_store(sid);
        self.ca(kind).write_key_store(&key_store, names);
        self.lines(sid)
    }

    /// The lines that name the stores of a server.
    pub(crate) fn lines(&self, sid: i64) -> String {
        store_lines(&self.key_store(sid), &self.trust_store)
    }

    /// Starts the real server `sid` with these lines. It does not know where `hidden` servers listen.
    pub(crate) fn start(&self, sid: i64, lines: &str, hidden: &[i64]) -> Server {
        let election = |other| {
            let address = self.election(other);
            match hidden.contains(&other) {
                // Nobody listens there.
                true => SocketAddr::new(address.ip(), 1),
                false => address,
            }
        };
        let path = self.servers.write_configuration_lines(sid, election, lines);
        self.servers.start_with(sid, &path)
    }

    /// Starts the real server `sid` with these lines in an ensemble of only these members, who may change.
    pub(crate) fn start_member(&self, sid: i64, members: &[i64], lines: &str) -> Server {
        let path = self.write_members(sid, members, lines);
        self.servers.start_with(sid, &path)
    }

    /// Writes the configuration file of that server.
    pub(crate) fn write_members(&self, sid: i64, members: &[i64], lines: &str) -> PathBuf {
        self.servers.write_members_lines(sid, members, lines)
    }

    /// The text with which `reconfig -add` adds the server `sid`, or moves it to the ports of the server `at`.
    pub(crate) fn server_text(&self, sid: i64, at: i64) -> String {
        self.servers.server_text(sid, at)
    }

    /// Where the server `sid` listens for the others.
    pub(crate) fn election(&self, sid: i64) -> SocketAddr {
        self.servers.election(sid).address
    }

    /// Starts our server `sid` as its `zoo.cfg` with these lines says. It knows no other servers than `real`, of
    /// which it talks to the first.
    pub(crate) fn ours(
        &self,
        sid: i64,
        real: &[i64],
        lines: &str,
        shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
    ) -> Member {
        let election = |other| self.election(other);
        let path = self.servers.write_configuration_lines(sid, election, lines);
        let text = fs::read_to_string(&path).expect("a file can be read");
        let is_kept = |line: &&str| {
            !line.starts_with("server.")
                || real
                    .iter()
                    .chain([&sid])
                    .any(|kept| line.starts_with(&format!("server.{kept}=")))
        };
        let kept: Vec<_> = text.lines().filter(is_kept).collect();
        fs::write(&path, kept.join("\n")).expect("a file can be written");
        self.ours_of(sid, &path, real[0], shape)
    }

    /// Starts our server `sid` as this file says.
    pub(crate) fn ours_of(
        &self,
        sid: i64,
        file: &Path,
        real: i64,
        shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
    ) -> Member {
        let builder = shape(Config::from_zoo_cfg_file(file, Sid(sid)).unwrap());
        let config = builder
            .listener(self.servers.election(sid).listen())
            .build();
        Member::new(CnxManager::start(config.unwrap()).unwrap(), real)
    }

    /// The stores of our server as they are now.
    pub(crate) fn tls_builder(&self, sid: i64) -> TlsBuilder {
        let store = self.key_store(sid);
        Tls::from_pem_files(&store, &store, &self.trust_store).unwrap()
    }

    /// Reads the stores of our server again.
    pub(crate) fn tls(&self, sid: i64) -> Tls {
        ZooCfg::read(self.zoo_cfg(sid))
            .unwrap()
            .tls()
            .unwrap()
            .unwrap()
    }
}
