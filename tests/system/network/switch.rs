//! What the switch does with packets: it forwards them, or applies rules of nftables at the port where they arrive.
//!
//! The hosts get no notice of a dropped packet.

use std::fmt::Write as _;

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Drop,
    /// Dropped, and answered by a TCP reset.
    Reset,
    /// Dropped with this probability in percent.
    Lose(u32),
    /// Duplicated with this probability in percent.
    Double(u32),
}

impl Fate {
    /// One of each kind.
    pub(crate) const ALL: [Self; 4] = [Self::Drop, Self::Reset, Self::Lose(10), Self::Double(10)];

    /// The statement for nftables. `port` is the port of the receiver.
    pub(crate) fn statement(self, port: &str) -> String {
        match self {
            Self::Drop => "drop".into(),
            Self::Reset => "meta l4proto tcp reject with tcp reset".into(),
            Self::Lose(percent) => format!("numgen random mod 100 < {percent} drop"),
            Self::Double(percent) => {
                format!("numgen random mod 100 < {percent} dup to \"{port}\"")
            }
        }
    }
}

/// A rule for the packets of one host to another. Without a receiver: for everything that the host sends, also ARP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacketRule {
    pub(crate) from: i64,
    pub(crate) to: Option<i64>,
    pub(crate) fate: Fate,
}

/// A rule that drops packets.
pub(crate) fn drop_packets(from: i64, to: Option<i64>) -> PacketRule {
    PacketRule {
        from,
        to,
        fate: Fate::Drop,
    }
}

/// Rules for both directions of each pair with one host in `here` and one in `there`.
pub(crate) fn between(here: &[i64], there: &[i64], fate: Fate) -> Vec<PacketRule> {
    let mut rules = Vec::new();
    for &one in here {
        for &two in there {
            if one != two {
                rules.extend([(one, two), (two, one)].map(|(from, to)| PacketRule {
                    from,
                    to: Some(to),
                    fate,
                }));
            }
        }
    }
    rules
}

/// Rules that drop everything from and to this host.
pub(crate) fn around(host: i64, all: &[i64]) -> Vec<PacketRule> {
    let mut rules = between(&[host], all, Fate::Drop);
    rules.push(drop_packets(host, None));
    rules
}

/// The hardware address of a host.
pub(crate) fn hardware(host: i64) -> String {
    format!("02:00:00:00:00:{host:02x}")
}

/// The name of the port of a host.
pub(crate) fn port(host: i64) -> String {
    format!("port{host}")
}

/// The script for nftables that replaces all earlier rules at once.
pub(crate) fn script(rules: &[PacketRule], hosts: &[i64]) -> String {
    let mut text =
        String::from("table netdev fates\ndelete table netdev fates\ntable netdev fates {\n");
    for host in hosts {
        let own_rules = || rules.iter().filter(|rule| rule.from == *host);
        if own_rules().next().is_none() {
            continue;
        }
        let ingress_port = port(*host);
        let _ = writeln!(
            text,
            "chain {ingress_port} {{ type filter hook ingress device \"{ingress_port}\" priority 0;"
        );
        for rule in own_rules() {
            let to = rule.to.map(|to| (hardware(to), port(to)));
            let (to, egress_port) = match &to {
                Some((hardware, port)) => (format!("ether daddr {hardware} "), port.as_str()),
                None => (String::new(), ""),
            };
            let _ = writeln!(text, "{to}{}", rule.fate.statement(egress_port));
        }
        text.push_str("}\n");
    }
    text.push_str("}\n");
    text
}
