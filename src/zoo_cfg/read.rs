//! Reads a [`ZooCfg`] from text, or from a file and the dynamic configuration file that it names.
//!
//! Nothing here knows what a key means.

use std::path::Path;

use super::{
    keys::{Origin, parse, parse_dynamic},
    properties::{Property, decode},
    types::{ZooCfg, ZooCfgError},
};
use crate::{error::ConfigError, file};

impl ZooCfg {
    /// Parses the text of a `zoo.cfg`. For the bytes of a file, which have their own encoding, use [`read`](Self::read).
    ///
    /// # Errors
    ///
    /// [`ConfigError::ZooCfg`] with the line and the mistake.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        ZooCfgReader::new().parse(text)
    }

    /// Parses the text of a dynamic configuration, as in the election messages of ZooKeeper 3.5 and later. Unlike a dynamic file,
    /// the text may have a `version` line.
    ///
    /// # Errors
    ///
    /// [`ConfigError::ZooCfg`] with the line and the mistake.
    pub fn parse_dynamic(text: &str) -> Result<Self, ConfigError> {
        Ok(parse_dynamic(text, Origin::Message)?)
    }

    /// Reads a `zoo.cfg` file, and the dynamic configuration file if it names one. The dynamic file is searched in the working
    /// directory, as in ZooKeeper, and then in the directory of the `zoo.cfg`.
    ///
    /// The encoding is ISO-8859-1, as in ZooKeeper. Other characters are written as `\u` and four hexadecimal digits.
    ///
    /// # Errors
    ///
    /// [`ConfigError::ZooCfg`] with the line and the mistake. The line is 0 if a file cannot be read, and for a mistake in the
    /// dynamic file: the text then names that file and its line.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        ZooCfgReader::new().read(path)
    }
}

/// Reads a `zoo.cfg` together with the flags of ZooKeeper's JVM, which are in no file.
///
/// # Examples
///
/// ```
/// use quorum_cnx::{Sid, ZooCfgReader};
///
/// let reader = ZooCfgReader::new().jvm_flag("-Dzookeeper.multiAddress.enabled=true")?;
/// let cfg = reader.parse("server.1=10.0.0.1:2888:3888|10.0.1.1:2888:3888")?;
/// assert_eq!(cfg.servers[0].election.len(), 2);
/// let config = cfg.builder(Sid(1)).build()?;
/// # Ok::<(), quorum_cnx::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a reader does nothing before it reads"]
pub struct ZooCfgReader {
    /// The values of keys that are not in the file.
    flags: ZooCfg,
}

/// The flags that are accepted here.
const FLAGS: &str = "zookeeper.multiAddress.enabled, zookeeper.cnxTimeout, zookeeper.electionPortBindRetry, \
                     zookeeper.fastleader.maxNotificationInterval, zookeeper.fastleader.minNotificationInterval, \
                     zookeeper.quorumCnxnTimeoutMs, zookeeper.tcpKeepAlive, and zookeeper.ssl.quorum.* with the feature tls-ring";

impl ZooCfgReader {
    /// Creates a reader without flags, like the one that [`ZooCfg::read`] uses.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a flag of ZooKeeper's JVM, as in `SERVER_JVMFLAGS`: `zookeeper.NAME=VALUE`, with or without `-D` in front. A key in the
    /// file overrides the flag.
    ///
    /// `zookeeper.multiAddress.enabled=true` allows servers to have several addresses. The key `multiAddress.enabled` in a file
    /// does not allow it, here as in ZooKeeper 3.6 to 3.9, where the parser of server lines never reads that key.
    ///
    /// # Errors
    ///
    /// [`ConfigError::BadOption`] if the flag has no meaning here, or its value is not allowed.
    pub fn jvm_flag(mut self, flag: &str) -> Result<Self, ConfigError> {
        let bad = |why| ConfigError::BadOption {
            option: "jvm_flag",
            why,
        };
        let text = flag.strip_prefix("-D").unwrap_or(flag);
        let Some((name, value)) = text.split_once('=') else {
            return Err(bad(format!("{flag:?} is not -DNAME=VALUE")));
        };
        let property = Property::new(0, name, value);
        match self.flags.take_flag(&property) {
            Ok(true) => Ok(self),
            Ok(false) => Err(bad(format!("{name:?} is none of {FLAGS}"))),
            Err(error) => Err(bad(error.why)),
        }
    }

    /// Parses the text of a `zoo.cfg`, as [`ZooCfg::parse`] does.
    ///
    /// # Errors
    ///
    /// [`ConfigError::ZooCfg`] with the line and the mistake.
    pub fn parse(&self, text: &str) -> Result<ZooCfg, ConfigError> {
        Ok(parse(text, &self.flags)?)
    }

    /// Parses the bytes of a `zoo.cfg` file as ISO-8859-1, as ZooKeeper does.
    ///
    /// # Errors
    ///
    /// [`ConfigError::ZooCfg`] with the line and the mistake.
    pub fn parse_bytes(&self, bytes: &[u8]) -> Result<ZooCfg, ConfigError> {
        self.parse(&decode(bytes))
    }

    /// Reads a `zoo.cfg` file, and the dynamic configuration file that it names, as [`ZooCfg::read`] does.
    ///
    /// # Errors
    ///
    /// The same as those of [`ZooCfg::read`].
    pub fn read(&self, path: impl AsRef<Path>) -> Result<ZooCfg, ConfigError> {
        let path = path.as_ref();
        let mut file = self.parse_bytes(&contents(path)?)?;
        let Some(dynamic) = &file.dynamic_config_file else {
            return Ok(file);
        };
        let name = &dynamic.name;
        let version = version_in_name(name).map_err(|why| ZooCfgError {
            line: dynamic.line,
            why,
        })?;
        let beside = path.parent().unwrap_or_else(|| Path::new("")).join(name);
        let bytes =
            contents(Path::new(name)).or_else(|error| contents(&beside).map_err(|_| error))?;
        let in_dynamic = |error: ZooCfgError| ConfigError::ZooCfg {
            line: 0,
            why: format!("{name} line {}: {}", error.line, error.why),
        };
        let found = parse_dynamic(&decode(&bytes), Origin::File).map_err(in_dynamic)?;
        file.check_addresses(&found.servers).map_err(in_dynamic)?;
        file.servers = found.servers;
        file.groups = found.groups;
        file.weights = found.weights;
        file.version = version;
        Ok(file)
    }
}

/// The version of a dynamic configuration. ZooKeeper writes it in hexadecimal after the last dot of the file's name
/// (`QuorumPeerConfig.getVersionFromFilename`). If the text there is not a number, the version is 0.
fn version_in_name(name: &str) -> Result<i64, String> {
    let end = name.rsplit_once('.').map(|(_, end)| end);
    match end.and_then(|end| i64::from_str_radix(end, 16).ok()) {
        Some(version) if version < 0 => Err(format!(
            "dynamicConfigFile: {name:?} ends with a negative version"
        )),
        version => Ok(version.unwrap_or(0)),
    }
}

fn contents(path: &Path) -> Result<Vec<u8>, ConfigError> {
    file::read(path).map_err(|error| ConfigError::ZooCfg {
        line: 0,
        why: format!("cannot read {}: {error}", path.display()),
    })
}

impl From<ZooCfgError> for ConfigError {
    fn from(error: ZooCfgError) -> Self {
        Self::ZooCfg {
            line: error.line,
            why: error.why,
        }
    }
}
