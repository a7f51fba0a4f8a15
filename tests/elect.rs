//! Tests the program `election` without real servers: ensembles, and wrong command lines.
//!
//! Elections with real servers are in `interop`, the rules of the election in `election`.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
};

use quorum_cnx::{Outbox, Sid};
use serde_json::{Value, json};
use support::{
    LONG, ReservedAddress, STRANGER_IP, TestConnection, bare,
    command::signal,
    ensemble::{ElectionProcess, Ensemble, election},
    single_manager, wait_for_down,
};

#[test]
fn ensemble_in_one_process_elects_and_draws_a_timeline() {
    let ensemble = Ensemble::new(3, "");
    let picture = ensemble.path("election.svg");
    let options = ["--follow-leader-port", "--timeline", &picture];
    let mut running = ensemble.start("1,2,3", &options);
    // Usually the server with the largest id. Another one if it started late.
    let leader = running.await_leader(&[1, 2, 3]);
    running.await_events("leader-reached", 2);
    running.await_events("timeline", 1);
    for (event, count) in [
        ("started", 3),
        ("listening", 3),
        ("looking", 3),
        ("vote", 3),
    ] {
        running.await_events(event, count);
    }
    let drawn = fs::read_to_string(&picture).unwrap();
    assert!(drawn.starts_with("<svg"));
    assert!(drawn.contains(&format!("server {leader} is elected")) && drawn.contains("LEADING"));

    // The command `leader-lost` starts a new election.
    running.order("leader-lost\nstats");
    running.await_events("leader-lost", 3);
    running.await_events("stats", 3);
    running.await_leader(&[1, 2, 3]);
    running.quit(3);
}

#[test]
fn groups_and_weights_determine_leader_and_quorum() {
    // The third server has no weight, and the first one alone is a quorum.
    let weights = "group.1=1:2:3\nweight.1=3\nweight.2=1\nweight.3=0\n";
    let ensemble = Ensemble::new(3, weights);
    let mut first = ensemble.start("1", &[]);
    assert_eq!(first.await_leader(&[1]), 1);
    first.quit(1);
    let mut others = ensemble.start("2,3", &[]);
    // Each server has repeated its vote, long after a quorum would have decided.
    others.await_events("sent", 2 * 2 * 4);
    assert!(others.lines.iter().all(|line| line["event"] != "elected"));
    let mut first = ensemble.start("1", &[]);
    let leader = others.await_leader(&[2, 3]);
    assert!([1, 2].contains(&leader), "{leader}");
    assert_eq!(first.await_leader(&[1]), leader);
    first.quit(1);
    others.quit(2);
}

#[test]
fn a_signal_halts_an_election() {
    for name in ["INT", "TERM"] {
        let ensemble = Ensemble::new(3, "");
        let mut program = ensemble.start("1", &[]);
        program.await_events("listening", 1);
        signal(&program.child, name);
        program.await_events("halted", 1);
        assert_eq!(program.child.wait().unwrap().code(), Some(0), "SIG{name}");
    }
}

#[test]
fn ended_leader_process_is_given_up_at_once() {
    // The server with the larger zxid leads, whether its id is the largest or the smallest.
    for (leader, others) in [("3", [1, 2]), ("1", [2, 3])] {
        let ensemble = Ensemble::new(3, "");
        let list = others.map(|sid| sid.to_string()).join(",");
        let mut voters = ensemble.start(&list, &[]);
        let leader_process = ensemble.start(leader, &["--zxid", "0x100000000"]);
        let leader: i64 = leader.parse().unwrap();
        while voters.await_leader(&others) != leader {
            // They may have elected one of themselves before.
            voters.order("leader-lost");
            voters.await_new("elected", 2);
        }
        voters.lines.clear();
        leader_process.kill();
        voters.await_events("leader-lost", 2);
        for line in voters.of("leader-lost") {
            let why = line["why"].as_str().unwrap();
            assert!(why.contains("nobody listens"), "{why}");
        }
        voters.await_events("elected", 2);
        voters.quit(2);
    }
}

/// The notification with which an observer asks for the leader: in the first round, for no server.
const QUESTION: [i64; 4] = [i64::MIN, i64::MIN, 1, i64::MIN];

