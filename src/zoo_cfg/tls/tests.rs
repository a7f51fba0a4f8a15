//! The keys of TLS, with key stores in files.

use std::{fs, path::PathBuf, process};

use rustls::ProtocolVersion;

use super::*;
use crate::{config::Config, proto::Sid, tls::fixture::Ca, zoo_cfg::ZooCfgReader};

const SERVERS: &str = "server.1=zk1.example:2888:3888\nserver.2=zk2.example:2888:3888\n";

/// A folder with the stores of server 1. It goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("quorum-cnx-{}-{name}", process::id()));
        fs::create_dir_all(&path).unwrap();
        let ca = Ca::new("CA");
        let folder = Self(path);
        folder.write("key.pem", &ca.names(&["zk1.example"]).key_store(&ca));
        folder.write("ca.pem", &ca.pem);
        folder
    }

    fn path(&self, file: &str) -> String {
        self.0.join(file).display().to_string()
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.join(file), text).unwrap();
    }

    /// A file with both stores, which begins with these lines.
    fn cfg(&self, lines: &str) -> String {
        let (key, ca) = (self.path("key.pem"), self.path("ca.pem"));
        format!(
            "{lines}ssl.quorum.keyStore.location={key}\nssl.quorum.trustStore.location={ca}\n{SERVERS}"
        )
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn zoo_cfg_error<T: std::fmt::Debug>(result: Result<T, ConfigError>) -> (usize, String) {
    match result {
        Err(ConfigError::ZooCfg { line, why }) => (line, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn stores_are_read_and_used() {
    let folder = Folder::new("stores");
    let text = folder.cfg(
        "sslQuorum=true\nssl.quorum.keyStore.password=secret\nsslQuorumReloadCertFiles=true\n",
    );
    let cfg = ZooCfg::parse(&text).unwrap();
    assert!(cfg.reload_cert_files);
    assert!(!format!("{cfg:?}").contains("secret"));
    assert!(cfg.tls().unwrap().unwrap().not_after().is_some());
    let files = ["key.pem", "ca.pem"].map(|file| PathBuf::from(folder.path(file)));
    assert_eq!(cfg.tls_files(), files);
    let config = Config::from_zoo_cfg(&text, Sid(1))
        .unwrap()
        .build()
        .unwrap();
    let options = config.options.tls.unwrap();
    assert!(options.tls.dials_tls() && !options.tls.accepts_plain());
    assert!(options.identities.has_names(Sid(2)));
}

#[test]
fn three_steps_of_the_upgrade_are_obeyed() {
    let folder = Folder::new("steps");
    for (lines, expected) in [
        ("portUnification=true\n", Some((true, false))),
        ("sslQuorum=true\nportUnification=true\n", Some((true, true))),
        ("sslQuorum=true\n", Some((false, true))),
        ("sslQuorum=false\n", None),
        ("", None),
    ] {
        let tls = ZooCfg::parse(&folder.cfg(lines)).unwrap().tls().unwrap();
        let found = tls.map(|tls| (tls.accepts_plain(), tls.dials_tls()));
        assert_eq!(found, expected, "{lines}");
    }
    let without_stores = ZooCfg::parse(&format!("portUnification=true\n{SERVERS}"));
    assert!(without_stores.unwrap().tls().unwrap().is_none());
}

#[test]
fn keys_have_no_effect_without_tls() {
    for line in [
        "ssl.quorum.ocsp=true",
        "ssl.quorum.keyStore.type=JKS",
        "ssl.quorum.clientAuth=perhaps",
        "ssl.quorum.ciphersuites=none",
        "ssl.ocsp=true",
    ] {
        let cfg = ZooCfg::parse(&format!("{line}\n{SERVERS}")).unwrap();
        assert!(cfg.tls().unwrap().is_none(), "{line}");
        assert!(cfg.tls_files().is_empty(), "{line}");
    }
}

#[test]
fn unsupported_values_are_refused_by_name() {
    let folder = Folder::new("refused");
    for (line, said) in [
        ("crl=true", "TlsBuilder::crls"),
        ("crl=maybe", "neither true nor false"),
        ("ocsp=true", "OCSP is not supported"),
        ("context.supplier.class=org.example.Supplier", "Java class"),
        ("clientAuth=perhaps", "need, want and none"),
        ("hostnameVerification=off", "neither true nor false"),
        ("protocol=TLSv1.1", "TLSv1.2 and TLSv1.3"),
        ("enabledProtocols=SSLv3,TLSv1", "TLSv1.2 and TLSv1.3"),
        (
            "ciphersuites=TLS_RSA_WITH_AES_128_CBC_SHA",
            "TLS_AES_128_GCM_SHA256",
        ),
        ("keyStore.type=jks", "keytool -importkeystore"),
        ("keyStore.type=PKCS12", "openssl pkcs12"),
        ("trustStore.type=BCFKS", "-nokeys"),
        ("trustStore.type=TEXT", "ssl.quorum.trustStore.type=PEM"),
    ] {
        let text = folder.cfg(&format!("sslQuorum=true\nssl.quorum.{line}\n"));
        let (at, why) = zoo_cfg_error(ZooCfg::parse(&text));
        let key = line.split('=').next().unwrap();
        assert!(why.starts_with(&format!("ssl.quorum.{key}: ")), "{why}");
        assert!(why.contains(said), "{line}: {why}");
        assert_eq!(at, 2, "{why}");
    }
    for (name, said) in [
        ("zk.jks", "keytool"),
        (
            "zk.p12",
            "`openssl pkcs12 -in zk.p12 -noenc -out keyStore.pem`",
        ),
        ("zk", "type=PEM"),
    ] {
        let key = "ssl.quorum.keyStore.location";
        let (at, why) = zoo_cfg_error(ZooCfg::parse(&format!("{key}={name}\nsslQuorum=true\n")));
        assert_eq!(
            (at, why.starts_with(key), why.contains(said)),
            (1, true, true),
            "{why}"
        );
    }
    let (at, why) = zoo_cfg_error(ZooCfg::parse("\nsslQuorum=true\n"));
    let missing = "sslQuorum: ssl.quorum.keyStore.location is missing";
    assert_eq!((at, &why[..]), (2, missing));
    let first_step = "portUnification=true\nssl.quorum.keyStore.location=zk.pem\n";
    let (_, why) = zoo_cfg_error(ZooCfg::parse(first_step));
    assert_eq!(
        why,
        "portUnification: ssl.quorum.trustStore.location is missing"
    );
    let no_suite = "ssl.quorum.ciphersuites=TLS_AES_128_GCM_SHA256\n";
    let no_suite = format!("{no_suite}ssl.quorum.enabledProtocols=TLSv1.2\nsslQuorum=true\n");
    let (at, why) = zoo_cfg_error(ZooCfg::parse(&folder.cfg(&no_suite)));
    let belongs = "ssl.quorum.ciphersuites: none of them belongs to an enabled version of TLS";
    assert_eq!((at, &why[..]), (1, belongs));
}

#[test]
fn stricter_than_the_key_is_accepted() {
    let folder = Folder::new("stricter");
    for line in [
        "hostnameVerification=false",
        "clientHostnameVerification=false",
        "allowReverseDnsLookup=true",
        "clientAuth=none",
        "clientAuth=Want",
        "crl=false",
        "ocsp=false",
        "context.supplier.class=",
        "handshakeDetectionTimeoutMillis=5000",
        "trustStore.passwordPath=/nowhere",
        "keyStore.type=pem",
    ] {
        let text = folder.cfg(&format!("sslQuorum=true\nssl.quorum.{line}\n"));
        assert!(
            ZooCfg::parse(&text).unwrap().tls().unwrap().is_some(),
            "{line}"
        );
    }
}

#[test]
fn versions_and_suites_are_those_of_the_file() {
    use ProtocolVersion::{TLSv1_2, TLSv1_3};
    let folder = Folder::new("versions");
    for (line, expected) in [
        ("protocol=TLSv1.3", &[TLSv1_3, TLSv1_2][..]),
        ("protocol=TLSv1.2", &[TLSv1_2]),
        ("protocol=TLS", &[TLSv1_3, TLSv1_2]),
        ("enabledProtocols=TLSv1.3", &[TLSv1_3]),
        ("enabledProtocols=TLSv1.1, TLSv1.2", &[TLSv1_2]),
        ("enabledProtocols=TLSv1.2,TLSv1.3", &[TLSv1_3, TLSv1_2]),
    ] {
        let text = folder.cfg(&format!("sslQuorum=true\nssl.quorum.{line}\n"));
        let cfg = ZooCfg::parse(&text).unwrap();
        let keys = cfg.tls_keys().unwrap().unwrap();
        let found: Vec<_> = keys
            .versions
            .iter()
            .map(|version| version.version)
            .collect();
        assert_eq!(found, expected, "{line}");
    }
    let suites =
        "TLS_AES_128_GCM_SHA256,TLS_RSA_WITH_AES_128_CBC_SHA,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
    let text = folder.cfg(&format!(
        "sslQuorum=true\nssl.quorum.ciphersuites={suites}\n"
    ));
    let cfg = ZooCfg::parse(&text).unwrap();
    assert_eq!(
        cfg.tls_keys()
            .unwrap()
            .unwrap()
            .provider
            .cipher_suites
            .len(),
        2
    );
    assert!(cfg.tls().unwrap().is_some());
}

/// A key as `keytool` writes it.
const KEY_OF_JAVA: &str = "\
-----BEGIN PRIVATE KEY-----
MEECAQAwEwYHKoZIzj0CAQYIKoZIzj0DAQcEJzAlAgEBBCB/bZFa3Wa05RBXQ6LM
+LdleA2mOO8d5n1iqRc8AiOi+w==
-----END PRIVATE KEY-----
";

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = Folder::new("files");
    let text = folder.cfg("sslQuorum=true\n");
    let build = || {
        let builder = Config::from_zoo_cfg(&text, Sid(1)).unwrap();
        zoo_cfg_error(builder.build())
    };
    let pem_of_key = fs::read_to_string(folder.path("key.pem")).unwrap();
    let (_, certificates) = pem_of_key.split_once("-----BEGIN CERTIFICATE").unwrap();
    let certificates = format!("-----BEGIN CERTIFICATE{certificates}");
    let locked =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let stranger = Ca::new("CA").names(&["zk1.example"]).key.serialize_pem();
    for (text, said) in [
        (certificates.clone(), "there is no private key"),
        (
            locked.to_owned() + &certificates,
            "the private key is encrypted",
        ),
        (
            stranger + &certificates,
            "is not the certificate of the key in",
        ),
        (
            KEY_OF_JAVA.to_owned() + &certificates,
            "lacks its public key: `openssl ec -in ",
        ),
        (String::new(), "there is no certificate"),
    ] {
        folder.write("key.pem", &text);
        let (line, why) = build();
        assert_eq!((line, why.contains(said)), (2, true), "{why}");
        assert!(why.contains("key.pem"), "{why}");
    }
    folder.write("key.pem", &pem_of_key);
    fs::remove_file(folder.path("ca.pem")).unwrap();
    let (line, why) = build();
    assert_eq!(
        (line, why.contains("ca.pem: No such file")),
        (3, true),
        "{why}"
    );
}

#[test]
fn flags_of_the_jvm_are_the_same_keys() {
    let folder = Folder::new("flags");
    let (key, ca) = (folder.path("key.pem"), folder.path("ca.pem"));
    let reader = ZooCfgReader::new()
        .jvm_flag(&format!("-Dzookeeper.ssl.quorum.keyStore.location={key}"))
        .and_then(|reader| {
            reader.jvm_flag(&format!("-Dzookeeper.ssl.quorum.trustStore.location={ca}"))
        })
        .unwrap();
    let text = format!("sslQuorum=true\n{SERVERS}");
    assert!(reader.parse(&text).unwrap().tls().unwrap().is_some());
    // A key of the file counts more.
    let text = format!("ssl.quorum.keyStore.location=a.jks\n{text}");
    assert_eq!(zoo_cfg_error(reader.parse(&text)).0, 1);
}
