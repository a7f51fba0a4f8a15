//! Parses the keys of a `zoo.cfg` and of a dynamic configuration.
//!
//! Nothing here opens a file, or decides what a missing key means.

use std::{collections::BTreeMap, time::Duration};

#[cfg(feature = "tls-ring")]
use super::types::SslValue;
use super::{
    properties::{Property, properties},
    server_line::{pieces, server},
    types::{DynamicFile, ZooCfg, ZooCfgError, ZooServer},
};
use crate::proto::Sid;

/// Parses a `zoo.cfg`. Keys that do not concern this crate are ignored. Keys that are not in the text have the values of `flags`.
pub(crate) fn parse(text: &str, flags: &ZooCfg) -> Result<ZooCfg, ZooCfgError> {
    let properties = properties(text)?;
    let mut draft = Draft {
        cfg: flags.clone(),
        ..Draft::default()
    };
    let is_dynamic = |property: &&Property| property.key == DYNAMIC_CONFIG_FILE;
    let dynamic = properties.iter().find(is_dynamic);
    for property in &properties {
        match dynamic {
            Some(dynamic) if is_of_ensemble(&property.key) => {
                return Err(property.bad(format!(
                    "must be in the file that {DYNAMIC_CONFIG_FILE} (line {}) names, not beside it",
                    dynamic.line
                )));
            }
            None if is_of_ensemble(&property.key) => draft.take_of_ensemble(property)?,
            None if property.key == VERSION => draft.cfg.version = version(property)?,
            _ => draft.cfg.take(property)?,
        }
    }
    draft.cfg.check_addresses(&draft.cfg.servers)?;
    #[cfg(feature = "tls-ring")]
    draft.cfg.check_tls()?;
    Ok(draft.cfg)
}

/// Where a dynamic configuration comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file. Its version is in its name, not in its text.
    File,
    /// An election message. Its version is in its text.
    Message,
}

/// Parses a dynamic configuration, in which ZooKeeper accepts no other keys. The reader of the `zoo.cfg` checks whether a server
/// may have several addresses: see [`ZooCfg::check_addresses`].
pub(crate) fn parse_dynamic(text: &str, origin: Origin) -> Result<ZooCfg, ZooCfgError> {
    let mut draft = Draft::default();
    for property in &properties(text)? {
        match property.key.as_str() {
            key if is_of_ensemble(key) => draft.take_of_ensemble(property)?,
            VERSION if origin == Origin::Message => draft.cfg.version = version(property)?,
            VERSION => {
                return Err(property.bad(
                    "does not belong in a dynamic file, which has its version at the end of its name: zoo.cfg.dynamic.100000000",
                ));
            }
            _ => return Err(property.bad("does not belong in a dynamic configuration")),
        }
    }
    Ok(draft.cfg)
}

const DYNAMIC_CONFIG_FILE: &str = "dynamicConfigFile";
const VERSION: &str = "version";
const MULTI_ADDRESS_FLAG: &str = "zookeeper.multiAddress.enabled";

/// Whether a key belongs in the dynamic configuration file, if there is one.
fn is_of_ensemble(key: &str) -> bool {
    ["server.", "group", "weight"]
        .iter()
        .any(|beginning| key.starts_with(beginning))
}

fn version(property: &Property) -> Result<i64, ZooCfgError> {
    let raw = &property.raw;
    match i64::from_str_radix(raw, 16) {
        Ok(version) if version < 0 => Err(property.bad(format!("{raw} is less than 0"))),
        Ok(version) => Ok(version),
        Err(_) => Err(property.bad(format!("{raw:?} is not a hexadecimal number"))),
    }
}

/// The configuration as read so far, and the line of each server, group and weight.
#[derive(Default)]
struct Draft {
    cfg: ZooCfg,
    servers: BTreeMap<Sid, usize>,
    groups: BTreeMap<i64, usize>,
    weights: BTreeMap<Sid, usize>,
}

