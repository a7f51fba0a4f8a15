//! Tests which keys are accepted, and which are refused.

use proptest::prelude::*;

use super::*;
use crate::proto::Address;

fn addresses(texts: &[&str]) -> Vec<Address> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn parse(text: &str) -> Result<ZooCfg, ZooCfgError> {
    super::parse(text, &ZooCfg::default())
}

fn with_flag() -> ZooCfg {
    ZooCfg {
        several_addresses: true,
        ..ZooCfg::default()
    }
}

/// The server of a configuration that consists of this line only.
fn server(line: &str) -> ZooServer {
    let mut servers = super::parse(line, &with_flag()).unwrap().servers;
    assert_eq!(servers.len(), 1);
    servers.remove(0)
}

/// The error text for the last line, which must be the bad one.
fn why(text: &str) -> String {
    let error = parse(text).unwrap_err();
    assert_eq!(error.line, text.lines().count(), "{text:?}: {}", error.why);
    error.why
}

#[test]
fn typical_zoo_cfg_is_parsed() {
    let text = "\
# The number of milliseconds of each tick
tickTime=2000
initLimit=10
syncLimit=5
! where the snapshot is stored
dataDir=/var/lib/zookeeper
clientPort=2181
#maxClientCnxns=60
autopurge.snapRetainCount=3
4lw.commands.whitelist=*

server.1=zk1.example.com:2888:3888
server.2=zk2.example.com:2888:3888:participant;2181
server.3=[2001:db8::3]:2888:3888:observer;[::]:2181
cnxTimeout=3000
tcpKeepAlive=TRUE
electionPortBindRetry=0
quorumCnxnTimeoutMs=7000
quorumListenOnAllIPs=true
reconfigEnabled=true
";
    let cfg = parse(text).unwrap();
    let of = |sid: i64, line, quorum, election, observer| ZooServer {
        sid: Sid(sid),
        line,
        quorum: addresses(&[quorum]),
        election: addresses(&[election]),
        observer,
        client: [None, Some("2181"), Some("[::]:2181")][sid as usize - 1].map(str::to_owned),
    };
    let (zk1, zk2) = ("zk1.example.com", "zk2.example.com");
    let servers = vec![
        of(1, 12, &format!("{zk1}:2888"), &format!("{zk1}:3888"), false),
        of(2, 13, &format!("{zk2}:2888"), &format!("{zk2}:3888"), false),
        of(3, 14, "[2001:db8::3]:2888", "[2001:db8::3]:3888", true),
    ];
    let expected = ZooCfg {
        servers,
        tick_time: Some(Duration::from_secs(2)),
        init_limit: Some(10),
        sync_limit: Some(5),
        cnx_timeout: Some(Duration::from_secs(3)),
        election_port_bind_retry: Some(0),
        quorum_cnxn_timeout: Some(Duration::from_secs(7)),
        quorum_listen_on_all_ips: true,
        reconfig_enabled: true,
        multi_address_enabled: false,
        ..ZooCfg::default()
    };
    assert_eq!(cfg, expected);
}

#[test]
fn empty_file_sets_nothing() {
    for text in [
        "",
        "\n\n",
        "# a comment\\\n!another",
        "\u{feff}",
        "   \n\t\\",
    ] {
        assert_eq!(parse(text), Ok(ZooCfg::default()), "{text:?}");
    }
}

#[test]
fn numbers_that_zookeeper_ignores_are_ignored() {
    let text = "electionPortBindRetry=-1\nquorumCnxnTimeoutMs=0";
    assert_eq!(parse(text), Ok(ZooCfg::default()));
}

