//! A member as `openssl s_client` sees it: which versions, suites and extensions it accepts, and which it refuses.
//!
//! The other tests speak rustls at both ends, which would agree about a mistake. Needs the program openssl, of version 3.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use quorum_cnx::ReasonKind;
use rcgen::KeyPair;
use support::tls::{directory, write_files};

use super::*;

/// Allows what OpenSSL itself offers no more, so that the member must refuse it.
const ALL: &str = "ALL:COMPLEMENTOFALL:@SECLEVEL=0";

/// What becomes of a connection.
enum Seen {
    /// The handshake is over, and the member believes the certificate. OpenSSL prints each of these, and none of those.
    Accepted(&'static [&'static str], &'static [&'static str]),
    /// OpenSSL prints this. The member has refused it for this reason.
    Refused(&'static str, ReasonKind),
}
use Seen::{Accepted, Refused};

const REFUSED: Seen = Refused("alert handshake failure", ReasonKind::TlsProtocol);

/// Options of `s_client`, what is seen, and why it must be so.
#[rustfmt::skip]
const TABLE: &[(&str, Seen, &str)] = &[
    ("", Accepted(&["New, TLSv1.3, Cipher is TLS_", "Verify return code: 0 (ok)"], &[]), "the best version of both is used"),
    ("-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256", Accepted(&["TLS_CHACHA20_POLY1305_SHA256"], &[]), "all suites of RFC 8446 but CCM"),
    ("-tls1_2", Accepted(&["New, TLSv1.2, Cipher is ECDHE-"], &[]), "ZooKeeper 3.8 speaks 1.2 by default"),
    ("-tls1", REFUSED, "RFC 8996"),
    ("-tls1_1", REFUSED, "RFC 8996"),
    ("-tls1_2 -cipher kRSA:@SECLEVEL=0", REFUSED, "no forward secrecy"),
    ("-tls1_2 -cipher kDHE:@SECLEVEL=0", REFUSED, "groups of any size and quality"),
    ("-tls1_2 -cipher SHA1:SHA256:SHA384:!AESGCM:!CHACHA20:!AESCCM:@SECLEVEL=0", REFUSED, "CBC: Lucky 13"),
    ("-tls1_2 -cipher aNULL:eNULL:@SECLEVEL=0", REFUSED, "no authentication, or no encryption"),
    ("-tls1_2 -sigalgs RSA+SHA1:ECDSA+SHA1 -cipher ECDHE:@SECLEVEL=0", REFUSED, "RFC 9155: SHA-1 can be forged"),
    ("-tls1_2 -cipher ECDHE", Accepted(&["Secure Renegotiation IS supported", "Compression: NONE", "Extended master secret: yes"], &[]),
        "RFC 5746, CRIME, RFC 7627"),
    ("-tls1_3", Accepted(&["Acceptable client certificate CA names\nCN = CA of the members"], &[]),
        "a dialer chooses its certificate by the CAs that are believed"),
    ("-tls1_2", Accepted(&["Acceptable client certificate CA names\nCN = CA of the members"], &[]), "the same"),
    ("-noservername", Accepted(&["subject=CN = member"], &[]), "a dialer of this library sends no name"),
    ("-servername other.example", Accepted(&["subject=CN = member"], &[]), "and another one changes nothing"),
    ("-alpn h2", Accepted(&["No ALPN negotiated"], &[]), "there is one protocol"),
    ("-tls1_3 -sess_out SESSION", Accepted(&["Max Early Data: 0"], &["Early data was accepted"]), "early data can be replayed"),
    ("-tls1_3 -sess_in SESSION", Accepted(&["\nNew, TLSv1.3"], &["\nReused"]), "a link that is resumed has its certificate verified no more"),
    ("-tls1_3 -sess_in SESSION -early_data EARLY", Accepted(&["Early data was not sent", "\nNew, TLSv1.3"], &["\nReused"]), "the same"),
    ("-tls1_2 -sess_out SESSION", Accepted(&["\nNew, TLSv1.2"], &["TLS session ticket:"]), "no ticket, which is as good as a key"),
    ("-tls1_2 -sess_in SESSION", Accepted(&["\nNew, TLSv1.2"], &["\nReused"]), "nor an id"),
];

/// A member, and what OpenSSL needs to be the other one.
struct Port {
    servers: Servers,
    manager: CnxManager,
    at: PathBuf,
}