/// A notification of a server in state LOOKING: leader, zxid, round and epoch, without a configuration.
fn looking([leader, zxid, round, epoch]: [i64; 4]) -> Vec<u8> {
    let mut bytes = 0_i32.to_be_bytes().to_vec();
    for long in [leader, zxid, round, epoch] {
        bytes.extend(long.to_be_bytes());
    }
    bytes.extend(2_i32.to_be_bytes());
    bytes.extend(0_i32.to_be_bytes());
    bytes
}

/// Returns the state, the leader and the configuration of a notification.
fn decode(bytes: &[u8]) -> (i32, i64, String) {
    let (state, rest) = bytes.split_first_chunk().unwrap();
    let (leader, _) = rest.split_first_chunk().unwrap();
    let configuration = String::from_utf8(bytes[44..].to_vec()).unwrap();
    (
        i32::from_be_bytes(*state),
        i64::from_be_bytes(*leader),
        configuration,
    )
}

/// Sends a notification to this server from a joiner that it does not know, and returns the decoded answer.
#[track_caller]
fn ask(ensemble: &Ensemble, joiner: i64, server: i64, question: [i64; 4]) -> (i32, i64, String) {
    let (_, at) = &ensemble.elections[server as usize - 1];
    let (joiner, _) = single_manager(joiner, &[(server, at)], |builder| builder);
    joiner.to_send(Sid(server), looking(question)).unwrap();
    let message = joiner.recv_timeout(LONG).expect("an answer arrives");
    assert_eq!(message.from, Sid(server));
    decode(&message.payload)
}

#[test]
fn unknown_servers_get_answers_and_are_not_counted() {
    let ensemble = Ensemble::new(3, "");
    let mut running = ensemble.start("1,2,3", &[]);
    let leader = running.await_leader(&[1, 2, 3]);
    let (following, leading) = (1, 2);
    // Larger and smaller sids. A vote of the joiner for itself that beats all others, in a later round, and a question.
    for joiner in [0, 4, 77, i64::MAX - 1] {
        for question in [[joiner, 1 << 40, 9, 1 << 20], QUESTION] {
            for server in 1..=3 {
                let (state, of, configuration) = ask(&ensemble, joiner, server, question);
                let expected = if server == leader { leading } else { following };
                assert_eq!((state, of), (expected, leader), "{joiner} at {server}");
                assert!(configuration.ends_with("version=0"), "{configuration}");
            }
        }
    }
    running.order("stats");
    running.await_events("stats", 3);
    assert_eq!(running.of("leader-lost").count(), 0);
    running.quit(3);
}

#[test]
fn election_with_replace_newest_keeps_newest_connection() {
    let ensemble = Ensemble::new(2, "");
    let own = &ensemble.elections[0].1;
    let mut running = ensemble.start("1", &["--replace", "newest"]);
    running.await_events("listening", 1);
    // From an address that is not the member's, as through a proxy.
    let _older = TestConnection::dial_and_write(STRANGER_IP, own, &bare(2));
    running.await_events("up", 1);
    let _newer = TestConnection::dial_and_write(STRANGER_IP, own, &bare(2));
    running.await_events("up", 2);
    assert_eq!(running.of("down").next().unwrap()["reason"], "replaced");
    running.quit(1);
}

#[test]
fn unknown_servers_are_admitted_up_to_a_limit() {
    let ensemble = Ensemble::new(1, "");
    for (bound, joiners) in [("2", 2), ("0", 0)] {
        let mut running = ensemble.start("1", &["--admit", bound]);
        running.await_leader(&[1]);
        let at = &ensemble.elections[0].1;
        let join = |sid| single_manager(sid, &[(1, at)], |builder| builder).0;
        let linked: Vec<_> = (5..5 + joiners).map(join).collect();
        for joiner in &linked {
            joiner.to_send(Sid(1), looking(QUESTION)).unwrap();
            joiner.recv_timeout(LONG).expect("an answer arrives");
        }
        let (refused, _) = single_manager(9, &[(1, at)], |builder| builder);
        wait_for_down(&refused);
        running.quit(1);
    }
}

