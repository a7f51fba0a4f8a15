//! Which names servers have, and which configurations are refused.

use rustls::crypto::ring;

use super::*;
use crate::{
    config::{Config, ConfigBuilder},
    tls::fixture::Ca,
};

fn tls(ca: &Ca) -> Tls {
    let own = ca.names(&["zk1.example"]).certified_key();
    let builder = Tls::builder(Arc::new(ring::default_provider()), own, [ca.root.clone()]);
    builder.build().unwrap()
}

/// Three servers with TLS, each with several addresses.
fn builder(ca: &Ca) -> ConfigBuilder {
    Config::builder(Sid(1))
        .server(Sid(1), "0.0.0.0:3888")
        .server(Sid(2), "ZK2.Example.:3888|10.0.0.2:3888|[2001:db8::2]:3888")
        .server(Sid(3), "zk3.example:3888|[fe80::3%eth0]:3888")
        .tls(tls(ca))
}

fn names(names: &[&str]) -> Vec<PeerName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn refusal(builder: ConfigBuilder) -> String {
    builder.build().unwrap_err().to_string()
}

#[test]
fn names_are_those_of_the_addresses_unless_given() {
    let ca = Ca::new("CA");
    let given = builder(&ca).peer_names(Sid(3), names(&["spiffe://zk/3"]));
    let options = given.build().unwrap().options.tls.unwrap();
    for (sid, name, expected) in [
        (2, "zk2.example", true),
        (2, "10.0.0.2", true),
        (2, "2001:db8::2", true),
        (2, "zk3.example", false),
        (3, "spiffe://zk/3", true),
        (3, "zk3.example", false),
        (1, "0.0.0.0", false),
    ] {
        let chain = ca.names(&[name]).chain;
        let is_fine = options.identities.check(Sid(sid), &chain).is_ok();
        assert_eq!(is_fine, expected, "{name} as {sid}");
    }
}

#[test]
fn wildcard_certificates_must_be_allowed() {
    let ca = Ca::new("CA");
    let chain = ca.names(&["*.b.example"]).chain;
    for yes in [false, true] {
        let builder = builder(&ca).peer_names(Sid(2), names(&["a.b.example"]));
        let config = builder.wildcard_certificates(yes).build().unwrap();
        let identities = config.options.tls.unwrap().identities.clone();
        assert_eq!(identities.check(Sid(2), &chain).is_ok(), yes);
    }
}

#[test]
fn a_name_of_two_servers_is_refused() {
    let ca = Ca::new("CA");
    let shared = |first: Sid, second: Sid, name: &str| ConfigError::SharedName {
        first,
        second,
        name: name.to_owned(),
    };
    for (builder, expected) in [
        (
            builder(&ca).server(Sid(4), "zk2.EXAMPLE:3889"),
            shared(Sid(2), Sid(4), "zk2.example"),
        ),
        (
            builder(&ca).peer_names(Sid(3), names(&["a", "::ffff:10.0.0.2"])),
            shared(Sid(2), Sid(3), "10.0.0.2"),
        ),
        (
            // The own names count too: another server must not be taken for this one.
            builder(&ca).peer_names(Sid(1), names(&["zk3.example"])),
            shared(Sid(1), Sid(3), "zk3.example"),
        ),
        (
            builder(&ca).observer_names(names(&["zk2.example"])),
            shared(Sid(2), Sid::OBSERVER, "zk2.example"),
        ),
        (
            builder(&ca)
                .unknown(Unknown::admit(1))
                .peer_names(Sid(9), names(&["zk2.example"])),
            shared(Sid(2), Sid(9), "zk2.example"),
        ),
    ] {
        assert_eq!(builder.build().unwrap_err(), expected);
    }
    let twice = builder(&ca).peer_names(Sid(3), names(&["zk3.example", "ZK3.example"]));
    assert!(twice.build().is_ok(), "one server may say a name twice");
}

#[test]
fn useless_names_are_refused() {
    let ca = Ca::new("CA");
    for (builder, said) in [
        (
            builder(&ca).peer_names(Sid(9), names(&["zk9.example"])),
            "server 9 is not configured",
        ),
        (
            builder(&ca).peer_names(Sid(-1), names(&["zk9.example"])),
            "server -1 is not configured",
        ),
        (
            builder(&ca).peer_names(Sid(2), []),
            "no host of server 2 is a name",
        ),
        (
            builder(&ca).server(Sid(4), "[fe80::4%eth0]:3888"),
            "no host of server 4 is a name",
        ),
        (
            builder(&ca).peer_names(Sid(2), [PeerName::Dns("zk\0".to_owned())]),
            "no DNS name",
        ),
        (
            builder(&ca).peer_names(Sid(2), [PeerName::Dns("10.0.0.1".to_owned())]),
            "no DNS name",
        ),
        (
            builder(&ca).peer_names(Sid(2), (0..33).map(|n| PeerName::Dns(format!("a{n}")))),
            "33 names of server 2, at most 32",
        ),
    ] {
        let why = refusal(builder);
        assert!(
            why.starts_with("peer_names: ") && why.contains(said),
            "{why}"
        );
    }
    let plain = Config::builder(Sid(1)).server(Sid(1), "zk1:1");
    let why = refusal(plain.peer_names(Sid(1), names(&["zk1"])));
    assert!(why.contains("only with tls"), "{why}");
}

#[test]
fn memory_of_tls_is_counted() {
    let ca = Ca::new("CA");
    let plain = Config::builder(Sid(1))
        .server(Sid(1), "zk1.example:3888")
        .server(Sid(2), "zk2.example:3888")
        .members_max(2);
    let memory = |builder: ConfigBuilder| builder.build().unwrap().max_memory();
    let added = memory(plain.clone().tls(tls(&ca))) - memory(plain);
    assert_eq!(
        added,
        (512 << 10) + 5 * (176 << 10) + (256 + 8) * (136 << 10)
    );
}

#[test]
fn admitted_servers_have_names_only_if_given() {
    let ca = Ca::new("CA");
    let builder = builder(&ca).unknown(Unknown::admit(4));
    let builder = builder.peer_names(Sid(9), names(&["zk9.example"]));
    let identities = builder
        .build()
        .unwrap()
        .options
        .tls
        .unwrap()
        .identities
        .clone();
    assert!(identities.has_names(Sid(9)) && !identities.has_names(Sid(8)));
    assert!(!identities.has_names(Sid::OBSERVER));
}
