//! Tests stores of the type JKS, which the real server reads: the error of ours has the commands that convert them.

use std::{fs, path::Path, process::Command};

use quorum_cnx::{Config, ConfigBuilder, Sid};
use support::command::run;

use crate::{
    table::record,
    tls_ensemble::{TLS_ONLY, TlsEnsemble, ip},
};

const REAL: i64 = 1;
/// Ours, with the kinds of their keys. The first one has the stores of the real server.
const OURS: [(i64, &str); 2] = [(2, "RSA"), (3, "EC")];
const PASSWORD: &str = "of-the-stores";

pub(crate) fn jks_stores_are_converted_by_the_commands_in_the_errors() {
    let ensemble = TlsEnsemble::new(3);
    let directory = ensemble.directory();
    // As ZooKeeper's guide for administrators says: each server signs its own certificate, and all are in one trust store.
    for (sid, kind) in OURS {
        let store = format!("-keystore {sid}.jks -alias zk{sid}");
        let names = format!("san=ip:{},ip:127.0.0.1", ip(sid));
        let names = match kind {
            "RSA" => format!("{names},ip:{}", ip(REAL)),
            _ => names,
        };
        for line in [
            format!(
                "-genkeypair {store} -storetype JKS -keyalg {kind} -dname cn=zk{sid} -ext {names} -keypass {PASSWORD}"
            ),
            format!("-exportcert {store} -rfc -file {sid}.cer"),
            format!(
                "-importcert -noprompt -keystore trust.jks -storetype JKS -alias zk{sid} -file {sid}.cer"
            ),
        ] {
            shell(directory, &format!("keytool {line} -storepass {PASSWORD}"));
        }
    }
    let lines = |sid: i64| {
        let passwords = ["keyStore", "trustStore"]
            .map(|name| format!("ssl.quorum.{name}.password={PASSWORD}\n"));
        store_line(directory, "keyStore", &format!("{sid}.jks"))
            + &store_line(directory, "trustStore", "trust.jks")
            + &passwords.concat()
            + TLS_ONLY
    };
    let _server = ensemble.start(REAL, &(lines(OURS[0].0) + "fips-mode=false\n"), &[]);
    for (sid, kind) in OURS {
        let own = directory.join(format!("pem-{sid}"));
        fs::create_dir(&own).expect("a directory can be created");
        let mut lines = lines(sid);
        for (name, jks) in [
            ("keyStore", format!("{sid}.jks")),
            ("trustStore", "trust.jks".into()),
        ] {
            let commands = commands_in_error(&lines);
            let [to_pkcs12, to_pem] = &commands[..] else {
                panic!("{commands:?}");
            };
            // Both ask for the passwords otherwise.
            let passwords = format!("-srcstorepass {PASSWORD} -deststorepass {PASSWORD}");
            shell(&own, &format!("{to_pkcs12} {passwords}"));
            shell(&own, &format!("{to_pem} -passin pass:{PASSWORD}"));
            let (_, pem) = to_pem.split_once("-out ").unwrap();
            lines = lines.replace(
                &store_line(directory, name, &jks),
                &store_line(&own, name, pem),
            );
        }
        let mut seen = "linked, frames both ways";
        if kind == "EC" {
            let commands = commands_in_error(&lines);
            shell(&own, &commands[0]);
            shell(
                &own,
                "cat ec.pem keyStore.pem >both.pem; mv both.pem keyStore.pem",
            );
            seen = "the key lacks its public key; with it linked, frames both ways";
        }
        let member = ensemble.ours(sid, &[REAL], &lines, |builder| builder);
        assert!(member.await_up());
        member.exchange();
        member.assert_never_down();
        record(
            "JKS stores",
            &format!("JKS stores, {kind}, converted to PEM"),
            seen,
        );
    }
}

/// The line that names a store in this directory.
fn store_line(directory: &Path, name: &str, file: &str) -> String {
    format!(
        "ssl.quorum.{name}.location={}\n",
        directory.join(file).display()
    )
}

/// The commands in the error for a configuration with these lines.
fn commands_in_error(lines: &str) -> Vec<String> {
    let servers = "server.1=127.0.0.1:1:2\nserver.2=127.0.0.2:1:2\n";
    let config = Config::from_zoo_cfg(&format!("{lines}{servers}"), Sid(1));
    let why = config
        .and_then(ConfigBuilder::build)
        .unwrap_err()
        .to_string();
    let commands = why.split('`').skip(1).step_by(2);
    commands.map(str::to_owned).collect()
}

/// Runs a command line in this directory.
#[track_caller]
fn shell(directory: &Path, line: &str) {
    let mut command = Command::new("sh");
    command.current_dir(directory).args(["-c", line]);
    let output = run(command);
    assert!(output.status.success(), "{line}: {output:?}");
}
