//! The keys of TLS between servers: which are obeyed, which are refused, and the stores that they name.
//!
//! Only [`ZooCfg::tls`] opens files.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use rustls::{
    SupportedProtocolVersion,
    crypto::CryptoProvider,
    version::{TLS12, TLS13},
};

use super::types::{SslValue, ZooCfg, ZooCfgError};
use crate::{
    error::ConfigError,
    tls::{Plaintext, Tls, pem},
};

/// What the keys say, checked.
struct Keys<'a> {
    key_store: (&'a SslValue, &'a Path),
    trust_store: (&'a SslValue, &'a Path),
    versions: Vec<&'static SupportedProtocolVersion>,
    provider: CryptoProvider,
    plaintext: Plaintext,
}

impl ZooCfg {
    /// Reads the key store and the trust store that the file names, and makes a [`Tls`] of them. `None` if the servers do not speak
    /// TLS. [`builder`](Self::builder) does the same. An application calls this to read them again when they have changed.
    ///
    /// # Errors
    ///
    /// [`ConfigError::ZooCfg`] with the line of the key, and what is wrong with its file.
    pub fn tls(&self) -> Result<Option<Tls>, ConfigError> {
        let Some(keys) = self.tls_keys()? else {
            return Ok(None);
        };
        let at = |value: &SslValue| {
            let line = value.line;
            move |error: ConfigError| match error {
                ConfigError::BadOption { why, .. } => ConfigError::ZooCfg { line, why },
                error => error,
            }
        };
        let ((key_store, key_path), (trust_store, trust_path)) = (keys.key_store, keys.trust_store);
        let own = pem::certified_key(key_path, key_path, &keys.provider).map_err(at(key_store))?;
        let roots = pem::certificates(trust_path).map_err(at(trust_store))?;
        let tls = Tls::builder(Arc::new(keys.provider), own, roots)
            .protocol_versions(&keys.versions)
            .build()
            .map_err(at(trust_store))?;
        Ok(Some(tls.plaintext(keys.plaintext)))
    }

    /// The files of the key store and of the trust store, which [`tls`](Self::tls) reads. None of them if the servers do not speak TLS.
    /// If [`reload_cert_files`](Self::reload_cert_files) is true, an application gives them to
    /// [`Handle::watch_tls_files`](crate::Handle::watch_tls_files).
    #[must_use]
    pub fn tls_files(&self) -> Vec<PathBuf> {
        // The keys were checked when the file was parsed.
        let Ok(Some(keys)) = self.tls_keys() else {
            return Vec::new();
        };
        [keys.key_store.1, keys.trust_store.1]
            .map(Path::to_path_buf)
            .into()
    }

    /// Checks the keys of TLS. `None` if the servers do not speak it: then ZooKeeper does not look at the other keys either.
    pub(super) fn check_tls(&self) -> Result<(), ZooCfgError> {
        self.tls_keys().map(drop)
    }

    fn tls_keys(&self) -> Result<Option<Keys<'_>>, ZooCfgError> {
        let ssl = |name: &str| self.ssl.get(name).filter(|value| !value.text.is_empty());
        let key_store = ssl("keyStore.location");
        let plaintext = match (self.ssl_quorum, self.port_unification) {
            (Some(_), false) => Plaintext::Refuse,
            (Some(_), true) => Plaintext::Accept,
            // The first step of ZooKeeper's upgrade to TLS. Before it, there may be no keys yet.
            (None, true) if key_store.is_some() => Plaintext::Dial,
            (None, _) => return Ok(None),
        };
        for (name, value) in &self.ssl {
            check_value(name, value)?;
        }
        let (key, line) = match self.ssl_quorum {
            Some(line) => ("sslQuorum", line),
            None => ("portUnification", 0),
        };
        let store = |name: &str| {
            let missing = || ZooCfgError {
                line,
                why: format!("{key}: ssl.quorum.{name}.location is missing"),
            };
            let location = ssl(&format!("{name}.location")).ok_or_else(missing)?;
            check_type(name, location, ssl(&format!("{name}.type")))?;
            Ok((location, Path::new(location.text.as_str())))
        };
        let versions = versions(ssl("protocol"), ssl("enabledProtocols"))?;
        Ok(Some(Keys {
            key_store: store("keyStore")?,
            trust_store: store("trustStore")?,
            provider: provider(ssl("ciphersuites"), &versions)?,
            versions,
            plaintext,
        }))
    }
}

/// Checks a key that stands for itself. Those that are not named here have no effect, as in ZooKeeper.
fn check_value(name: &str, value: &SslValue) -> Result<(), ZooCfgError> {
    let flag = || {
        bool::from_str(&value.text.to_ascii_lowercase())
            .map_err(|_| bad(name, value, "it is neither true nor false"))
    };
    match name {
        "crl" if flag()? => Err(bad(
            name,
            value,
            "ZooKeeper fetches revocation lists over the network, which this server does not: remove the key, and give the lists to \
             TlsBuilder::crls",
        )),
        "ocsp" if flag()? => Err(bad(
            name,
            value,
            "OCSP is not supported: remove the key, and use revocation lists or certificates of short validity",
        )),
        "context.supplier.class" if !value.text.is_empty() => Err(bad(
            name,
            value,
            "a Java class cannot be loaded: remove the key, and give a Tls to ConfigBuilder::tls",
        )),
        // Only checked: all of these can only make ZooKeeper less strict than this server, which always demands certificates and
        // their names, and never looks a name up for it.
        "hostnameVerification" | "clientHostnameVerification" | "allowReverseDnsLookup" => {
            flag().map(drop)
        }
        "clientAuth" if !is_one_of(&value.text, &["need", "want", "none"]) => {
            Err(bad(name, value, "it is none of need, want and none"))
        }
        _ => Ok(()),
    }
}

