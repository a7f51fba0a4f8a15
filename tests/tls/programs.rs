//! The programs, built with the feature `tls-ring`: their options of TLS, and what the demonstration shows.

use std::{fs, path::Path};

use support::{
    ReservedAddress,
    command::{run, signal},
    ensemble::ElectionProcess,
    example::example_path,
    program::{Peer, program},
    tls::{Own, directory, write_files},
};

use super::*;

/// The options of a server whose files are in this directory.
fn options(at: &Path, names: &[i64]) -> Vec<String> {
    let files = [
        ("--tls-cert", "tls.crt"),
        ("--tls-key", "tls.key"),
        ("--tls-ca", "ca.crt"),
    ];
    let files =
        files.map(|(option, file)| [option.to_owned(), at.join(file).display().to_string()]);
    let names = names
        .iter()
        .map(|sid| ["--tls-name".to_owned(), format!("{sid}={}", name_of(*sid))]);
    files.into_iter().chain(names).flatten().collect()
}

/// Starts the program `peer` with these files.
fn start(at: &Path, sid: i64, servers: &[(i64, &str)], more: &[&str]) -> Peer {
    let options = options(at, &[1, 2]);
    let options: Vec<&str> = options
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect();
    Peer::start(sid, servers, &options)
}

#[test]
fn peers_link_with_tls_and_reload_on_a_signal() {
    let servers = Servers::new(&[1, 2]);
    let at = directory("tls peers");
    for sid in [1, 2] {
        write_files(
            &at.join(sid.to_string()),
            &servers.ca.member(sid),
            &servers.ca,
        );
    }
    let list = [1, 2].map(|sid| (sid, servers.address(sid)));
    let mut one = start(&at.join("1"), 1, &list, &[]);
    let mut two = start(&at.join("2"), 2, &list, &[]);
    two.next("up");
    two.tell("send 1 hello");
    assert_eq!(one.next("frame")["hex"], "68656c6c6f");
    // A file that cannot be used is named, and the link stays.
    fs::write(at.join("2/tls.crt"), "nothing").unwrap();
    signal(&two.child, "HUP");
    let error = two.next("error");
    assert!(
        error["message"].as_str().unwrap().contains("tls.crt"),
        "{error}"
    );
    assert_eq!(two.stats()["peers"][0]["linked"], true);
    write_files(&at.join("2"), &servers.ca.member(2), &servers.ca);
    signal(&two.child, "HUP");
    two.next("tls-reloaded");
    // The larger sid dials anew.
    assert_eq!(two.next("down")["reason"], "replaced");
    two.next("up");
    // A stranger without TLS is refused, with the reason.
    let _stranger = TestConnection::dial_and_write(STRANGER_IP, servers.address(1), &bare(2));
    assert_eq!(one.next("rejected")["reason"], "tls-plaintext");
    one.tell("stats");
    two.quit();
    one.quit();
}

#[test]
fn certificates_that_cannot_be_used_are_refused_with_a_reason() {
    let servers = Servers::new(&[1]);
    let at = directory("tls wrong files");
    write_files(&at, &servers.ca.member(1), &servers.ca);
    fs::write(at.join("empty"), "").unwrap();
    let [cert, key, ca, empty, missing] = ["tls.crt", "tls.key", "ca.crt", "empty", "missing"]
        .map(|name| at.join(name).display().to_string());
    for (options, expected) in [
        (
            vec!["--tls-cert", &missing, "--tls-ca", &ca],
            "missing: No such file",
        ),
        (
            vec!["--tls-cert", &cert, "--tls-ca", &ca],
            "tls.crt: there is no private key in it",
        ),
        (
            vec!["--tls-cert", &cert, "--tls-key", &key, "--tls-ca", &empty],
            "empty: there is no certificate in it",
        ),
        (
            vec![
                "--tls-cert",
                &cert,
                "--tls-key",
                &key,
                "--tls-ca",
                &ca,
                "--tls-crl",
                &empty,
            ],
            "empty: there is no revocation list in it",
        ),
        (
            vec![
                "--tls-cert",
                &cert,
                "--tls-key",
                &key,
                "--tls-ca",
                &ca,
                "--tls-name",
                "1=*.example",
            ],
            "--tls-name: peer_names: \"*.example\" is a pattern",
        ),
        (
            vec!["--tls-name", "1=zk1.example"],
            "--tls-name: peer_names: certificates have names only with tls",
        ),
    ] {
        let mut command = program();
        command
            .args(["--sid", "1", "--server", "1=127.0.0.1:3181"])
            .args(&options);
        let output = run(command);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}: {errors}");
        assert!(errors.contains(expected), "{options:?}: {errors}");
    }
}