#[test]
fn invalid_values_are_named() {
    for (line, expected) in [
        (
            "tickTime=",
            "tickTime: \"\" is not a whole number of at most 2147483647",
        ),
        (
            "tickTime=2s",
            "tickTime: \"2s\" is not a whole number of at most 2147483647",
        ),
        ("tickTime=2147483648", "not a whole number"),
        ("tickTime=0", "tickTime: 0 is less than 1"),
        ("syncLimit=-5", "syncLimit: -5 is less than 1"),
        ("initLimit=1.5", "not a whole number"),
        ("cnxTimeout=0", "cnxTimeout: 0 is less than 1"),
        (
            "fastleader.minNotificationInterval=0",
            "fastleader.minNotificationInterval: 0 is less than 1",
        ),
        (
            "fastleader.maxNotificationInterval=01",
            "makes it octal in Java",
        ),
        ("electionPortBindRetry=010", "makes it octal in Java"),
        ("quorumCnxnTimeoutMs=-01", "makes it octal in Java"),
        ("dynamicConfigFile= ", "dynamicConfigFile: it names no file"),
        ("portUnification=maybe", "neither true nor false"),
        ("version=", "version: \"\" is not a hexadecimal number"),
        ("electionPortBindRetry=many", "not a whole number"),
        ("quorumCnxnTimeoutMs=-", "not a whole number"),
        (
            "tcpKeepAlive=yes",
            "tcpKeepAlive: \"yes\" is neither true nor false",
        ),
        ("quorumListenOnAllIPs=1", "neither true nor false"),
        ("multiAddress.enabled=", "neither true nor false"),
        ("reconfigEnabled=yes", "neither true nor false"),
        ("version=-5", "version: -5 is less than 0"),
    ] {
        let why = why(&format!("# comment\n{line}"));
        assert!(why.contains(expected), "{line}: {why}");
    }
}

#[test]
fn server_may_have_a_role_and_client_addresses() {
    for line in [
        "server.1=zk1:2888:3888",
        "server.1 = zk1:2888:3888:participant",
        "server.1:zk1:2888:3888:PARTICIPANT",
        "server.1 zk1:2888:3888;2181",
        "server.01=zk1:2888:3888;",
        "server.1=zk1:2888:3888;0.0.0.0:2181",
        "server.1=zk1:2888:3888:participant;[::]:2181;2281",
        "server.1=zk1:2888:3888;;zk1:2281",
    ] {
        let expected = ZooServer {
            sid: Sid(1),
            line: 1,
            quorum: addresses(&["zk1:2888"]),
            election: addresses(&["zk1:3888"]),
            observer: false,
            client: line.split_once(';').map(|(_, client)| client.to_owned()),
        };
        assert_eq!(server(line), expected, "{line}");
    }
    assert!(server("server.1=zk1:2888:3888:Observer;2181").observer);
    assert_eq!(server("server.0=a:1:2").sid, Sid(0));
    assert_eq!(
        server("server.9223372036854775806=a:1:2").sid,
        Sid(i64::MAX - 1)
    );
}

#[test]
fn server_may_have_several_addresses() {
    let line = "server.1=a:1:2|[::1]:3:4|c:5:6;2181";
    let found = server(line);
    assert_eq!(found.quorum, addresses(&["a:1", "[::1]:3", "c:5"]));
    assert_eq!(found.election, addresses(&["a:2", "[::1]:4", "c:6"]));
    assert!(server("server.1=a:1:2|b:3:4:observer").observer);
    for value in [true, false] {
        let cfg = parse(&format!("multiAddress.enabled={value}")).unwrap();
        assert_eq!(cfg.multi_address_enabled, value);
    }
}

