//! Configurations: each one that cannot work is refused before a socket is opened, and says what is wrong with it.

use std::{fs, time::Duration};

use quorum_cnx::{
    Challenge, Config, ConfigBuilder, ConfigError, Dial, Idle, Replace, Sid, Unknown, limits,
};

fn builder() -> ConfigBuilder {
    Config::builder(Sid(1))
        .server(Sid(1), "127.0.0.1:3181")
        .server(Sid(2), "127.0.0.1:3182")
}

fn error(builder: ConfigBuilder) -> ConfigError {
    builder.build().expect_err("it cannot work")
}

#[test]
fn what_can_work_is_taken() {
    builder().build().unwrap();
    // Alone, with several addresses, names, IPv6 and ports that the kernel chooses.
    Config::builder(Sid(0))
        .server(Sid(0), "localhost:0|[::1]:0|host-name.example:3888")
        .build()
        .unwrap();
    builder()
        .server(Sid(i64::MAX - 1), "[fe80::1%eth0]:65535")
        .challenge(Challenge::V2)
        .dial(Dial::OnDemand)
        .replace(Replace::Newest)
        .unknown(Unknown::Admit { max: 1 })
        .listen_tries(0)
        .observers_max(0)
        .unsent_limit(None)
        .listen_on("0.0.0.0:3181")
        .build()
        .unwrap();
}

#[test]
fn servers_that_cannot_be_are_named() {
    let own = Config::builder(Sid(3)).server(Sid(1), "127.0.0.1:1");
    assert_eq!(error(own), ConfigError::OwnSidMissing(Sid(3)));
    assert_eq!(
        error(builder().server(Sid(2), "127.0.0.1:3183")),
        ConfigError::DuplicateSid(Sid(2))
    );
    assert_eq!(
        error(builder().server(Sid(1), "127.0.0.1:3183")),
        ConfigError::DuplicateSid(Sid(1))
    );
    for sid in [Sid(-1), Sid(i64::MIN), Sid::OBSERVER] {
        assert_eq!(
            error(builder().server(sid, "127.0.0.1:1")),
            ConfigError::ReservedSid(sid)
        );
    }
    for nothing in ["", "  "] {
        assert_eq!(
            error(builder().server(Sid(3), nothing)),
            ConfigError::NoAddress(Sid(3))
        );
    }
}

#[test]
fn addresses_that_cannot_be_are_shown_with_their_server_and_their_mistake() {
    for (text, part) in [
        ("10.0.0.1", "port is missing"),
        ("10.0.0.1:", "port is missing"),
        (":3888", "host is missing"),
        ("10.0.0.1:65536", "not a number from 0 to 65535"),
        ("10.0.0.1:-1", "not a number from 0 to 65535"),
        ("10.0.0.1:+1", "not a number from 0 to 65535"),
        ("10.0.0.1:x", "not a number from 0 to 65535"),
        ("::1:3888", "brackets"),
        ("[::1:3888", "bracket"),
        ("[host]:3888", "not an IPv6 literal"),
        ("a b:3888", "' '"),
        ("10.0.0.1:1||10.0.0.2:1", "empty"),
        ("10.0.0.1:1|", "empty"),
    ] {
        let error = error(builder().server(Sid(3), text));
        assert!(
            matches!(&error, ConfigError::BadAddress { sid: Sid(3), text: shown, .. } if shown == text),
            "{text:?}: {error:?}"
        );
        let said = error.to_string();
        assert!(
            said.contains("server 3") && said.contains(part),
            "{text:?}: {said}"
        );
    }
    for useless in ["10.0.0.3:0", "0.0.0.0:3888", "[::]:3888"] {
        let error = error(builder().server(Sid(3), useless)).to_string();
        assert!(error.contains("server 3 cannot be dialed"), "{error}");
    }
    let many = vec!["10.0.0.1:1"; 33].join("|");
    assert!(
        error(builder().server(Sid(3), many))
            .to_string()
            .contains("33 addresses")
    );
    let text = "127.0.0.1";
    assert!(
        error(builder().listen_on(text))
            .to_string()
            .contains("port is missing")
    );
}

