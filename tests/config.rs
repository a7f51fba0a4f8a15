//! Tests configurations: an invalid one is refused before a socket is opened, with an error that names the mistake.

use std::{fmt, fs, net::TcpListener, path::PathBuf, time::Duration};

use quorum_cnx::{
    CnxManager, Config, ConfigBuilder, ConfigError, Dial, Event, Idle, InitialMessageVersion,
    Outbox, Replace, Sid, Unknown, ZooCfg, ZooCfgReader, ZooServer, simulation::limits,
};

fn builder() -> ConfigBuilder {
    Config::builder(Sid(1))
        .server(Sid(1), "127.0.0.1:3181")
        .server(Sid(2), "127.0.0.1:3182")
}

fn error(builder: ConfigBuilder) -> ConfigError {
    builder.build().expect_err("the configuration is invalid")
}

#[test]
fn valid_configurations_are_accepted() {
    assert_eq!(builder().build().unwrap().sid(), Sid(1));
    // A single server, with several addresses, names, IPv6 and ports that the kernel chooses.
    Config::builder(Sid(0))
        .server(Sid(0), "localhost:0|[::1]:0|host-name.example:3888")
        .build()
        .unwrap();
    builder()
        .server(Sid(i64::MAX - 1), "[fe80::1%eth0]:65535")
        .initial_message(InitialMessageVersion::V2)
        .dial(Dial::OnDemand)
        .replace(Replace::Newest)
        .unknown(Unknown::admit(1))
        .listen_tries(0)
        .observers_max(0)
        .unsent_limit(None)
        .outbox(Outbox::queue(limits::FRAME_BYTES_MAX + 4))
        .listen_on("0.0.0.0:3181")
        .build()
        .unwrap();
}

#[test]
fn a_clone_has_no_sockets_of_the_original() {
    let handed_over = TcpListener::bind("127.0.0.1:0").unwrap();
    let its_address = handed_over.local_addr().unwrap();
    let original = Config::builder(Sid(1))
        .server(Sid(1), "127.0.0.1:0")
        .listener(handed_over);
    let clones = [
        original.clone().build().unwrap(),
        original.build().unwrap().clone(),
    ];
    for clone in clones {
        let manager = CnxManager::start(clone).unwrap();
        let opened = manager.events().recv().unwrap();
        let Event::Listening { addr, .. } = opened else {
            panic!("{opened:?}");
        };
        assert_ne!(addr, its_address);
    }
}

#[test]
fn invalid_servers_are_refused() {
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
    for empty in ["", "  "] {
        assert_eq!(
            error(builder().server(Sid(3), empty)),
            ConfigError::NoAddress(Sid(3))
        );
    }
}

/// The text of each error. The grammar is tested beside it, in `src/proto/address/tests.rs`.
#[test]
fn invalid_addresses_are_refused_with_server_and_reason() {
    for (text, part) in [
        ("10.0.0.1", "port is missing"),
        (":3888", "host is missing"),
        ("10.0.0.1:65536", "not a number from 0 to 65535"),
        ("::1:3888", "brackets"),
        ("[::1:3888", "bracket"),
        ("[host]:3888", "not an IPv6 literal"),
        ("10..0.1:1", "IPv4"),
        ("a b:3888", "' '"),
        ("a:1;b:1", "';'"),
        ("10.0.0.1:1||10.0.0.2:1", "empty"),
        ("10.0.0.1:1|", "empty"),
        // As in other files.
        ("zk1:2888:3888;2181", "host:quorumPort:electionPort"),
        ("a:1|b:1,c:1", "joined by '|'"),
    ] {
        let error = error(builder().server(Sid(3), text));
        assert!(
            matches!(&error, ConfigError::BadAddress { sid: Sid(3), text: shown, .. } if shown == text),
            "{text:?}: {error:?}"
        );
        let message = error.to_string();
        assert!(
            message.contains("server 3") && message.contains(part),
            "{text:?}: {message}"
        );
    }
    for fine in ["1a:1", "zk-256.1.1.1.example:1", "[::2%7]:1"] {
        builder().server(Sid(3), fine).build().unwrap();
    }
    for undialable in ["10.0.0.3:0", "0.0.0.0:3888", "[::]:3888"] {
        let error = error(builder().server(Sid(3), undialable)).to_string();
        assert!(error.contains("server 3 cannot be dialed"), "{error}");
    }
    let many = vec!["10.0.0.1:1"; 33].join("|");
    let message = error(builder().server(Sid(3), many)).to_string();
    assert!(message.contains("33 addresses"), "{message}");
    let message = error(builder().listen_on("127.0.0.1")).to_string();
    assert!(message.contains("port is missing"), "{message}");
}