#[test]
fn invalid_server_lines_are_explained() {
    for (line, expected) in [
        (
            "server.x=a:1:2",
            "server.x: \"x\" is not an id, a number from 0 to 9223372036854775806",
        ),
        ("server.=a:1:2", "is not an id"),
        ("server.-1=a:1:2", "is not an id"),
        ("server.9223372036854775807=a:1:2", "is not an id"),
        ("server.9223372036854775808=a:1:2", "is not an id"),
        (
            "server.1=",
            "server.1: an address is missing, write host:quorumPort:electionPort",
        ),
        ("server.1=;2181", "an address is missing"),
        ("server.1=a", "no ports in \"a\", write host:"),
        ("server.1=[::1]", "no ports in \"[::1]\""),
        ("server.1=[::1:1:2", "no ']' closes the '['"),
        (
            "server.1=a:1",
            "server.1: no election port in \"a:1\", write host:",
        ),
        ("server.1=[::1]:1", "no election port in"),
        (
            "server.1=:1:2",
            "quorum address \":1\": the host is missing",
        ),
        ("server.1=::1:2888:3888", "with an IPv6 literal in brackets"),
        (
            "server.1=fe80::1:2888:3888",
            "with an IPv6 literal in brackets",
        ),
        ("server.1=[::1]x:1:2", "no colon behind the ']'"),
        ("server.1=[::g]:1:2", "not an IPv6 literal"),
        (
            "server.1=a b:1:2",
            "quorum address \"a b:1\": the host contains ' '",
        ),
        (
            "server.1=a:x:2",
            "quorum address \"a:x\": the port is not a number",
        ),
        (
            "server.1=a:1:65536",
            "election address \"a:65536\": the port is not a number from 0 to 65535",
        ),
        ("server.1=a:1:-2", "the port is not a number"),
        ("server.1=a:1:++2", "the port is not a number"),
        (
            "server.1=a:1:2 ",
            "election address \"a:2 \": the port is not",
        ),
        ("server.1=a:0:2", "quorum address \"a:0\": the port is 0"),
        ("server.1=a:1:", "no election port in \"a:1:\""),
        (
            "server.1=a::1",
            "quorum address \"a:\": the port is missing",
        ),
        ("server.1=256.1.1.1:1:2", "not an IPv4 literal"),
        (
            "server.1=a:7:7",
            "server.1: port 7 is both quorum and election port",
        ),
        (
            "server.1=a:1:2:leader",
            "role \"leader\" is neither participant nor observer",
        ),
        ("server.1=a:1:2: :", "role \"\" is neither"),
        (
            "server.1=a:1:2:observer:3",
            "is not host:quorumPort:electionPort",
        ),
        ("server.1=|;1", "an address is missing"),
        ("server.1=a:1:2||b:1:2", "an address is missing"),
        (
            "server.1=a:1:2:observer|b:1:2:participant",
            "its addresses have different roles",
        ),
        (
            "server.1=a:1:2;x",
            "client address \"0.0.0.0:x\": the port is not a number",
        ),
        (
            "server.1=a:1:2;::1:2181",
            "client address \"::1:2181\": more than one ':'",
        ),
        ("server.1=a:1:2;1;2;3", "more than two client addresses"),
        (
            "server.1=a:1:2\nserver.2=b:1:2\nserver.01=c:1:2",
            "server.01: server 1 is in line 1 already",
        ),
    ] {
        let why = why(line);
        assert!(why.contains(expected), "{line}: {why}");
    }
}

#[test]
fn dynamic_file_allows_few_keys_besides_servers() {
    let text = "group.1=1:2\nserver.1=a:1:2:participant;2181\nserver.2=b:1:2|c:1:2\n\
                weight.1=1\nversion=100000003\n";
    let dynamic = parse_dynamic(text, Origin::Message).unwrap();
    let sids: Vec<Sid> = dynamic.servers.iter().map(|server| server.sid).collect();
    assert_eq!(sids, [Sid(1), Sid(2)]);
    assert_eq!(dynamic.groups, [(1, vec![Sid(1), Sid(2)])].into());
    assert_eq!(dynamic.weights, [(Sid(1), 1)].into());
    assert_eq!(dynamic.version, 0x1_0000_0003);
    assert_eq!(
        parse_dynamic("# none\n\\\n", Origin::File),
        Ok(ZooCfg::default())
    );

    let mut cfg = parse("dynamicConfigFile=/etc/zk/zoo.cfg.dynamic").unwrap();
    let file = cfg.dynamic_config_file.clone();
    let (line, name) = (1, "/etc/zk/zoo.cfg.dynamic".into());
    assert_eq!(file, Some(DynamicFile { line, name }));
    assert_eq!(cfg.check_addresses(&dynamic.servers).unwrap_err().line, 3);
    cfg.several_addresses = true;
    assert_eq!(cfg.check_addresses(&dynamic.servers), Ok(()));

    for (line, expected) in [
        (
            "tickTime=2000",
            "tickTime: does not belong in a dynamic configuration",
        ),
        ("server.1=a:1:2", "server.1: server 1 is in line 1 already"),
        ("version=zz", "version: \"zz\" is not a hexadecimal number"),
        ("version=", "version: \"\" is not a hexadecimal number"),
        ("version=-5", "version: -5 is less than 0"),
    ] {
        let error = parse_dynamic(&format!("server.1=a:1:2\n{line}"), Origin::Message).unwrap_err();
        assert_eq!((error.line, error.why.as_str()), (2, expected));
    }
}