#[test]
fn knobs_outside_their_range_are_named() {
    let zero = Duration::ZERO;
    let second = Duration::from_secs(1);
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    for (option, builder) in [
        ("connect_timeout", builder().connect_timeout(zero)),
        ("connect_timeout", builder().connect_timeout(year)),
        ("handshake_timeout", builder().handshake_timeout(zero)),
        ("listen_pause", builder().listen_pause(zero)),
        (
            "listen_on",
            (0..=limits::LISTEN_ADDRESSES_MAX)
                .fold(builder(), |builder, _| builder.listen_on("127.0.0.1:0")),
        ),
        ("peer_dead_after", builder().peer_dead_after(second)),
        ("peer_dead_after", builder().peer_dead_after(year)),
        ("backoff", builder().backoff(zero, second)),
        ("backoff", builder().backoff(second * 2, second)),
        ("inbox_frames", builder().inbox_frames(0)),
        ("inbox_frames", builder().inbox_frames(usize::MAX)),
        ("inbox_bytes", builder().inbox_bytes(0)),
        (
            "inbox_bytes",
            builder().inbox_bytes(limits::FRAME_BYTES_MAX - 1),
        ),
        ("pending_max", builder().pending_max(0)),
        ("pending_max", builder().pending_max(usize::MAX)),
        ("observers_max", builder().observers_max(usize::MAX)),
        ("unknown", builder().unknown(Unknown::Admit { max: 0 })),
        (
            "unknown",
            builder().unknown(Unknown::Admit { max: usize::MAX }),
        ),
        ("unsent_limit", builder().unsent_limit(Some(0))),
        ("congestion_control", builder().congestion_control("")),
        (
            "congestion_control",
            builder().congestion_control("sixteen-letters-"),
        ),
        (
            "congestion_control",
            builder().congestion_control("two words"),
        ),
        ("receive_buffer", builder().receive_buffer(Some(0))),
        ("receive_buffer", builder().receive_buffer(Some(usize::MAX))),
        ("idle", builder().idle(Idle::Spin { for_at_most: year })),
    ] {
        match error(builder) {
            ConfigError::BadOption { option: named, why } => {
                assert_eq!(named, option);
                assert!(!why.is_empty());
            }
            other => panic!("{option}: {other:?}"),
        }
    }
}

#[test]
fn more_members_than_are_served_are_refused() {
    let all = |count: usize| {
        (0..count as i64).fold(Config::builder(Sid(0)), |builder, sid| {
            builder.server(Sid(sid), "127.0.0.1:1")
        })
    };
    all(limits::MEMBERS_MAX).build().unwrap();
    let error = error(all(limits::MEMBERS_MAX + 1)).to_string();
    assert!(error.contains("16385 servers"), "{error}");
}

const ZOO_CFG: &str = "\
tickTime=2000
initLimit=10
syncLimit=5
dataDir=/var/lib/zookeeper
clientPort=2181
server.1=10.0.0.1:2888:3888
server.2=10.0.0.2:2888:3888:participant;2181
server.3=zk3.example:2888:3888:observer
";

#[test]
fn a_zoo_cfg_becomes_a_configuration() {
    for own in 1..=3 {
        Config::from_zoo_cfg(ZOO_CFG, Sid(own))
            .unwrap()
            .build()
            .unwrap();
    }
    // What the file says is a start: the rest is up to the builder.
    let config = Config::from_zoo_cfg(ZOO_CFG, Sid(4))
        .unwrap()
        .server(Sid(4), "10.0.0.4:3888");
    config.build().unwrap();
    let missing = Config::from_zoo_cfg(ZOO_CFG, Sid(4)).unwrap();
    assert_eq!(error(missing), ConfigError::OwnSidMissing(Sid(4)));
}

#[test]
fn a_mistake_in_a_zoo_cfg_is_named_with_its_line() {
    let lines = ZOO_CFG.lines().count();
    for (line, part) in [
        ("server.1=10.0.0.9:2888:3888", "line 6"),
        ("server.x=10.0.0.9:2888:3888", "server.x"),
        ("server.9=10.0.0.9:2888", "election port"),
        ("server.9=10.0.0.9:2888:65536", "65536"),
        (
            "server.9=10.0.0.9:2888:3888|10.0.0.8:2888:3888",
            "multiAddress.enabled",
        ),
        ("cnxTimeout=soon", "soon"),
        ("electionPortBindRetry=99999999999", "99999999999"),
        ("tcpKeepAlive=perhaps", "perhaps"),
        ("syncLimit=0", "less than 1"),
        ("dataDir=\\u12", "hexadecimal"),
    ] {
        let text = format!("{ZOO_CFG}{line}\n");
        let error = Config::from_zoo_cfg(&text, Sid(1)).expect_err(line);
        let ConfigError::ZooCfg { line: at, .. } = &error else {
            panic!("{line}: {error:?}")
        };
        let said = error.to_string();
        assert_eq!(*at, lines + 1, "{line}: {said}");
        assert!(
            said.starts_with(&format!("zoo.cfg line {at}: ")),
            "{line}: {said}"
        );
        assert!(said.contains(part), "{line}: {said}");
    }
}

#[test]
fn a_zoo_cfg_file_may_name_a_file_with_the_servers() {
    let dir = std::env::temp_dir().join(format!("quorum-cnx-config-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("zoo.cfg");
    let missing = Config::from_zoo_cfg_file(&path, Sid(1))
        .unwrap_err()
        .to_string();
    assert!(missing.contains("cannot read"), "{missing}");

    fs::write(&path, "tickTime=1000\ndynamicConfigFile=zoo.dynamic\n").unwrap();
    fs::write(
        dir.join("zoo.dynamic"),
        "server.1=127.0.0.1:2888:3888;2181\nversion=0\n",
    )
    .unwrap();
    let config = Config::from_zoo_cfg_file(&path, Sid(1)).unwrap();
    config.build().unwrap();

    fs::write(dir.join("zoo.dynamic"), "\nserver.1=127.0.0.1\n").unwrap();
    let error = Config::from_zoo_cfg_file(&path, Sid(1))
        .unwrap_err()
        .to_string();
    assert!(error.contains("zoo.dynamic line 2"), "{error}");
    fs::remove_dir_all(&dir).unwrap();
}