/// Checks that a store is a PEM file. ZooKeeper tells the type by the name of the file if there is no key.
fn check_type(
    store: &str,
    location: &SslValue,
    given: Option<&SslValue>,
) -> Result<(), ZooCfgError> {
    let extension = Path::new(&location.text).extension();
    let extension = extension.map(|extension| extension.to_string_lossy().into_owned());
    let (name, value) = match given {
        Some(given) => (format!("{store}.type"), given),
        None => (format!("{store}.location"), location),
    };
    let kind = match given {
        Some(given) => given.text.to_ascii_uppercase(),
        None => match extension.as_deref() {
            Some("p12") => "PKCS12".to_owned(),
            other => other.unwrap_or_default().to_ascii_uppercase(),
        },
    };
    // Both stores may lie in one folder, so that each command writes a file of its own.
    let to_pem = |from: &str| match store {
        "keyStore" => format!("openssl pkcs12 -in {from} -noenc -out keyStore.pem"),
        _ => format!("openssl pkcs12 -in {from} -nokeys -out {store}.pem"),
    };
    match kind.as_str() {
        "PEM" => Ok(()),
        "PKCS12" => Err(bad(
            &name,
            value,
            format!(
                "a PKCS12 store is not supported, use PEM: `{}`",
                to_pem(&location.text)
            ),
        )),
        "JKS" | "BCFKS" => Err(bad(
            &name,
            value,
            format!(
                "a {kind} store is not supported, use PEM: `keytool -importkeystore -srckeystore {} -srcstoretype {kind} \
                 -destkeystore {store}.p12 -deststoretype PKCS12`, then `{}`",
                location.text,
                to_pem(&format!("{store}.p12"))
            ),
        )),
        _ => Err(bad(
            &name,
            value,
            format!("the type of the store is not known, set ssl.quorum.{store}.type=PEM"),
        )),
    }
}

/// The versions that ZooKeeper enables: the list, or what the protocol brings in Java 11 and later.
fn versions(
    protocol: Option<&SslValue>,
    enabled: Option<&SslValue>,
) -> Result<Vec<&'static SupportedProtocolVersion>, ZooCfgError> {
    let (name, value) = match (protocol, enabled) {
        (_, Some(enabled)) => ("enabledProtocols", enabled),
        (Some(protocol), None) => ("protocol", protocol),
        (None, None) => return Ok(vec![&TLS13, &TLS12]),
    };
    let has = |version: &str| list(value).any(|given| given.eq_ignore_ascii_case(version));
    let versions = match (name, has("TLSv1.3"), has("TLSv1.2")) {
        ("protocol", true, _) => vec![&TLS13, &TLS12],
        ("protocol", ..) if has("TLS") => vec![&TLS13, &TLS12],
        (_, true, true) => vec![&TLS13, &TLS12],
        (_, true, false) => vec![&TLS13],
        (_, false, true) => vec![&TLS12],
        (_, false, false) => {
            return Err(bad(name, value, "TLSv1.2 and TLSv1.3 are supported"));
        }
    };
    Ok(versions)
}

/// The provider with the cipher suites of the list. Those of the list that it does not have are not offered. One at least must be of one
/// of these versions.
fn provider(
    suites: Option<&SslValue>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<CryptoProvider, ZooCfgError> {
    let mut provider = pem::provider();
    let Some(value) = suites else {
        return Ok(provider);
    };
    let all = provider.cipher_suites.clone();
    let java_name = |suite: &rustls::SupportedCipherSuite| {
        format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
    };
    provider
        .cipher_suites
        .retain(|suite| list(value).any(|given| given.eq_ignore_ascii_case(&java_name(suite))));
    if provider.cipher_suites.is_empty() {
        let names = all.iter().map(java_name).collect::<Vec<_>>().join(", ");
        return Err(bad(
            "ciphersuites",
            value,
            format!("none of them is supported; these are: {names}"),
        ));
    }
    let mut suites = provider.cipher_suites.iter();
    if !suites.any(|suite| versions.contains(&suite.version())) {
        return Err(bad(
            "ciphersuites",
            value,
            "none of them belongs to an enabled version of TLS",
        ));
    }
    Ok(provider)
}

fn list(value: &SslValue) -> impl Iterator<Item = &str> {
    value.text.split(',').map(str::trim)
}

fn is_one_of(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn bad(name: &str, value: &SslValue, why: impl AsRef<str>) -> ZooCfgError {
    ZooCfgError {
        line: value.line,
        why: format!("ssl.quorum.{name}: {}", why.as_ref()),
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