/// Writes a file with some servers of the ensemble at this version.
fn write_members(ensemble: &Ensemble, name: &str, sids: &[i64], more: &str) -> String {
    let text = fs::read_to_string(ensemble.path("zoo.cfg")).unwrap();
    let is_kept = |line: &&str| {
        let server = line.strip_prefix("server.");
        server.is_none_or(|rest| sids.iter().any(|sid| rest.starts_with(&format!("{sid}="))))
    };
    let lines: Vec<&str> = text.lines().filter(is_kept).chain([more]).collect();
    let path = ensemble.path(name);
    fs::write(&path, lines.join("\n")).unwrap();
    path
}

#[test]
fn running_servers_follow_newer_configurations_of_file_and_members() {
    let ensemble = Ensemble::new(4, "");
    let file = write_members(&ensemble, "members.cfg", &[1, 2, 3], "");
    let mut running = ElectionProcess::start(&["--zoo-cfg", &file, "--myid", "1,2,3"]);
    running.await_leader(&[1, 2, 3]);
    write_members(&ensemble, "members.cfg", &[2, 3, 4], "version=a1");
    running.order("reconfigure");
    running.await_events("reconfigured", 3);
    for line in running.of("reconfigured") {
        let is_removed = line["myid"] == 1;
        let role = if is_removed { "observer" } else { "voter" };
        assert_eq!(
            (&line["version"], &line["role"]),
            (&"a1".into(), &role.into())
        );
        assert_eq!(line["voters"], json!([2, 3, 4]));
        assert_eq!(
            (&line["from"], &line["joined"]),
            (&Value::Null, &json!([4]))
        );
        // A server that was removed keeps its own address, and is none of the others any more.
        let left = if is_removed { vec![] } else { vec![1] };
        assert_eq!(line["left"], json!(left));
    }
    running.await_leader(&[2, 3]);

    // Server 4 has only an old file. It follows if its file allows that, and only reports the version otherwise.
    let old = write_members(&ensemble, "old.cfg", &[1, 2, 3, 4], "");
    let mut late = ElectionProcess::start(&["--zoo-cfg", &old, "--myid", "4"]);
    late.await_events("newer-configuration", 1);
    assert_eq!(
        late.of("newer-configuration").next().unwrap()["version"],
        "a1"
    );
    assert_eq!(late.of("reconfigured").count(), 0);
    late.quit(1);
    let old = write_members(&ensemble, "old.cfg", &[1, 2, 3, 4], "reconfigEnabled=true");
    let mut late = ElectionProcess::start(&["--zoo-cfg", &old, "--myid", "4"]);
    late.await_events("reconfigured", 1);
    let line = late.of("reconfigured").next().unwrap();
    assert_eq!(
        (&line["version"], &line["left"]),
        (&"a1".into(), &json!([1]))
    );
    let leader = late.await_leader(&[4]);
    assert_eq!(running.await_leader(&[2, 3]), leader);

    // An older version changes nothing.
    write_members(&ensemble, "members.cfg", &[1, 2, 3], "version=a0");
    running.order("reconfigure");
    running.await_events("error", 3);
    for line in running.of("error") {
        let message = line["message"].as_str().unwrap();
        assert!(message.contains("a0 is not newer than a1"), "{message}");
    }
    assert_eq!(running.of("reconfigured").count(), 3);
    late.quit(1);
    running.quit(3);
}