/// Checks that a configuration with this value of an option is refused, and that the error names the option.
#[track_caller]
fn refused<V: Clone + fmt::Debug>(
    option: &str,
    value: V,
    set: impl FnOnce(ConfigBuilder, V) -> ConfigBuilder,
) {
    let shown = format!("{option} {value:?}");
    match set(builder(), value).build() {
        Err(ConfigError::BadOption {
            option: named, why, ..
        }) => {
            assert_eq!(named, option, "{shown} is refused by the name {named}");
            assert!(!why.is_empty(), "{shown} is refused without a reason");
        }
        Err(other) => panic!("{shown} is refused with {other:?}"),
        Ok(_) => panic!("{shown} is accepted"),
    }
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let zero = Duration::ZERO;
    let second = Duration::from_secs(1);
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    for time in [zero, year] {
        refused("connect_timeout", time, ConfigBuilder::connect_timeout);
        refused("handshake_timeout", time, ConfigBuilder::handshake_timeout);
        refused("listen_pause", time, ConfigBuilder::listen_pause);
        refused("ping_every", time, ConfigBuilder::ping_every);
    }
    for time in [second, year] {
        refused("peer_dead_after", time, ConfigBuilder::peer_dead_after);
    }
    for range in [(zero, second), (second, year), (second * 2, second)] {
        refused("backoff", range, |builder, (min, max)| {
            builder.backoff(min, max)
        });
    }
    for count in [0, usize::MAX] {
        refused("inbox_frames", count, ConfigBuilder::inbox_frames);
        refused("pending_max", count, ConfigBuilder::pending_max);
        let admit = Unknown::admit(count);
        refused("unknown", admit, ConfigBuilder::unknown);
        refused("receive_buffer", Some(count), ConfigBuilder::receive_buffer);
    }
    for bytes in [0, limits::FRAME_BYTES_MAX - 1] {
        refused("inbox_bytes", bytes, ConfigBuilder::inbox_bytes);
    }
    // A queue has room for the longest frame.
    for bytes in [0, limits::FRAME_BYTES_MAX + 3, usize::MAX] {
        refused("outbox", Outbox::queue(bytes), ConfigBuilder::outbox);
        refused("outbox", Outbox::lanes(bytes), ConfigBuilder::outbox);
    }
    refused("observers_max", usize::MAX, ConfigBuilder::observers_max);
    refused("unsent_limit", Some(0), ConfigBuilder::unsent_limit);
    for name in ["", "sixteen-letters-", "two words"] {
        refused(
            "congestion_control",
            name,
            ConfigBuilder::congestion_control,
        );
    }
    let addresses = limits::LISTEN_ADDRESSES_MAX + 1;
    refused("listen_on", addresses, |builder, count| {
        (0..count).fold(builder, |builder, _| builder.listen_on("127.0.0.1:0"))
    });
    let spin = Idle::spin(year);
    refused("idle", spin, ConfigBuilder::idle);
}