/// What three servers of ZooKeeper 3.8.0 have sent after `reconfig -add` of a server that votes and of an observer, and the file
/// `zoo.cfg.dynamic.200000003` of each of them. In the file there is no version, and no line break at the end either.
#[test]
fn configuration_of_real_servers_is_parsed() {
    let servers = "server.1=127.0.0.1:24881:25881:participant\nserver.2=127.0.0.1:24882:25882:participant\n\
                   server.3=127.0.0.1:24883:25883:participant\n\
                   server.4=127.0.0.1:24884:25884:participant;127.0.0.1:23184\n\
                   server.5=[0:0:0:0:0:0:0:1]:24885:25885:observer;0.0.0.0:2185";
    let message = format!("{servers}\nversion=200000003");
    let message = parse_dynamic(&message, Origin::Message).unwrap();
    let file = parse_dynamic(servers, Origin::File).unwrap();
    assert_eq!(message.version, 0x2_0000_0003);
    assert_eq!(message.servers, file.servers);
    let roles = |observer| {
        let of_role = file
            .servers
            .iter()
            .filter(move |one| one.observer == observer);
        of_role.map(|one| one.sid.0).collect::<Vec<_>>()
    };
    assert_eq!((roles(false), roles(true)), (vec![1, 2, 3, 4], vec![5]));
    assert_eq!(file.servers[3].client.as_deref(), Some("127.0.0.1:23184"));
    // Java writes an IPv6 literal in full, whatever the operator wrote.
    let full = &file.servers[4].election[0];
    assert_eq!(full.to_string(), "[0:0:0:0:0:0:0:1]:25885");
    assert_eq!(full.canonical(), addresses(&["[::1]:25885"])[0].canonical());
    // A real server refuses a message with another key, too.
    let error = parse_dynamic(&format!("{servers}\ntickTime=1"), Origin::Message).unwrap_err();
    assert_eq!(error.line, 6);
}

#[test]
fn groups_and_weights_are_parsed_and_their_errors_named() {
    let cfg = parse("group.1=1:2:3\ngroup.2 = 4:5:\nweight.4=0\nweight.5=3").unwrap();
    let groups = [(1, vec![1, 2, 3]), (2, vec![4, 5])];
    let groups = groups.map(|(group, sids)| (group, sids.into_iter().map(Sid).collect()));
    assert_eq!(cfg.groups, groups.into());
    assert_eq!(cfg.weights, [(Sid(4), 0), (Sid(5), 3)].into());
    for (line, expected) in [
        ("group.x=1", "group.x: \"x\" is not an id"),
        ("group.2=4:x", "group.2: \"x\" is not an id"),
        ("group.2=4 :5", "group.2: \"4 \" is not an id"),
        ("group.2=:", "group.2: there is no server in it"),
        ("group.01=4", "group.01: group 1 is in line 1 already"),
        ("groups=4", "write group.N or weight.N"),
        ("group.2\\ =4", "there are blanks around the key"),
        ("group.2=4:1", "group.2: server 1 is in a group already"),
        ("group.2=4:4", "group.2: server 4 is in a group already"),
        ("weight.4=-1", "weight.4: -1 is less than 0"),
        (
            "weight.4=heavy",
            "weight.4: \"heavy\" is not a whole number",
        ),
        ("weight.=1", "weight.: \"\" is not an id"),
    ] {
        let why = why(&format!("group.1=1:2\n{line}"));
        assert!(why.contains(expected), "{line}: {why}");
    }
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused_with_a_line_number(
        pieces in prop::collection::vec(
            "(server|group|weight)\\.[-0-9]{0,3}=|[a-z:=|;\\[\\]\\\\#! \\n\\r0-9]{0,8}|tickTime=|\\\\u[0-9a-f]{0,5}|\\PC{0,4}",
            0..12,
        ),
    ) {
        let text = pieces.concat();
        let lines = text.replace("\r\n", "\n").split(['\n', '\r']).count();
        let read = [
            parse(&text),
            parse_dynamic(&text, Origin::File),
            parse_dynamic(&text, Origin::Message),
        ];
        for error in read.into_iter().filter_map(Result::err) {
            prop_assert!((1..=lines).contains(&error.line), "{}", error.why);
        }
    }
}