#[test]
fn ensemble_elects_with_tls() {
    let servers = Servers::new(&[1, 2]);
    let at = directory("tls ensemble");
    let mut text = String::from("tickTime=1000\ninitLimit=5\nsyncLimit=3\n");
    let quorum_ports = [1, 2].map(|_| ReservedAddress::new());
    for (sid, port) in [1, 2].into_iter().zip(&quorum_ports) {
        let (_, election) = servers.address(sid).split_once(':').unwrap();
        text += &format!("server.{sid}={}:{election}\n", port.address);
        write_files(
            &at.join(sid.to_string()),
            &servers.ca.member(sid),
            &servers.ca,
        );
    }
    let cfg = at.join("zoo.cfg").display().to_string();
    fs::write(&cfg, text).unwrap();
    let mut processes = [1, 2].map(|sid: i64| {
        let (myid, options) = (sid.to_string(), options(&at.join(sid.to_string()), &[1, 2]));
        let arguments: Vec<&str> = ["--zoo-cfg", &cfg, "--myid", &myid]
            .into_iter()
            .chain(options.iter().map(String::as_str))
            .collect();
        ElectionProcess::start(&arguments)
    });
    for (process, sid) in processes.iter_mut().zip([1, 2]) {
        assert_eq!(process.await_leader(&[sid]), 2);
    }
    for process in processes {
        process.quit(1);
    }
}

#[test]
fn election_reloads_the_stores_of_its_zoo_cfg_when_they_change() {
    let servers = Servers::new(&[1]);
    let at = directory("tls watched stores");
    let [first, second] = [1, 1].map(|sid| servers.ca.member(sid));
    let store = |own: &Own| fs::write(at.join("own.pem"), own.key.serialize_pem() + &own.pem);
    store(&first).unwrap();
    fs::write(at.join("ca.pem"), &servers.ca.pem).unwrap();
    let (quorum_port, (_, election)) = (
        ReservedAddress::new(),
        servers.address(1).split_once(':').unwrap(),
    );
    let [own, ca] = ["own.pem", "ca.pem"].map(|file| at.join(file).display().to_string());
    let text = format!(
        "tickTime=1000\ninitLimit=5\nsyncLimit=3\nserver.1={}:{election}\nsslQuorum=true\nsslQuorumReloadCertFiles=true\n\
         ssl.quorum.keyStore.location={own}\nssl.quorum.trustStore.location={ca}\n",
        quorum_port.address
    );
    let cfg = at.join("zoo.cfg").display().to_string();
    fs::write(&cfg, text).unwrap();
    let mut process = ElectionProcess::start(&["--zoo-cfg", &cfg, "--myid", "1"]);
    // It has looked at the files before it is elected.
    process.await_leader(&[1]);
    assert_eq!(reloads::shown(&servers, 1), first.certificate);
    store(&second).unwrap();
    process.await_events("tls-reloaded", 1);
    assert_eq!(reloads::shown(&servers, 1), second.certificate);
    process.quit(1);
}

/// A leader that requires TLS at its quorum port would close the connection, and log an error, again and again.
#[test]
fn election_with_tls_does_not_follow_the_leader_port() {
    let (ca, at) = (Ca::new("CA"), directory("tls leader port"));
    write_files(&at, &ca.member(1), &ca);
    let [key_store, trust_store] = ["both.pem", "ca.pem"].map(|file| at.join(file));
    let both = ["tls.key", "tls.crt"].map(|file| fs::read_to_string(at.join(file)).unwrap());
    fs::write(&key_store, both.concat()).unwrap();
    fs::write(&trust_store, &ca.pem).unwrap();
    let server = "server.1=127.0.0.1:2888:3888\n";
    let lines = [("keyStore", &key_store), ("trustStore", &trust_store)]
        .map(|(store, path)| format!("ssl.quorum.{store}.location={}\n", path.display()));
    let tls = format!("{server}sslQuorum=true\n{}", lines.concat());
    for (text, options) in [(tls, vec![]), (server.to_owned(), options(&at, &[1]))] {
        let cfg = at.join("zoo.cfg");
        fs::write(&cfg, text).unwrap();
        let mut command = Command::new(example_path("election"));
        command.arg("--zoo-cfg").arg(&cfg).args(["--myid", "1"]);
        command.arg("--follow-leader-port").args(&options);
        command.args(["--seconds", "1"]);
        let output = run(command);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}: {errors}");
        let expected = "which --follow-leader-port does not speak: leave this option away";
        assert!(errors.contains(expected), "{options:?}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}

#[test]
fn demonstration_with_tls_refuses_strangers() {
    let mut command = Command::new(example_path("mesh"));
    command.args(["--tls", "--seconds", "2"]);
    let output = run(command);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &output.stderr[..]),
        (Some(0), &b""[..]),
        "{said}"
    );
    for line in [
        "server 1 has refused a stranger without TLS",
        "reason: TLS: it does not speak TLS, which is required",
        "server 1 has refused a stranger with a certificate of another CA",
        "reason: TLS: no configured root has signed its certificate",
        "server 1 has refused a stranger with the certificate of server 2",
        "reason: TLS: its certificate is for server-2.example, which is no name of server 5",
        "held    all servers have halted, and their ports are free",
        "held    strangers without a server's own certificate are refused, and no link notices",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
}
