//! Fuzz target `config`: parses any bytes as a configuration file, and text also as the configuration in a message.
//!
//! The parser accepts the bytes, or refuses them with the number of a line. An accepted configuration stays the same when it is
//! written as ZooKeeper writes it, and parsed again.

use quorum_cnx::{ConfigError, Sid, ZooCfg, ZooCfgReader, ZooServer};

use crate::message::configuration;

pub(crate) fn check(bytes: &[u8]) {
    let reader = ZooCfgReader::new();
    let flag = "zookeeper.multiAddress.enabled=true";
    let multi = ZooCfgReader::new().jvm_flag(flag).expect("a valid flag");
    let mut parsed = vec![reader.parse_bytes(bytes), multi.parse_bytes(bytes)];
    if let Ok(text) = std::str::from_utf8(bytes) {
        parsed.extend([ZooCfg::parse(text), ZooCfg::parse_dynamic(text)]);
    }
    let lines = bytes.split(|byte| b"\n\r".contains(byte)).count();
    for parsed in parsed {
        match parsed {
            Ok(cfg) => check_servers(&cfg),
            Err(ConfigError::ZooCfg { line, why, .. }) => {
                assert!(
                    (1..=lines).contains(&line) && !why.is_empty(),
                    "{line}: {why}"
                );
            }
            Err(other) => panic!("{other}"),
        }
    }
}

fn check_servers(cfg: &ZooCfg) {
    for server in &cfg.servers {
        assert!(!server.election.is_empty());
        // The builder may refuse it, but must not panic.
        let _ = cfg.builder(server.sid).build();
    }
    let _ = cfg.builder(Sid(1)).build();
    let written = configuration(cfg);
    let again =
        ZooCfg::parse_dynamic(&written).unwrap_or_else(|why| panic!("{why} in {written:?}"));
    // Everything about a server except its line number.
    let servers = |cfg: &ZooCfg| {
        let role = |server: &ZooServer| (server.sid, server.observer, server.client.clone());
        let addresses = |server: &ZooServer| (server.quorum.clone(), server.election.clone());
        let servers = cfg.servers.iter();
        servers
            .map(|server| (role(server), addresses(server)))
            .collect::<Vec<_>>()
    };
    assert_eq!(servers(&again), servers(cfg), "{written:?}");
    assert_eq!((&again.groups, &again.weights), (&cfg.groups, &cfg.weights));
    assert_eq!(again.version, cfg.version);
}