#[test]
fn too_many_members_are_refused() {
    let all = |count: usize| {
        (0..count as i64).fold(Config::builder(Sid(0)), |builder, sid| {
            builder.server(Sid(sid), format!("127.0.0.1:{}", sid + 1))
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
fn zoo_cfg_becomes_a_configuration() {
    for own in 1..=3 {
        Config::from_zoo_cfg(ZOO_CFG, Sid(own))
            .unwrap()
            .build()
            .unwrap();
    }
    // The builder adds to the content of the file.
    let missing = Config::from_zoo_cfg(ZOO_CFG, Sid(4)).unwrap();
    missing
        .clone()
        .server(Sid(4), "10.0.0.4:3888")
        .build()
        .unwrap();
    assert_eq!(error(missing), ConfigError::OwnSidMissing(Sid(4)));
}

#[test]
fn zoo_cfg_errors_name_their_line() {
    let lines = ZOO_CFG.lines().count();
    for (line, part) in [
        ("server.1=10.0.0.9:2888:3888", "line 6"),
        ("server.x=10.0.0.9:2888:3888", "server.x"),
        ("server.9=10.0.0.9:2888", "election port"),
        ("cnxTimeout=soon", "soon"),
        ("syncLimit=0", "less than 1"),
        ("dataDir=\\u12", "hexadecimal"),
    ] {
        let text = format!("{ZOO_CFG}{line}\n");
        let error = Config::from_zoo_cfg(&text, Sid(1)).expect_err(line);
        let ConfigError::ZooCfg { line: at, .. } = &error else {
            panic!("{line}: {error:?}")
        };
        let message = error.to_string();
        assert_eq!(*at, lines + 1, "{line}: {message}");
        assert!(
            message.starts_with(&format!("zoo.cfg line {at}: ")),
            "{line}: {message}"
        );
        assert!(message.contains(part), "{line}: {message}");
    }
}

/// A directory of a test, empty at first.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("config-{name}"));
        // Left over from an earlier run.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

/// The line and the reason of an error in a file.
#[track_caller]
fn zoo_cfg_error<T: fmt::Debug>(result: Result<T, ConfigError>) -> (usize, String) {
    match result.expect_err("the file is invalid") {
        ConfigError::ZooCfg { line, why, .. } => (line, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn zoo_cfg_may_name_a_dynamic_file() {
    let dir = Dir::new("dynamic");
    let missing = Config::from_zoo_cfg_file(dir.0.join("zoo.cfg"), Sid(1));
    let missing = missing.unwrap_err().to_string();
    assert!(missing.contains("cannot read"), "{missing}");

    let path = dir.write("zoo.cfg", "tickTime=1000\ndynamicConfigFile=zoo.dynamic\n");
    dir.write("zoo.dynamic", "server.1=127.0.0.1:2888:3888;2181\n");
    let config = Config::from_zoo_cfg_file(&path, Sid(1)).unwrap();
    config.build().unwrap();

    dir.write("zoo.dynamic", "\nserver.1=127.0.0.1\n");
    let (_, error) = zoo_cfg_error(Config::from_zoo_cfg_file(&path, Sid(1)));
    assert!(error.contains("zoo.dynamic line 2"), "{error}");
}

fn hosts(cfg: &ZooCfg) -> Vec<&str> {
    let servers = cfg.servers.iter();
    servers.map(|server| server.election[0].host()).collect()
}

/// `java.util.Properties` reads ISO-8859-1, in which every byte is a character.
#[test]
fn zoo_cfg_may_contain_any_bytes() {
    let dir = Dir::new("bytes");
    let every_byte: Vec<u8> = (0..=u8::MAX)
        .filter(|byte| !b"\n\r\\".contains(byte))
        .collect();
    for (name, comment) in [
        ("Latin-1", &b"g\xe9r\xe9 \xe0 la main"[..]),
        ("Windows-1252", b"\x93quoted\x94 \x80"),
        ("GBK", b"\xd7\xa2\xca\xcd"),
        ("UTF-8", "\u{6ce8}\u{91ca} \u{1f600}".as_bytes()),
        ("UTF-8 cut short", b"\xe6\xb3"),
        ("every byte", &every_byte),
    ] {
        let servers = b"server.1=10.0.0.1:2888:3888\nserver.2=10.0.0.2:2888:3888\n";
        let text = [b"# ", comment, b"\nadmin.note=", comment, b"\n", servers].concat();
        let fixed = dir.write("static.cfg", &text);
        let named = dir.write(
            "named.cfg",
            [b"# ", comment, b"\ndynamicConfigFile=d.dynamic\n"].concat(),
        );
        dir.write("d.dynamic", [b"! ", comment, b"\n", &servers[..]].concat());
        for path in [&fixed, &named] {
            let cfg = ZooCfg::read(path).unwrap_or_else(|why| panic!("{name}: {why}"));
            assert_eq!(hosts(&cfg), ["10.0.0.1", "10.0.0.2"], "{name}");
        }
        // A mistake after such a line is reported with the right line.
        let path = dir.write("bad.cfg", [&text[..], b"server.3=10.0.0.3\n"].concat());
        let (line, why) = zoo_cfg_error(ZooCfg::read(path));
        assert_eq!((line, why.contains("server.3")), (5, true), "{name}: {why}");
    }
    // ZooKeeper decodes a host as Latin-1, whatever its encoding was. An escape is the character itself.
    let path = dir.write(
        "hosts.cfg",
        b"server.1=m\xfcller:1:2\nserver.2=m\xc3\xbcller:1:2\nserver.3=m\\u00fcller2:1:2\n",
    );
    let cfg = ZooCfg::read(path).unwrap();
    assert_eq!(
        hosts(&cfg),
        ["m\u{fc}ller", "m\u{c3}\u{bc}ller", "m\u{fc}ller2"]
    );
}

#[test]
fn version_is_read_from_the_name_of_the_dynamic_file() {
    let dir = Dir::new("version");
    let flat = "server.1=a:1:2\nserver.2=b:1:2\n";
    let grouped = format!("{flat}group.1=1:2\nweight.1=3\n");
    for (name, version) in [
        ("zoo.cfg.dynamic.100000003", 0x1_0000_0003),
        ("zoo.cfg.dynamic.0", 0),
        ("zoo.cfg.dynamic.beef", 0xbeef),
        ("zoo.cfg.dynamic.BEEF", 0xbeef),
        ("zoo.cfg.dynamic.0000a", 10),
        ("zoo.cfg.dynamic.+a", 10),
        ("zoo.cfg.dynamic.7fffffffffffffff", i64::MAX),
        // No version: 0.
        ("zoo.cfg.dynamic", 0),
        ("zoo.cfg.dynamic.", 0),
        ("zoo.cfg.dynamic.0x10", 0),
        ("zoo.cfg.dynamic.8000000000000000", 0),
        ("dynamic", 0),
    ] {
        let path = dir.write("zoo.cfg", format!("dynamicConfigFile={name}\n"));
        for text in [flat, &grouped] {
            dir.write(name, text);
            let cfg = ZooCfg::read(&path).unwrap();
            assert_eq!((cfg.version, cfg.servers.len()), (version, 2), "{name}");
        }
        assert_eq!(ZooCfg::read(&path).unwrap().groups.len(), 1);
    }
    let path = dir.write("zoo.cfg", "\ndynamicConfigFile=zoo.dynamic.-5\n");
    dir.write("zoo.dynamic.-5", flat);
    let (line, why) = zoo_cfg_error(ZooCfg::read(&path));
    assert_eq!((line, why.contains("negative")), (2, true), "{why}");
    // The version of a file is only in its name, that of a message in its text.
    let path = dir.write("zoo.cfg", "dynamicConfigFile=zoo.dynamic.5\n");
    dir.write("zoo.dynamic.5", format!("{flat}version=5\n"));
    let (_, why) = zoo_cfg_error(ZooCfg::read(&path));
    assert!(why.contains("zoo.dynamic.5 line 3: version"), "{why}");
    let message = ZooCfg::parse_dynamic(&format!("{flat}version=5"));
    assert_eq!(message.unwrap().version, 5);
}

#[test]
fn newer_configuration_gives_the_members_of_a_step() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let own = format!("server.1=127.0.0.1:1:{port}\n");
    let file = ZooCfg::parse(&format!(
        "{own}server.2=127.0.0.9:2:3\nserver.3=127.0.0.9:4:5"
    ))
    .unwrap();
    let manager =
        CnxManager::start(file.builder(Sid(1)).listener(socket).build().unwrap()).unwrap();
    // Server 2 is elsewhere, server 3 has only other ports for followers and clients, and server 4 does not vote.
    let text = format!(
        "{own}server.2=127.0.0.9:2:6:participant\nserver.3=127.0.0.9:7:5:participant;0.0.0.0:2181\n\
         server.4=127.0.0.9:8:9:observer\nversion=100000002"
    );
    let newer = ZooCfg::parse_dynamic(&text).unwrap();
    let changes = manager.reconfigure(newer.members()).unwrap();
    assert_eq!(changes.version, 0x1_0000_0002);
    assert_eq!(
        (changes.joined, changes.left, changes.moved),
        (vec![Sid(4)], vec![], vec![Sid(2)])
    );
    assert!(manager.reconfigure(file.members()).is_err());
    // The application may have changed the field.
    let mut invalid = newer;
    invalid.version = -1;
    assert_eq!(invalid.members().version(), 0);
}

#[test]
fn servers_beside_a_dynamic_file_are_refused() {
    let dir = Dir::new("beside");
    dir.write("zoo.dynamic", "server.1=a:1:2\n");
    for line in ["server.1=b:1:2", "group.1=1", "weight.1=1"] {
        for (text, at) in [
            (format!("dynamicConfigFile=zoo.dynamic\n{line}\n"), 2),
            (
                format!("{line}\ntickTime=5\ndynamicConfigFile=zoo.dynamic\n"),
                1,
            ),
            (format!("{line}\ndynamicConfigFile=\n"), 1),
        ] {
            let path = dir.write("zoo.cfg", &text);
            let key = line.split('=').next().unwrap();
            for result in [
                ZooCfg::read(&path).map(drop),
                ZooCfg::parse(&text).map(drop),
                Config::from_zoo_cfg(&text, Sid(1)).map(drop),
            ] {
                let (line, why) = zoo_cfg_error(result);
                assert_eq!(line, at, "{text:?}: {why}");
                assert!(
                    why.starts_with(key) && why.contains("dynamicConfigFile"),
                    "{why}"
                );
            }
        }
    }
}

#[test]
fn tls_and_sasl_between_servers_are_refused() {
    let [ssl, enable, learner, server] = [
        "sslQuorum",
        "quorum.auth.enableSasl",
        "quorum.auth.learnerRequireSasl",
        "quorum.auth.serverRequireSasl",
    ];
    let all = |value: &str| {
        format!("{ssl}={value}\n{enable}={value}\n{learner}={value}\n{server}={value}\n")
    };
    let at = ZOO_CFG.lines().count() + 1;
    for key in [ssl, enable, learner, server] {
        let alone = [
            format!("{ZOO_CFG}{key}=true\n"),
            format!("{ZOO_CFG}{key} : TRUE \nportUnification=true\n"),
        ];
        // With TLS, that its stores are missing is said after the whole file was read.
        let comes_first = key != ssl || cfg!(not(feature = "tls"));
        let with_others = format!(
            "{ZOO_CFG}{key}=true\n{}",
            all("true").replace(&format!("{key}=true\n"), "")
        );
        let with_others = comes_first.then_some(with_others);
        for text in alone.into_iter().chain(with_others) {
            let (line, why) = zoo_cfg_error(Config::from_zoo_cfg(&text, Sid(1)));
            assert_eq!(line, at, "{text:?}: {why}");
            assert!(why.starts_with(&format!("{key}: ")), "{why}");
        }
        let (line, why) = zoo_cfg_error(ZooCfg::parse(&format!("{ZOO_CFG}{key}=maybe\n")));
        assert_eq!(
            (line, why.contains("neither true nor false")),
            (at, true),
            "{why}"
        );
    }
    for harmless in [
        all("false"),
        "portUnification=true".to_owned(),
        format!("{ssl}=true\n{ssl}=false"),
        "ssl.quorum.keyStore.location=/etc/zk/key".to_owned(),
        "quorum.auth.learner.loginContext=QuorumLearner".to_owned(),
    ] {
        let text = format!("{ZOO_CFG}{harmless}\n");
        Config::from_zoo_cfg(&text, Sid(1))
            .unwrap()
            .build()
            .unwrap();
    }
}

/// Templates produce such lines where a variable is empty. ZooKeeper accepts them, and reads the same servers.
#[test]
fn empty_parts_left_by_templates_are_ignored() {
    for value in [
        "10.0.0.1:2888:3888",
        "10.0.0.1:2888:3888:",
        "10.0.0.1:2888:3888::",
        "10.0.0.1:2888:3888:;2181",
        "10.0.0.1:2888:3888:participant:",
        "10.0.0.1:2888:3888: participant ",
        "10.0.0.1:2888:3888|",
        "10.0.0.1:2888:3888||;2181",
        "10.0.0.1:2888:3888;",
        "10.0.0.1:2888:3888;;;",
        "10.0.0.1:2888:3888;2181;",
        "10.0.0.1:2888:3888;0",
        "10.0.0.1:2888:3888;0.0.0.0:0",
        "10.0.0.1:2888:3888;:2181",
        "10.0.0.1:2888:3888;zk1:2181:",
        "10.0.0.1:2888:3888;[zk1]:+2181",
        "[10.0.0.1]:2888:3888",
        "10.0.0.1:+2888:+3888",
        "10.0.0.1:02888:03888",
    ] {
        let text = format!(
            "server.1={value}\nserver.2=[localhost]:2888:3888:\nadmin.note=\\ud83d\\ude00 \\ud83d\n"
        );
        let cfg = ZooCfg::parse(&text).unwrap_or_else(|why| panic!("{value:?}: {why}"));
        let parts = |server: &ZooServer| {
            let [quorum, election] =
                [&server.quorum, &server.election].map(|all| all[0].to_string());
            (server.election.len(), quorum, election, server.observer)
        };
        let of = |host: &str| (1, format!("{host}:2888"), format!("{host}:3888"), false);
        let servers: Vec<_> = cfg.servers.iter().map(parts).collect();
        assert_eq!(servers, [of("10.0.0.1"), of("localhost")], "{value:?}");
    }
    let cfg = ZooCfg::parse("group.1=1:2:\nweight.1=3000000000").unwrap();
    assert_eq!(cfg.groups[&1], [Sid(1), Sid(2)]);
    assert_eq!(cfg.weights[&Sid(1)], 3_000_000_000);
}

/// Lines with which a real server does not start, or which it misreads.
#[test]
fn lines_that_zookeeper_refuses_are_refused() {
    for line in [
        "server.4=a:2888:3888 ",
        "server.4=a:2888:3888\u{a0}",
        "server.4=a:2888:3888;2181 ",
        "server.4=|",
        "server.4=;",
        "server.4=a:2888:3888||b:2888:3888",
        "server.4=a:2888:3888:participant:x",
        "server.4=a:2888:3888;zk1:2181:x",
        "server.4=[a:2888:3888",
        "server.4=[a]",
        "server.4=[a]:",
        "server.4=[a]x2888:3888",
        "server.4=[::g]:2888:3888",
        "server.4=:2888:3888",
        "server.4=[]:2888:3888",
        "server.4=$HOST:2888:3888",
        "server.4=010.0.0.1:2888:3888",
        "server.\\ 4=a:2888:3888",
        "groupId=x",
        "group=1",
        "weights=1",
        "group.1=1:2 ",
        "group.1=1 : 2",
        "group.1=",
        "group.1=:",
        "weight.1=1 ",
        "version=zz",
        "x=\\u12",
        "\u{feff}dataDir=/var",
    ] {
        let text = if line.starts_with('\u{feff}') {
            format!("{line}\n{ZOO_CFG}")
        } else {
            format!("{ZOO_CFG}{line}\n")
        };
        let at = 1 + text.lines().position(|one| one == line).unwrap();
        assert_eq!(zoo_cfg_error(ZooCfg::parse(&text)).0, at, "{line:?}");
    }
    for (text, at) in [
        ("group.1=1\ngroup.01=2", 2),
        ("group.1=1\nweight.1=1\nweight.01=2", 3),
        ("group.1=1\ngroup.2=2:1", 2),
    ] {
        assert_eq!(zoo_cfg_error(ZooCfg::parse(text)).0, at, "{text:?}");
    }
}

#[test]
fn last_value_of_a_repeated_key_counts() {
    let cfg = ZooCfg::parse("tickTime=${TICK}\ncnxTimeout=x\ntickTime=4\ncnxTimeout=5").unwrap();
    assert_eq!(cfg.tick_time, Some(Duration::from_millis(4)));
    let cfg = ZooCfg::parse("version=zz\nserver.1=a:1:2\nversion=1f").unwrap();
    assert_eq!(cfg.version, 0x1f);
}

/// They become system properties that nothing reads (`zookeeper.zookeeper.cnxTimeout`).
#[test]
fn keys_that_begin_with_zookeeper_are_ignored() {
    let keys = [
        "cnxTimeout",
        "electionPortBindRetry",
        "quorumCnxnTimeoutMs",
        "tcpKeepAlive",
        "multiAddress.enabled",
        "tickTime",
        "sslQuorum",
        "quorum.auth.enableSasl",
        "fastleader.maxNotificationInterval",
        "server.1",
        "group.1",
        "dynamicConfigFile",
        "quorumListenOnAllIPs",
        "version",
    ];
    let plain = ZooCfg::parse(ZOO_CFG).unwrap();
    for key in keys {
        for value in ["true", "7", "soon", ""] {
            let text = format!("{ZOO_CFG}zookeeper.{key}={value}\n");
            assert_eq!(ZooCfg::parse(&text), Ok(plain.clone()), "{key}={value}");
        }
    }
}

/// Which addresses are equal is tested in `src/proto/address/tests.rs`.
#[test]
fn two_servers_with_one_address_are_refused() {
    for (first, second, shared) in [
        ("10.0.0.9:3888", "10.0.0.9:3888", "10.0.0.9:3888"),
        ("zk1.example:3888", "ZK1.Example:3888", "ZK1.Example:3888"),
        ("a:1|b:2", "c:3|B:2|d:4", "B:2"),
        ("[::ffff:10.0.0.9]:1", "10.0.0.9:1", "10.0.0.9:1"),
    ] {
        // Two other servers, and the own server with another one.
        for (sids, own) in [([7, 8], "127.0.0.1:1"), ([1, 8], first)] {
            let mut builder = Config::builder(Sid(1))
                .server(Sid(8), second)
                .server(Sid(1), own);
            if sids[0] != 1 {
                builder = builder.server(Sid(7), first);
            }
            let message = error(builder).to_string();
            let expected = format!(
                "servers {} and {} have the same address {shared}",
                sids[0], sids[1]
            );
            assert!(message.starts_with(&expected), "{message}");
        }
    }
    let zoo_cfg = "server.1=a:1:2\nserver.2=a:3:2\n";
    let message = error(Config::from_zoo_cfg(zoo_cfg, Sid(1)).unwrap()).to_string();
    assert!(
        message.contains("servers 1 and 2 have the same address a:2"),
        "{message}"
    );
    // Valid: the same host with another port, the same port of another host, and an address twice in one list.
    Config::builder(Sid(1))
        .server(Sid(1), "a:1|A:1|[::1%lo]:0")
        .server(Sid(2), "a:2")
        .server(Sid(3), "b:1|[fe80::1%eth0]:1")
        .server(Sid(4), "[fe80::1%eth1]:1")
        .build()
        .unwrap();
}

/// ZooKeeper's parser of server lines reads only the system property, and ignores the key of the file (ZooKeeper 3.6 to 3.9).
#[test]
fn several_addresses_need_a_jvm_flag() {
    let dir = Dir::new("flag");
    let servers = "server.1=10.0.0.1:1:2|10.0.1.1:1:2\nserver.2=10.0.0.2:1:2\n";
    let flat = dir.write("flat.cfg", servers);
    let key = dir.write("key.cfg", format!("multiAddress.enabled=true\n{servers}"));
    let named = dir.write("named.cfg", "dynamicConfigFile=several.dynamic\n");
    dir.write("several.dynamic", servers);
    for path in [&flat, &key, &named] {
        let (_, why) = zoo_cfg_error(ZooCfg::read(path));
        for part in ["server.1: several", "-Dzookeeper.multiAddress.enabled=true"] {
            assert!(why.contains(part), "{}: {why}", path.display());
        }
        for flag in [
            "zookeeper.multiAddress.enabled=true",
            "-Dzookeeper.multiAddress.enabled=TRUE",
        ] {
            let reader = ZooCfgReader::new().jvm_flag(flag).unwrap();
            let cfg = reader.read(path).unwrap();
            assert_eq!(cfg.servers[0].election.len(), 2);
            cfg.builder(Sid(1)).build().unwrap();
        }
    }
    let off = ZooCfgReader::new()
        .jvm_flag("zookeeper.multiAddress.enabled=false")
        .unwrap();
    assert_eq!(zoo_cfg_error(off.read(&flat)).0, 1);
    assert_eq!(zoo_cfg_error(ZooCfg::parse(&format!("\n{servers}"))).0, 2);
}

#[test]
fn unknown_jvm_flags_are_refused() {
    for (flag, part) in [
        (
            "zookeeper.multiAddres.enabled=true",
            "zookeeper.multiAddress.enabled",
        ),
        (
            "multiAddress.enabled=true",
            "zookeeper.multiAddress.enabled",
        ),
        ("-Xmx1g", "NAME=VALUE"),
        ("zookeeper.multiAddress.enabled", "NAME=VALUE"),
        (
            "zookeeper.multiAddress.enabled=yes",
            "neither true nor false",
        ),
        (
            "zookeeper.cnxTimeout=soon",
            "zookeeper.cnxTimeout: \"soon\"",
        ),
        ("", "NAME=VALUE"),
    ] {
        let message = ZooCfgReader::new().jvm_flag(flag).unwrap_err().to_string();
        assert!(
            message.starts_with("jvm_flag: ") && message.contains(part),
            "{flag:?}: {message}"
        );
    }
    let mut reader = ZooCfgReader::new();
    for flag in [
        "zookeeper.cnxTimeout=2000",
        "zookeeper.electionPortBindRetry=7",
        "zookeeper.quorumCnxnTimeoutMs=300",
        "zookeeper.tcpKeepAlive=true",
    ] {
        reader = reader.jvm_flag(flag).unwrap();
    }
    // The file has precedence.
    let file = "cnxTimeout=2000\nelectionPortBindRetry=7\nquorumCnxnTimeoutMs=300\n";
    assert_eq!(reader.parse(""), ZooCfg::parse(file));
    let file = "cnxTimeout=1\nelectionPortBindRetry=2\nquorumCnxnTimeoutMs=3\n";
    assert_eq!(reader.parse(file), ZooCfg::parse(file));
    assert_eq!(reader.parse_bytes(file.as_bytes()), ZooCfg::parse(file));
}

#[test]
fn bytes_are_read_like_a_file() {
    let bytes = b"# \xe9\nserver.1=m\xfcller:1:2\n";
    let cfg = ZooCfgReader::new().parse_bytes(bytes).unwrap();
    assert_eq!(
        cfg,
        ZooCfg::parse("# \u{e9}\nserver.1=m\u{fc}ller:1:2\n").unwrap()
    );
}

#[test]
fn notification_intervals_are_read() {
    let min = "fastleader.minNotificationInterval";
    let max = "fastleader.maxNotificationInterval";
    let intervals = |cfg: &ZooCfg| {
        let both = [cfg.min_notification_interval, cfg.max_notification_interval];
        both.map(|interval| interval.map(|time| time.as_millis()))
    };
    for (text, expected) in [
        (String::new(), [None, None]),
        (format!("{min}=3000"), [Some(3000), None]),
        (format!("{max} = +1000 "), [None, Some(1000)]),
        (format!("{min}=9\n{max}=5\n{min}=7"), [Some(7), Some(5)]),
        (format!("zookeeper.{min}=9"), [None, None]),
    ] {
        let cfg = ZooCfg::parse(&text).unwrap();
        assert_eq!(intervals(&cfg), expected, "{text:?}");
    }
    let flag = format!("-Dzookeeper.{max}=8");
    let reader = ZooCfgReader::new().jvm_flag(&flag).unwrap();
    assert_eq!(intervals(&reader.parse("").unwrap()), [None, Some(8)]);
    for value in ["0", "-1", "soon", "", "2147483648"] {
        let (line, why) = zoo_cfg_error(ZooCfg::parse(&format!("\n{max}={value}")));
        assert_eq!((line, why.starts_with(max)), (2, true), "{why}");
    }
}

#[test]
fn servers_are_accepted_as_a_list_and_sids_as_text() {
    let servers = ["1=127.0.0.1:1", "2=127.0.0.1:2"].map(|server| {
        let (sid, addresses) = server.split_once('=').unwrap();
        (sid.parse::<Sid>().unwrap(), addresses)
    });
    assert_eq!(servers.map(|(sid, _)| i64::from(sid)), [1, 2]);
    assert!(Config::builder(Sid(2)).servers(servers).build().is_ok());
    let one = Config::builder(Sid(2)).servers([servers[0]]).build();
    assert_eq!(one.unwrap_err(), ConfigError::OwnSidMissing(Sid(2)));
    assert!("x".parse::<Sid>().is_err());
}