/// A vote that changes nothing, with the configuration of its sender.
fn with_configuration(text: &str) -> Vec<u8> {
    let mut bytes = looking(QUESTION);
    bytes[40..44].copy_from_slice(&(text.len() as i32).to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

#[test]
fn only_members_are_believed_and_a_bad_configuration_is_reported_once() {
    let ensemble = Ensemble::new(2, "reconfigEnabled=true\n");
    let mut running = ensemble.start("1", &[]);
    running.await_events("listening", 1);
    let at = &ensemble.elections[0].1;
    let send = |sid: i64, texts: &[&str], running: &mut ElectionProcess| {
        let (sender, _) = single_manager(sid, &[(1, at)], |builder| builder.outbox(Outbox::QUEUE));
        for text in texts {
            sender.to_send(Sid(1), with_configuration(text)).unwrap();
        }
        let from = |line: &&Value| line["from"] == sid;
        while running.of("received").filter(from).count() < texts.len() {
            running.await_new("received", 1);
        }
    };
    let newer = "server.1=127.0.0.1:1:2\nserver.7=127.0.0.1:3:4\nversion=5";
    send(7, &[newer, "version=zz"], &mut running);
    // Server 2 is a member. The second text has no voter, and the third one has an address twice.
    let twice = "server.1=127.0.0.1:1:2\nserver.2=127.0.0.1:3:2\nversion=6";
    send(2, &["version=zz", "version=5", twice], &mut running);
    running.order("stats");
    running.await_events("stats", 1);
    assert_eq!(running.of("stats").next().unwrap()["malformed"], 3);
    let reports: Vec<&Value> = running.of("malformed").collect();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert_eq!(reports[0]["from"], 2);
    assert_eq!(running.of("reconfigured").count(), 0);
    running.quit(1);
}

/// Writes another file with the same servers, but these addresses (`host:quorumPort:electionPort`) for the first one.
fn with_other_addresses(ensemble: &Ensemble, more: &str, addresses: &str) -> String {
    let text = fs::read_to_string(ensemble.path("zoo.cfg")).unwrap();
    let own = text
        .lines()
        .find(|line| line.starts_with("server.1="))
        .unwrap();
    let text = text.replace(own, &format!("{more}\nserver.1={addresses}"));
    let path = ensemble.path("elsewhere.cfg");
    fs::write(&path, text).unwrap();
    path
}

/// No interface has this address (RFC 5737).
const UNASSIGNED: &str = "192.0.2.1:2888:3888";

#[test]
fn election_without_a_listening_socket_exits_with_14() {
    let ensemble = Ensemble::new(2, "");
    let retry = "electionPortBindRetry=2";
    let unknown = "no-such-host.invalid:2888:3888";
    for addresses in [UNASSIGNED.to_owned(), unknown.to_owned()] {
        let cfg = with_other_addresses(&ensemble, retry, &addresses);
        // All servers of the process end, also the one that could listen.
        let (code, lines, stderr) = election(&["--zoo-cfg", &cfg, "--myid", "1,2"]);
        assert_eq!(code, Some(14), "{stderr}");
        assert!(stderr.contains("server 1 cannot listen"), "{stderr}");
        let errors: Vec<&Value> = lines
            .iter()
            .filter(|line| line["event"] == "error")
            .collect();
        let count = |text: &str| {
            let matches = |line: &&&Value| line["message"].as_str().unwrap().contains(text);
            errors.iter().filter(matches).count()
        };
        assert_eq!((count("will try again"), count("gave up")), (2, 1));
        let halted = lines.iter().filter(|line| line["event"] == "halted");
        assert_eq!(halted.count(), 2);
    }
}

#[test]
fn election_continues_while_it_listens_or_retries() {
    let ensemble = Ensemble::new(1, "");
    let text = fs::read_to_string(ensemble.path("zoo.cfg")).unwrap();
    let (_, own) = text.split_once("server.1=").unwrap();
    let both = format!("{}|{UNASSIGNED}", own.trim());
    let once = "electionPortBindRetry=1";
    for (more, addresses, errors) in [
        // It has given up one address and listens on the other.
        (once, both.as_str(), 2),
        // It retries without end.
        ("electionPortBindRetry=0", UNASSIGNED, 2),
    ] {
        let cfg = with_other_addresses(&ensemble, more, addresses);
        let several = "-Dzookeeper.multiAddress.enabled=true";
        let mut running = ElectionProcess::start(&["--zoo-cfg", &cfg, "--myid", "1", several]);
        running.await_events("error", errors);
        running.order("stats");
        running.await_events("stats", 1);
        running.quit(1);
    }
}

#[test]
fn election_reads_quorum_listen_on_all_ips() {
    let ensemble = Ensemble::new(1, "");
    for (key, host, expected) in [
        // Its machine does not have this address (RFC 5737).
        ("true", "192.0.2.1", "0.0.0.0"),
        ("true", "[2001:db8::1]", "[::]"),
        ("true", "no-such-host.invalid", "[::]"),
        ("false", "127.0.0.1", "127.0.0.1"),
    ] {
        // At all addresses: another test may use the port at another one.
        let vacant = [0, 1].map(|_| ReservedAddress::at(Ipv4Addr::UNSPECIFIED));
        let [quorum, election] = [0, 1].map(|at| vacant[at].address.rsplit_once(':').unwrap().1);
        let more = format!("quorumListenOnAllIPs={key}");
        let addresses = format!("{host}:{quorum}:{election}");
        let cfg = with_other_addresses(&ensemble, &more, &addresses);
        let follow = ["--zoo-cfg", &cfg, "--myid", "1", "--follow-leader-port"];
        let mut running = ElectionProcess::start(&follow);
        running.await_events("leader-listening", 1);
        // Without IPv6 only the IPv4 wildcard.
        let has_v6 = TcpListener::bind("[::]:0").is_ok();
        let expected = if has_v6 { expected } else { "0.0.0.0" };
        let at = format!("{expected}:{quorum}");
        let line = running.of("leader-listening").next().unwrap().clone();
        assert_eq!(line["addr"], at);
        TcpStream::connect(format!("127.0.0.1:{quorum}")).unwrap();
        running.quit(1);
    }
}

#[test]
fn invalid_arguments_are_refused_with_a_reason() {
    let ensemble = Ensemble::new(3, "");
    let cfg = ensemble.path("zoo.cfg");
    let (missing, bad) = (ensemble.path("missing.cfg"), ensemble.path("bad.cfg"));
    fs::write(&bad, "tickTime=2000\nserver.1=zk1\n").unwrap();
    let (dynamic, observers) = (ensemble.path("dynamic.cfg"), ensemble.path("observers.cfg"));
    fs::write(&dynamic, "dynamicConfigFile=none.dynamic\n").unwrap();
    fs::write(&observers, "server.1=zk1:1:2:observer\n").unwrap();
    for (file, options, expected) in [
        (None, "--myid 1", "not provided: --zoo-cfg <FILE>"),
        (Some(&cfg), "", "not provided: --myid <N>"),
        (Some(&cfg), "--myid one", "invalid value 'one'"),
        (
            Some(&cfg),
            "--myid 9",
            "--myid 9 is not among its servers, which are 1, 2, 3",
        ),
        (Some(&missing), "--myid 1", "missing.cfg: No such file"),
        (
            Some(&bad),
            "--myid 1",
            "bad.cfg: line 2: server.1: no ports",
        ),
        (Some(&dynamic), "--myid 1", "cannot read none.dynamic"),
        (
            Some(&observers),
            "--myid 1",
            "observers.cfg: no server votes",
        ),
        (
            Some(&cfg),
            "--myid 1 --zxid 0xq",
            "write a decimal number, or 0x",
        ),
        (
            Some(&cfg),
            "--myid 1 --format 28 --epoch 7",
            "--format 28 holds no epoch",
        ),
        (
            Some(&cfg),
            "--myid 1 --replace oldest",
            "invalid value 'oldest'",
        ),
        (
            Some(&cfg),
            "--myid 1 --tls-key zk1.key",
            "not provided: --tls-ca <FILE> --tls-cert <FILE>",
        ),
        #[cfg(not(feature = "tls"))]
        (
            Some(&cfg),
            "--myid 1 --tls-cert zk1.pem --tls-ca ca.pem",
            "build it with `cargo build --release --example election --features tls-ring`",
        ),
        (
            Some(&cfg),
            "--myid 1 --timeline no/where.svg",
            "cannot write --timeline",
        ),
        (
            Some(&cfg),
            "--myid 1 --metrics nowhere",
            "this is not HOST:PORT",
        ),
        (
            Some(&cfg),
            "--myid 1 --metrics 192.0.2.1:1",
            "--metrics: cannot listen at 192.0.2.1:1: ",
        ),
        (
            Some(&cfg),
            "--myid 1,2 --metrics 127.0.0.1:0",
            "--metrics shows one server, and --myid names 2",
        ),
    ] {
        let file = file.map(|file| ["--zoo-cfg", file]);
        let options = options.split_whitespace();
        let arguments: Vec<&str> = file.into_iter().flatten().chain(options).collect();
        let (code, lines, stderr) = election(&arguments);
        let shown = format!("{arguments:?}: {stderr}");
        assert_eq!((code, lines.len()), (Some(2), 0), "{shown}");
        assert!(stderr.contains(expected), "not {expected:?} for {shown}");
        assert_eq!(stderr.lines().count(), 1, "{shown}");
    }
}