impl Port {
    /// Both members have a key of this kind.
    fn open(kind: &str, key: impl Fn() -> KeyPair) -> Self {
        let servers = Servers::new(&[1, 2]);
        let own = |sid| {
            let params = params("member", &[&name_of(sid)]);
            servers.ca.sign_key(&params, key())
        };
        let at = directory(&format!("openssl {kind}"));
        write_files(&at, &own(2), &servers.ca);
        fs::write(at.join("EARLY"), "early").unwrap();
        let config = servers.secure(1, own(1).tls(&servers.ca).build().unwrap());
        let manager = CnxManager::start(config.build().unwrap()).unwrap();
        Self {
            servers,
            manager,
            at,
        }
    }

    /// Runs `s_client` until the member hangs up, with this input, and returns what it prints.
    fn s_client(&self, options: &str, input: &'static str) -> String {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-verify_return_error", "-CAfile", "ca.crt"]);
        command.args(["-connect", self.servers.address(1)]);
        command.args(options.split_whitespace());
        if !options.contains("-cipher ") {
            command.args(["-cipher", ALL]);
        }
        command.current_dir(&self.at);
        let pipe = Stdio::piped;
        command.stdin(pipe()).stdout(pipe()).stderr(pipe());
        let output = within("openssl", move || {
            let started = command.spawn();
            let mut child = started.unwrap_or_else(|error| panic!("NOT RUN: openssl: {error}"));
            let mut stdin = child.stdin.take().unwrap();
            // Fails when it has ended. It stays open until then: else it would end at once.
            let _ = stdin.write_all(input.as_bytes());
            let output = child.wait_with_output().unwrap();
            drop(stdin);
            output
        });
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// With its certificate. The input is the sid of nobody, so that a member that believes the certificate refuses its name.
    fn connect(&self, options: &str) -> String {
        let own = format!("-cert tls.crt -key tls.key {options}");
        self.s_client(&own, "a server")
    }
}

fn rsa_key() -> KeyPair {
    // ring makes no RSA keys.
    let mut command = Command::new("openssl");
    command.args(["genpkey", "-quiet", "-algorithm", "RSA"]);
    let output = command.output().unwrap();
    KeyPair::from_pem(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

#[test]
fn openssl_sees_what_is_accepted_and_what_is_refused() {
    // Suites of TLS 1.2 depend on the kind of the key.
    for port in [
        Port::open("ecdsa", || KeyPair::generate().unwrap()),
        Port::open("rsa", rsa_key),
    ] {
        for (options, seen, why) in TABLE {
            let printed = port.connect(options);
            let (_, reason) = rejected(&port.manager);
            let told = format!("{options}: {why}: {reason}\n{printed}");
            match seen {
                Accepted(has, has_not) => {
                    assert_eq!(reason.kind(), ReasonKind::TlsWrongName, "{told}");
                    for text in *has {
                        assert!(printed.contains(text), "no {text:?}: {told}");
                    }
                    for text in *has_not {
                        assert!(!printed.contains(text), "{text:?}: {told}");
                    }
                }
                Refused(alert, kind) => {
                    assert_eq!(reason.kind(), *kind, "{told}");
                    assert!(printed.contains(alert), "no {alert:?}: {told}");
                }
            }
        }
    }
}

#[test]
fn openssl_without_a_certificate_is_refused() {
    let port = Port::open("anonymous", || KeyPair::generate().unwrap());
    for options in ["-tls1_3", "-tls1_2"] {
        let printed = port.s_client(options, "");
        let has_alert = printed.contains("alert certificate required");
        assert!(has_alert, "{options}: {printed}");
        let (_, reason) = rejected(&port.manager);
        assert_eq!(reason, Reason::Tls(TlsFailure::NoCertificate));
    }
}

/// A handshake within a handshake was how strangers put bytes in front of those of a member (CVE-2009-3555).
#[test]
fn openssl_cannot_renegotiate() {
    let port = Port::open("renegotiation", || KeyPair::generate().unwrap());
    let printed = port.s_client("-tls1_2 -cert tls.crt -key tls.key", "R\n");
    assert!(printed.contains("RENEGOTIATING"), "{printed}");
    assert!(printed.contains("no renegotiation"), "{printed}");
}
