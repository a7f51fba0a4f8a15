//! What the switch does with packets on their way: nothing, or what nftables are told to do at the port where they come in.
//!
//! Nothing here is told to the hosts: what is dropped is dropped without a word.

use std::fmt::Write as _;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Drop,
    /// Whoever sent it is told that there is no such connection.
    Reset,
    /// So many of a hundred are dropped, by chance.
    Lose(u32),
    /// So many of a hundred arrive twice, by chance.
    Double(u32),
}

impl Fate {
    /// One of each kind.
    pub(crate) const ALL: [Self; 4] = [Self::Drop, Self::Reset, Self::Lose(10), Self::Double(10)];

    /// In the language of nftables. `port`: where the receiver is.
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

/// Packets of one host for another. Without a receiver: everything that the host sends, ARP as well.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) from: i64,
    pub(crate) to: Option<i64>,
    pub(crate) fate: Fate,
}

/// Both ways of each pair that has one end here and one there.
pub(crate) fn between(here: &[i64], there: &[i64], fate: Fate) -> Vec<Way> {
    let mut ways = Vec::new();
    for &one in here {
        for &two in there {
            if one != two {
                ways.extend([(one, two), (two, one)].map(|(from, to)| Way {
                    from,
                    to: Some(to),
                    fate,
                }));
            }
        }
    }
    ways
}

/// Everything from and to this host among these.
pub(crate) fn around(host: i64, all: &[i64]) -> Vec<Way> {
    let mut ways = between(&[host], all, Fate::Drop);
    ways.push(Way {
        from: host,
        to: None,
        fate: Fate::Drop,
    });
    ways
}

/// The hardware address of a host, and the name of its port.
pub(crate) fn hardware(host: i64) -> String {
    format!("02:00:00:00:00:{host:02x}")
}

pub(crate) fn port(host: i64) -> String {
    format!("port{host}")
}

/// Instead of all that was asked for before, at once.
pub(crate) fn script(ways: &[Way], hosts: &[i64]) -> String {
    let mut text =
        String::from("table netdev fates\ndelete table netdev fates\ntable netdev fates {\n");
    for host in hosts {
        let mine = || ways.iter().filter(|way| way.from == *host);
        if mine().next().is_none() {
            continue;
        }
        let port_in = port(*host);
        let _ = writeln!(
            text,
            "chain {port_in} {{ type filter hook ingress device \"{port_in}\" priority 0;"
        );
        for way in mine() {
            let to = way.to.map(|to| (hardware(to), port(to)));
            let (to, out) = match &to {
                Some((hardware, port)) => (format!("ether daddr {hardware} "), port.as_str()),
                None => (String::new(), ""),
            };
            let _ = writeln!(text, "{to}{}", way.fate.statement(out));
        }
        text.push_str("}\n");
    }
    text.push_str("}\n");
    text
}
