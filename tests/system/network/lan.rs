//! A local network: a namespace for each host, one for the switch (a bridge), cables between them, and a hosts file for each
//! host.

use std::{net::Ipv4Addr, process::Command, sync::Mutex};

use support::worker::Worker;

use crate::{
    cable::{self, DelayRange},
    namespace::{Namespace, feed, nth_network, prefix, run},
    switch::{self, PacketRule, hardware, port},
};

/// The port on which every server listens.
pub(crate) const PORT: u16 = 3888;

/// A local network.
pub(crate) struct Lan {
    network: usize,
    /// Dropped before the namespaces.
    cables: Vec<Worker>,
    switch: Namespace,
    hosts: Vec<(i64, Namespace)>,
    addresses: Mutex<Vec<Ipv4Addr>>,
}

impl Lan {
    /// Hosts 1 to `count`, with cables without delay.
    pub(crate) fn new(count: i64) -> Self {
        Self::build(count, None)
    }

    /// The same with cables that delay each packet for a random time.
    pub(crate) fn with_delay(count: i64, delay_range: DelayRange) -> Self {
        Self::build(count, Some(delay_range))
    }

    fn build(count: i64, delay_range: Option<DelayRange>) -> Self {
        let network = nth_network();
        let switch = Namespace::new(network, "switch");
        let mut lines = vec![
            "link add bridge type bridge".to_owned(),
            "link set bridge up".into(),
        ];
        let mut hosts = Vec::new();
        for host in 1..=count {
            let namespace = Namespace::new(network, &format!("host{host}"));
            let (port, at) = (port(host), hardware(host));
            let plug = if delay_range.is_some() {
                format!("plug{host}")
            } else {
                port.clone()
            };
            lines.push(format!(
                "link add {plug} type veth peer name eth0 address {at} netns {}",
                namespace.name()
            ));
            if delay_range.is_some() {
                let socket = format!("socket{host}");
                lines.push(format!("link add {socket} type veth peer name {port}"));
                lines.extend([&plug, &socket].map(|end| format!("link set {end} up")));
            }
            lines.push(format!("link set {port} master bridge up"));
            hosts.push((host, namespace));
        }
        switch.batch(&lines);
        let lan = Self {
            network,
            cables: Vec::new(),
            switch,
            addresses: Mutex::new((1..=count).map(first_address).collect()),
            hosts,
        };
        for (host, namespace) in &lan.hosts {
            namespace.batch(&[
                format!("addr add {}/24 dev eth0", first_address(*host)),
                "link set eth0 up".into(),
            ]);
            // Names are looked up only in the hosts file.
            namespace.write_overlay("resolv.conf", "");
        }
        lan.write_names();
        match delay_range {
            Some(delay_range) => lan.lay_cables(delay_range),
            None => lan,
        }
    }

    fn lay_cables(mut self, delay_range: DelayRange) -> Self {
        for (host, namespace) in &self.hosts {
            let (plug, socket) = (format!("plug{host}"), format!("socket{host}"));
            // Checksums and segmentation that are offloaded to a device are not done when packets go through user space.
            for (at, device) in [(namespace, "eth0"), (&self.switch, port(*host).as_str())] {
                let mut ethtool = at.command("ethtool");
                run(ethtool.args(["-K", device, "tx", "off", "tso", "off", "gso", "off"]));
            }
            let seed = *host as u64;
            self.cables.push(cable::start(
                self.switch.name(),
                [&plug, &socket],
                delay_range,
                seed,
            ));
        }
        self
    }

    /// The prefix of the names of its namespaces.
    pub(crate) fn prefix(&self) -> String {
        prefix(self.network)
    }

    pub(crate) fn hosts(&self) -> Vec<i64> {
        self.hosts.iter().map(|(host, _)| *host).collect()
    }

    pub(crate) fn host(&self, host: i64) -> &Namespace {
        &self.hosts[index(host)].1
    }

    pub(crate) fn address(&self, host: i64) -> Ipv4Addr {
        self.addresses.lock().unwrap()[index(host)]
    }

    /// Replaces the rules of the switch.
    #[track_caller]
    pub(crate) fn set_rules(&self, rules: &[PacketRule]) {
        let script = switch::script(rules, &self.hosts());
        feed(self.switch.command("nft").args(["-f", "-"]), &script);
    }

    /// Pulls the cable out of the switch: the devices at both ends go down, and connections get no notice.
    #[track_caller]
    pub(crate) fn pull(&self, host: i64) {
        self.switch
            .batch(&[format!("link set {} down", port(host))]);
    }

    #[track_caller]
    pub(crate) fn plug(&self, host: i64) {
        self.switch.batch(&[format!("link set {} up", port(host))]);
    }

    /// Gives a host another address, and updates its name in all hosts files.
    #[track_caller]
    pub(crate) fn readdress(&self, host: i64) {
        let [a, b, c, d] = self.address(host).octets();
        let new = Ipv4Addr::new(a, b, c, d + 20);
        self.addresses.lock().unwrap()[index(host)] = new;
        self.host(host).batch(&[
            "addr flush dev eth0".into(),
            format!("addr add {new}/24 dev eth0"),
        ]);
        self.write_names();
    }

    fn write_names(&self) {
        let lines = self
            .hosts()
            .into_iter()
            .map(|host| format!("{} {}\n", self.address(host), name(host)));
        let text = format!("127.0.0.1 localhost\n{}", lines.collect::<String>());
        for (_, namespace) in &self.hosts {
            namespace.write_overlay("hosts", &text);
        }
    }

    /// A command that runs on this host.
    pub(crate) fn command(&self, host: i64, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.host(host).command(program)
    }
}

fn index(host: i64) -> usize {
    usize::try_from(host - 1).expect("hosts count from 1")
}

fn first_address(host: i64) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, 0, u8::try_from(host).expect("few hosts"))
}

/// The name of a host.
pub(crate) fn name(host: i64) -> String {
    format!("server{host}")
}