impl Draft {
    /// Adds a `server`, `group` or `weight` line.
    fn take_of_ensemble(&mut self, property: &Property) -> Result<(), ZooCfgError> {
        let key = property.key.as_str();
        if property.padded_key {
            return Err(property.bad("there are blanks around the key"));
        }
        if let Some(id) = key.strip_prefix("server.") {
            let sid = property.id(id)?;
            if let Some(first) = self.servers.insert(sid, property.line) {
                let why = format!("server {sid} is in line {first} already");
                return Err(property.bad(why));
            }
            self.cfg.servers.push(server(property, sid)?);
        } else if let Some(id) = key.strip_prefix("group.") {
            self.take_group(property, property.id(id)?.0)?;
        } else if let Some(id) = key.strip_prefix("weight.") {
            let sid = property.id(id)?;
            let raw = &property.raw;
            let weight = raw.parse::<i64>().map_err(|_| {
                property.bad(format!(
                    "{raw:?} is not a whole number of at most {}",
                    i64::MAX
                ))
            })?;
            if weight < 0 {
                return Err(property.bad(format!("{weight} is less than 0")));
            }
            if let Some(first) = self.weights.insert(sid, property.line) {
                let why = format!("the weight of server {sid} is in line {first} already");
                return Err(property.bad(why));
            }
            self.cfg.weights.insert(sid, weight);
        } else {
            return Err(property.bad(
                "ZooKeeper takes each key that begins like this for a group or a weight, write group.N or weight.N",
            ));
        }
        Ok(())
    }

    fn take_group(&mut self, property: &Property, group: i64) -> Result<(), ZooCfgError> {
        let members = pieces(&property.raw, ':').into_iter();
        let members = members.map(|sid| property.id(sid));
        let members = members.collect::<Result<Vec<Sid>, _>>()?;
        if members.is_empty() {
            return Err(property.bad("there is no server in it"));
        }
        if let Some(first) = self.groups.insert(group, property.line) {
            let why = format!("group {group} is in line {first} already");
            return Err(property.bad(why));
        }
        for (at, sid) in members.iter().enumerate() {
            let mut others = self.cfg.groups.values();
            if members[..at].contains(sid) || others.any(|group| group.contains(sid)) {
                return Err(property.bad(format!("server {sid} is in a group already")));
            }
        }
        self.cfg.groups.insert(group, members);
        Ok(())
    }
}

