//! Target `config`: a configuration file, of any bytes; and where they are text, a configuration in a message.
//!
//! It is understood or refused with a line of its own, and what was understood is understood again when it is told to others
//! as real servers do.

use quorum_cnx::{ConfigError, Sid, ZooCfg, ZooCfgReader, ZooServer};

use crate::message::configuration;

pub(crate) fn check(bytes: &[u8]) {
    let reader = ZooCfgReader::new();
    let flag = "zookeeper.multiAddress.enabled=true";
    let multi = ZooCfgReader::new().jvm_flag(flag).expect("it is one");
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
        // Whether it can work is another question, which must have an answer as well.
        let _ = cfg.builder(server.sid).build();
    }
    let _ = cfg.builder(Sid(1)).build();
    let told = configuration(cfg);
    let again = ZooCfg::parse_dynamic(&told).unwrap_or_else(|why| panic!("{why} in {told:?}"));
    // All that is told of a server, but not in which line.
    let said = |cfg: &ZooCfg| {
        let said = |server: &ZooServer| (server.sid, server.observer, server.client.clone());
        let places = |server: &ZooServer| (server.quorum.clone(), server.election.clone());
        let servers = cfg.servers.iter();
        servers
            .map(|server| (said(server), places(server)))
            .collect::<Vec<_>>()
    };
    assert_eq!(said(&again), said(cfg), "{told:?}");
    assert_eq!((&again.groups, &again.weights), (&cfg.groups, &cfg.weights));
    assert_eq!(again.version, cfg.version);
}