impl ZooCfg {
    /// Refuses servers with several addresses unless a flag allows them. ZooKeeper also reads the key `multiAddress.enabled` in the
    /// file, but its parser of server lines uses only the flag.
    pub(crate) fn check_addresses(&self, servers: &[ZooServer]) -> Result<(), ZooCfgError> {
        let several = |server: &&ZooServer| server.election.len() > 1;
        match servers.iter().find(several) {
            Some(server) if !self.several_addresses => Err(ZooCfgError {
                line: server.line,
                why: format!(
                    "server.{}: several addresses, which the flag -D{MULTI_ADDRESS_FLAG}=true of ZooKeeper's JVM allows, and \
                     not the key multiAddress.enabled: give the flag here too",
                    server.sid
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Stores the value of a flag of the JVM. Returns whether the flag has a meaning here.
    pub(super) fn take_flag(&mut self, flag: &Property) -> Result<bool, ZooCfgError> {
        if flag.key == MULTI_ADDRESS_FLAG {
            self.several_addresses = flag.flag()?;
            self.multi_address_enabled = self.several_addresses;
            return Ok(true);
        }
        match flag.key.strip_prefix("zookeeper.") {
            Some(name) => self.take_system_property(name, flag),
            None => Ok(false),
        }
    }

    /// Stores a value that ZooKeeper reads from a system property of its JVM. There, a key of the file sets `zookeeper.KEY`.
    /// Returns whether the name has a meaning here.
    fn take_system_property(
        &mut self,
        name: &str,
        property: &Property,
    ) -> Result<bool, ZooCfgError> {
        match name {
            "cnxTimeout" => self.cnx_timeout = Some(property.millis()?),
            "electionPortBindRetry" => {
                self.election_port_bind_retry = u32::try_from(property.integer()?).ok();
            }
            "fastleader.maxNotificationInterval" => {
                property.integer()?;
                self.max_notification_interval = Some(property.millis()?);
            }
            "fastleader.minNotificationInterval" => {
                property.integer()?;
                self.min_notification_interval = Some(property.millis()?);
            }
            "quorumCnxnTimeoutMs" => {
                self.quorum_cnxn_timeout = match property.integer()? {
                    ..=0 => None,
                    _ => Some(property.millis()?),
                };
            }
            // Only checked: keepalive is always on.
            "tcpKeepAlive" => drop(property.flag()?),
            _ => return Ok(self.take_ssl(name, property)),
        }
        Ok(true)
    }

    /// Stores a key of TLS between servers. Returns whether it is one. Without the feature, it has no meaning.
    #[cfg(feature = "tls-ring")]
    fn take_ssl(&mut self, name: &str, property: &Property) -> bool {
        let Some(name) = name.strip_prefix("ssl.quorum.") else {
            return false;
        };
        // A store in a PEM file has no password, and a password must not be printed.
        if !name.contains("password") {
            let (line, text) = (property.line, property.value().to_owned());
            self.ssl.insert(name.to_owned(), SslValue { line, text });
        }
        true
    }

    #[cfg(not(feature = "tls-ring"))]
    fn take_ssl(&self, _name: &str, _property: &Property) -> bool {
        false
    }

    fn take(&mut self, property: &Property) -> Result<(), ZooCfgError> {
        match property.key.as_str() {
            DYNAMIC_CONFIG_FILE => {
                let (line, name) = (property.line, property.value().to_owned());
                if name.is_empty() {
                    return Err(property.bad("it names no file"));
                }
                self.dynamic_config_file = Some(DynamicFile { line, name });
            }
            // The value is for the user of `ZooCfg`. Here it is only checked, so that a typing error is reported.
            "initLimit" => self.init_limit = Some(property.count()?),
            "multiAddress.enabled" => self.multi_address_enabled = property.flag()?,
            #[cfg(feature = "tls-ring")]
            "portUnification" => self.port_unification = property.flag()?,
            // Only checked: it says what a port accepts besides TLS, which has no effect here.
            #[cfg(not(feature = "tls-ring"))]
            "portUnification" => drop(property.flag()?),
            "quorumListenOnAllIPs" => self.quorum_listen_on_all_ips = property.flag()?,
            "reconfigEnabled" => self.reconfig_enabled = property.flag()?,
            #[cfg(feature = "tls-ring")]
            "sslQuorum" => self.ssl_quorum = property.flag()?.then_some(property.line),
            #[cfg(not(feature = "tls-ring"))]
            "sslQuorum" if property.flag()? => {
                return Err(property.bad(
                    "the servers speak TLS to each other, which this one does only with the feature tls-ring; votes would go out in \
                     the clear",
                ));
            }
            #[cfg(feature = "tls-ring")]
            "sslQuorumReloadCertFiles" => self.reload_cert_files = property.flag()?,
            // With SASL enabled but not required, a server still accepts plain connections. But it must answer connections that
            // authenticate, and the others send such connections as soon as learnerRequireSasl is set in their files.
            "quorum.auth.enableSasl"
            | "quorum.auth.learnerRequireSasl"
            | "quorum.auth.serverRequireSasl"
                if property.flag()? =>
            {
                return Err(property.bad(
                    "the servers authenticate each other with SASL, which this one does not speak",
                ));
            }
            "syncLimit" => self.sync_limit = Some(property.count()?),
            "tickTime" => self.tick_time = Some(property.millis()?),
            key => drop(self.take_system_property(key, property)?),
        }
        Ok(())
    }
}

impl Property {
    /// A whole number in the range of Java's `int`, so that ZooKeeper accepts every number that is accepted here.
    fn number(&self) -> Result<i32, ZooCfgError> {
        let value = self.value();
        value.parse().map_err(|_| {
            self.bad(format!(
                "{value:?} is not a whole number of at most {}",
                i32::MAX
            ))
        })
    }

    /// A number that Java reads with `Integer.getInteger`, which takes a number with a leading zero as octal.
    fn integer(&self) -> Result<i32, ZooCfgError> {
        let digits = self.value().trim_start_matches(['+', '-']);
        if digits.len() > 1 && digits.starts_with('0') {
            let why = format!(
                "{:?} begins with 0, which makes it octal in Java",
                self.value()
            );
            return Err(self.bad(why));
        }
        self.number()
    }

    fn count(&self) -> Result<u32, ZooCfgError> {
        match u32::try_from(self.number()?) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(self.bad(format!("{} is less than 1", self.value()))),
        }
    }

    fn millis(&self) -> Result<Duration, ZooCfgError> {
        Ok(Duration::from_millis(u64::from(self.count()?)))
    }

    fn flag(&self) -> Result<bool, ZooCfgError> {
        match self.value().to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.bad(format!("{:?} is neither true nor false", self.value()))),
        }
    }

    fn id(&self, text: &str) -> Result<Sid, ZooCfgError> {
        match text.parse() {
            Ok(sid) if (0..i64::MAX).contains(&sid) => Ok(Sid(sid)),
            _ => {
                let max = i64::MAX - 1;
                Err(self.bad(format!("{text:?} is not an id, a number from 0 to {max}")))
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
