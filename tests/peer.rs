//! Tests the program `peer` as a process with pipes: each command, each line that it prints, each wrong command line.
//!
//! The behaviour of the library is tested elsewhere.

use std::{
    fs,
    io::{self, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::Command,
};

use serde_json::{Value, json};
use support::{
    MEMBER_IP, ReservedAddress, STRANGER_IP, TestConnection, V1, V2, bare,
    command::{run, signal},
    eventually,
    example::example_path,
    listener,
    program::{Peer, program, program_path},
    versioned,
};

/// The address of a peer.
struct PeerAddress {
    address: String,
    _reserved: Option<ReservedAddress>,
}

/// Addresses for peers. On Linux they are reserved: a bound socket that does not listen keeps other processes away, and a peer
/// with `SO_REUSEADDR` can bind the same address. Elsewhere they are only chosen.
fn reserve_addresses<const N: usize>() -> [PeerAddress; N] {
    std::array::from_fn(|_| {
        let vacant = ReservedAddress::new();
        PeerAddress {
            address: vacant.address.clone(),
            _reserved: cfg!(target_os = "linux").then_some(vacant),
        }
    })
}

/// Checks a field of a line, which is named as in `/peers/0/sid`.
#[track_caller]
fn assert_field(line: &Value, field: &str, expected: impl Into<Value>) {
    let found = line.pointer(field);
    let expected = expected.into();
    assert!(
        found == Some(&expected),
        "{field} is {found:?}, expected {expected:?}, in {line}"
    );
}

/// Checks that a field is a number of at least `min`.
#[track_caller]
fn assert_at_least(line: &Value, field: &str, min: u64) {
    let found = line.pointer(field).and_then(Value::as_u64);
    assert!(
        found >= Some(min),
        "{field} is {found:?}, expected at least {min}, in {line}"
    );
}

/// A server without others, at a port that the kernel chooses.
const ALONE: [(i64, &str); 1] = [(1, "127.0.0.1:0")];

/// Servers 1, 2, ... at these addresses.
fn servers(addresses: &[PeerAddress]) -> Vec<(i64, &str)> {
    let addresses = addresses.iter().map(|address| address.address.as_str());
    (1..).zip(addresses).collect()
}

/// Peers 1 and 2, linked.
fn pair(addresses: &[PeerAddress; 2]) -> [Peer; 2] {
    let peers = [1, 2].map(|sid| Peer::start(sid, &servers(addresses), &[]));
    for (peer, address) in peers.iter().zip(addresses) {
        assert_field(&peer.next("listening"), "/addr", address.address.as_str());
    }
    let up = json!({ "event": "up", "sid": 1, "dialed": true, "addr": addresses[0].address, "link": 1, "restarted": false });
    assert_eq!(peers[1].next("up"), up);
    let up = peers[0].next("up");
    assert_field(&up, "/sid", 2);
    assert_field(&up, "/dialed", false);
    peers
}

fn frame(sid: i64, payload: &str) -> Value {
    let hex: String = payload.bytes().map(|byte| format!("{byte:02x}")).collect();
    json!({ "event": "frame", "sid": sid, "len": payload.len(), "hex": hex })
}

#[test]
fn two_peers_link_and_exchange_frames() {
    let addresses = reserve_addresses();
    let [mut one, mut two] = pair(&addresses);
    one.tell("send 2 a text  with spaces ");
    let sent = one.next("sent");
    assert_field(&sent, "/sid", 2);
    // Queued if the loop is just writing to the new link.
    let outcome = &sent["outcome"];
    assert!(outcome == "written" || outcome == "queued", "{sent}");
    assert_eq!(two.next("frame"), frame(1, "a text  with spaces "));
    two.tell("hex 1 68656C6c6f");
    assert_eq!(one.next("frame"), frame(2, "hello"));
    // A command to connect changes nothing where a link is up.
    one.tell("connect 2\nconnect-all");
    let stats = one.stats();
    assert_field(&stats, "/ups", 1);
    let sent = json!({
        "accepted": 1, "written": 1, "superseded": 0, "discarded": 0, "waiting": 0,
        "waiting_ms": null, "resent": 0, "bytes": 24,
    });
    assert_field(&stats, "/sent", sent);
    assert_field(&stats, "/received", json!({ "frames": 1, "bytes": 5 }));
    assert_field(&stats, "/inbox/taken", 1);
    assert_eq!(stats["peers"].as_array().unwrap().len(), 1, "{stats}");
    assert_field(&stats, "/peers/0/sid", 2);
    assert_field(&stats, "/peers/0/linked", true);
    assert_field(&stats, "/peers/0/link/number", 1);
    assert_field(&stats, "/peers/0/link/dialed", false);
    assert_at_least(&stats, "/peers/0/link/up_ms", 0);
    assert_at_least(&stats, "/peers/0/last_received_ms", 0);
    assert_field(&stats, "/peers/0/last_end", Value::Null);
    one.quit();
    let down = two.next("down");
    assert_field(&down, "/sid", 1);
    assert_field(&down, "/reason", "closed");
    assert_field(&two.next("dial-failed"), "/sid", 1);
    two.quit();
}

/// Native handshakes: server 3 is of another cluster, and both ends say so.
#[test]
fn native_peers_link_only_within_their_cluster() {
    let addresses = reserve_addresses::<3>();
    let servers = servers(&addresses);
    let native = |sid, cluster| Peer::start(sid, &servers, &["--native", cluster]);
    let one = native(1, "00112233-4455-6677-8899-aabbccddeeff");
    let two = native(2, "00112233445566778899AABBCCDDEEFF");
    for (peer, other) in [(&one, 2), (&two, 1)] {
        assert_field(&peer.next("up"), "/sid", other);
    }
    let three = native(3, "staging");
    for peer in [&one, &two] {
        let rejected = peer.next("rejected");
        assert_field(&rejected, "/sid", 3);
        assert_field(&rejected, "/reason", "wrong-cluster");
    }
    for _ in 0..2 {
        assert_field(
            &three.next("dial-failed"),
            "/reason",
            "refused-wrong-cluster",
        );
    }
    for (mut peer, ups) in [(three, 0), (two, 1), (one, 1)] {
        assert_field(&peer.stats(), "/ups", ups);
        peer.quit();
    }
}

#[test]
fn echo_returns_frames_but_not_loopback_ones() {
    let addresses = reserve_addresses::<2>();
    let servers = servers(&addresses);
    let mut one = Peer::start(1, &servers, &[]);
    let mut two = Peer::start(2, &servers, &["--echo"]);
    one.next("up");
    one.tell("send 2 there and back");
    one.next("sent");
    assert_eq!(one.next("frame"), frame(2, "there and back"));
    assert_eq!(two.next("frame"), frame(1, "there and back"));
    one.quit();
    two.tell("send 2 to myself");
    assert_field(&two.next("sent"), "/outcome", "loopback");
    assert_eq!(two.next("frame"), frame(2, "to myself"));
    let stats = two.stats();
    assert_field(&stats, "/loopback", 1);
    assert_field(&stats, "/inbox/pushed", 2);
    two.quit();
}

#[test]
fn newer_frame_supersedes_a_waiting_one() {
    let addresses = reserve_addresses::<2>();
    let mut peer = Peer::start(2, &servers(&addresses), &["--dial", "on-demand"]);
    peer.next("listening");
    assert_field(&peer.stats(), "/dials", 0);
    peer.tell("send 1 older\nsend 1 newer");
    assert_field(&peer.next("sent"), "/outcome", "queued");
    assert_field(&peer.next("sent"), "/outcome", "superseded");
    let failed = peer.next("dial-failed");
    assert_field(&failed, "/sid", 1);
    assert_field(&failed, "/reason", "io");
    let stats = peer.stats();
    assert_field(&stats, "/peers/0/sent/superseded", 1);
    assert_field(&stats, "/peers/0/sent/waiting", 1);
    peer.quit();
}

#[test]
fn invalid_command_is_an_error_and_the_peer_continues() {
    let addresses = reserve_addresses::<2>();
    let mut peer = Peer::start(1, &servers(&addresses), &[]);
    for (command, message) in [
        (
            "dance",
            "there is no command `dance`; `help` shows the commands",
        ),
        (
            "send",
            "the id of a server is missing; `help` shows the commands",
        ),
        ("send two hello", "`two` is no server id"),
        ("send 7 hello", "no peer has the id 7"),
        ("send 2", "a frame has at least one byte"),
        ("send 2 ", "a frame has at least one byte"),
        ("hex 2 abc", "a hexadecimal digit is missing"),
        ("hex 2 xy", "this is not hexadecimal"),
        ("connect 7", "no peer has the id 7"),
        (
            "connect",
            "the id of a server is missing; `help` shows the commands",
        ),
    ] {
        peer.tell(command);
        assert_eq!(
            peer.next("error"),
            json!({ "event": "error", "message": message }),
            "{command:?}"
        );
    }
    peer.stdin
        .as_mut()
        .unwrap()
        .write_all(b"send 2 \xff\n")
        .unwrap();
    assert_field(&peer.next("error"), "/message", "a command is not UTF-8");
    let long = "00".repeat((512 << 10) + 1);
    peer.tell(&format!("hex 2 {long}"));
    let message = "a frame of 524289 bytes is longer than 524288";
    assert_field(&peer.next("error"), "/message", message);
    peer.tell(&"x".repeat(2 << 20));
    let message = "a command is longer than 1048640 bytes";
    assert_field(&peer.next("error"), "/message", message);
    // An empty line is ignored, and so is a carriage return at the end of a line.
    peer.tell("\r\n\nsend 1 hello\r");
    assert_eq!(peer.next("frame"), frame(1, "hello"));
    peer.quit();
}

/// Runs the program with these arguments to its end: its exit code, its standard output and its standard error.
#[track_caller]
fn run_peer(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = program();
    command.args(arguments);
    let output = run(command);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Checks that the program refuses these arguments, and that its error begins with these words.
#[track_caller]
fn refused(arguments: &str, words: &str) {
    let list: Vec<&str> = arguments.split_whitespace().collect();
    let (code, stdout, errors) = run_peer(&list);
    assert_eq!(
        (code, stdout.as_str()),
        (Some(2), ""),
        "{arguments}: {errors}"
    );
    let expected = format!("peer: {words}");
    assert!(
        errors.starts_with(&expected),
        "{arguments}: not {expected:?}, but {errors}"
    );
    // For an error in a file the help is not mentioned.
    assert_eq!(
        errors.contains("--help"),
        !list.contains(&"--zoo-cfg"),
        "{arguments}: {errors}"
    );
}

#[test]
fn wrong_command_line_mentions_help_and_exits_with_2() {
    for (arguments, words) in [
        (
            "",
            "the following required arguments were not provided:\n  --sid <SID>",
        ),
        (
            "--sid one",
            "invalid value 'one' for '--sid <SID>': invalid digit",
        ),
        (
            "--sid 1",
            "server 1 is this server, but it is not among the servers: add --server 1=HOST:PORT, or --zoo-cfg",
        ),
        (
            "--sid -1 --server 1=127.0.0.1:3181",
            "server -1 is this server, but it is not among",
        ),
        (
            "--sid 2 --server 1=127.0.0.1:3181",
            "server 2 is this server, but it is not among",
        ),
        (
            "--sid 1 --server 1=127.0.0.1",
            "address \"127.0.0.1\" of server 1: the port is missing",
        ),
        ("--sid 1 --server 1=", "server 1 has no address"),
        (
            "--sid 1 --server -1=127.0.0.1:3181",
            "-1 cannot be the id of a server",
        ),
        (
            "--sid 1 --zoo-cfg no/such/file",
            "zoo.cfg: cannot read no/such/file: ",
        ),
    ] {
        refused(arguments, words);
    }
    let (_, _, errors) = run_peer(&[]);
    assert!(errors.contains("Usage: peer --sid <SID>"), "{errors}");
}

/// The words are those that the check of the value prints. If an option did not exist, the error would be another one.
#[test]
fn invalid_values_of_options_are_refused_with_a_reason() {
    for (option, words) in [
        (
            "--server 127.0.0.1:3182",
            "invalid value '127.0.0.1:3182' for '--server <SID=HOST:PORT[|HOST:PORT]>': there is no `=` in it",
        ),
        (
            "--server x=127.0.0.1:3182",
            "invalid value 'x=127.0.0.1:3182' for '--server <SID=HOST:PORT[|HOST:PORT]>': `x` is no server id",
        ),
        ("--server 1=127.0.0.1:3182", "server 1 is configured twice"),
        (
            "--server -1=127.0.0.1:3182",
            "-1 cannot be the id of a server",
        ),
        (
            "--server 2=127.0.0.1:0",
            "server: server 2 cannot be dialed at 127.0.0.1:0",
        ),
        (
            "--dial never",
            "invalid value 'never' for '--dial <DIAL>'\n  [possible values: eager, on-demand]",
        ),
        (
            "--replace all",
            "invalid value 'all' for '--replace <REPLACE>'\n  [possible values: proven, newest]",
        ),
        (
            "--initial-message v3",
            "invalid value 'v3' for '--initial-message <INITIAL_MESSAGE>'\n  [possible values: bare, v1, v2]",
        ),
        (
            "--native seventeen-letters",
            "invalid value 'seventeen-letters' for '--native <CLUSTER>': this is neither a UUID nor a text of 1 to 16 bytes",
        ),
        (
            "--native=",
            "invalid value '' for '--native <CLUSTER>': this is neither",
        ),
        (
            "--native a --initial-message v1",
            "the argument '--native <CLUSTER>' cannot be used with '--initial-message",
        ),
        (
            "--capacity 0",
            "invalid value '0' for '--capacity <N>': 0 is not in 1..=1048576",
        ),
        ("--admit 0", "--admit: unknown: 0 is outside 1 to 65536"),
        (
            "--metrics 9464",
            "invalid value '9464' for '--metrics <HOST:PORT>': this is not HOST:PORT, for example 127.0.0.1:9464",
        ),
        (
            "--metrics 127.0.0.1:x",
            "invalid value '127.0.0.1:x' for '--metrics <HOST:PORT>': this is not HOST:PORT",
        ),
        (
            "--metrics 192.0.2.1:1",
            "--metrics: cannot listen at 192.0.2.1:1: ",
        ),
        (
            "--peer-dead-after-ms 5",
            "--peer-dead-after-ms: peer_dead_after: 5ms is less than 2s",
        ),
        (
            "--handshake-timeout-ms 0",
            "--handshake-timeout-ms: handshake_timeout: 0ns is outside 1 ms to 24 h",
        ),
        (
            "--handshake-timeout-ms -1",
            "invalid value '-1' for '--handshake-timeout-ms <N>': invalid digit",
        ),
        (
            "--congestion-control sixteen-letters-",
            "--congestion-control: congestion_control: \"sixteen-letters-\" is not a name of 1 to 15 bytes",
        ),
        (
            "--seconds -1",
            "invalid value '-1' for '--seconds <N>': cannot convert",
        ),
        (
            "--seconds soon",
            "invalid value 'soon' for '--seconds <N>': this is no number",
        ),
        (
            "--jvm-flag a=b",
            "the following required arguments were not provided:\n  --zoo-cfg <FILE>",
        ),
        (
            "--tls-cert zk1.pem",
            "the following required arguments were not provided:\n  --tls-ca <FILE>",
        ),
        (
            "--tls-key zk1.key",
            "the following required arguments were not provided:\n  --tls-ca <FILE>\n  --tls-cert <FILE>",
        ),
        (
            "--tls-plaintext refuse",
            "invalid value 'refuse' for '--tls-plaintext <TLS_PLAINTEXT>'\n  [possible values: accept, dial]",
        ),
        (
            "--tls-name zk1",
            "invalid value 'zk1' for '--tls-name <SID=NAME>': there is no `=` in it",
        ),
        // What a build with TLS does with them, `tls/programs.rs` tests.
        #[cfg(not(feature = "tls"))]
        (
            "--tls-cert zk1.pem --tls-ca ca.pem",
            "this program speaks no TLS: build it with `cargo build --release --example peer --features tls-ring`",
        ),
        #[cfg(not(feature = "tls"))]
        (
            "--tls-name 1=zk1",
            "this program speaks no TLS: build it with `cargo build",
        ),
        ("--shout", "unexpected argument '--shout' found"),
        ("more", "unexpected argument 'more' found"),
    ] {
        refused(
            &format!("--sid 1 --server 1=127.0.0.1:3181 {option}"),
            words,
        );
    }
}

#[test]
fn a_signal_halts_a_peer() {
    for name in ["INT", "TERM"] {
        let peer = Peer::start(1, &ALONE, &[]);
        peer.next("listening");
        signal(&peer.child, name);
        let (code, rest, errors) = peer.end();
        assert_eq!((code, errors.as_str()), (Some(0), ""), "SIG{name}");
        assert_eq!(rest, [json!({ "event": "halted" })], "SIG{name}");
    }
}

#[test]
fn signal_ends_a_peer_whose_output_is_not_read() {
    const FRAMES: u64 = 500;
    let addresses = reserve_addresses::<2>();
    let peer = Peer::start_unread(1, &servers(&addresses), &["--echo"]);
    // By now the pipe of the output is full.
    let _member = send_frames_and_await_the_echo(&addresses[0].address, FRAMES);
    signal(&peer.child, "TERM");
    let (code, _, errors) = peer.end();
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("nobody reads standard output"), "{errors}");
}

#[test]
fn members_are_changed_by_commands() {
    let mut peer = Peer::start(1, &ALONE, &[]);
    peer.tell("server 2 127.0.0.1:1");
    let changes = peer.next("members");
    assert_eq!(
        (&changes["version"], &changes["joined"]),
        (&json!(1), &json!([2]))
    );
    peer.tell("send 2 never-read\nremove 2");
    assert_eq!(peer.next("left")["discarded"], 1);
    peer.tell("send 2 late");
    assert_eq!(peer.next("error")["message"], "no peer has the id 2");
    peer.tell("remove 2 soon");
    let message = "`soon` is no number of milliseconds";
    assert_eq!(peer.next("error")["message"], message);
    peer.tell("server 2 nowhere");
    peer.next("error");
    peer.quit();
}

#[test]
fn help_lists_all_commands() {
    let mut peer = Peer::start(1, &ALONE, &[]);
    peer.tell("help");
    let lines = peer.next("help")["commands"].take();
    peer.quit();
    let (code, help, errors) = run_peer(&["--help"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(help.contains("--zoo-cfg"), "{help}");
    let tls = help.find("TLS, if built").expect("the heading of TLS");
    assert!(help.find("--verbose").unwrap() < tls, "{help}");
    for usage in [
        "send SID TEXT",
        "hex SID HEX",
        "connect SID",
        "connect-all",
        "server SID HOST:PORT[|HOST:PORT]",
        "remove SID [MS]",
        "stats",
        "flush",
        "help",
        "quit [MS]",
    ] {
        assert!(help.contains(usage), "{usage:?} is not in {help}");
        let command = usage.split(' ').next();
        let mut lines = lines.as_array().unwrap().iter();
        let is_listed =
            lines.any(|line| line.as_str().unwrap().split([' ', ':']).next() == command);
        assert!(is_listed, "{usage:?} is not listed");
    }
    let (_, events) = help.split_once("the field `event`:").unwrap();
    let (events, _) = events.split_once("\n\n").unwrap();
    for event in [
        "up", "down", "joined", "moved", "left", "members", "dropped", "halted",
    ] {
        let mut named = events.split([' ', ',', '.', '\n']);
        assert!(named.any(|name| name == event), "{event} is not named");
    }
}

#[test]
fn commands_in_the_help_fit_into_80_columns() {
    let table = |columns| {
        let mut command = program();
        command.arg("--help").env("COLUMNS", columns);
        let help = String::from_utf8(run(command).stdout).unwrap();
        let (_, table) = help.split_once("one a line:\n").unwrap();
        table.split_once("\n\n").unwrap().0.to_owned()
    };
    assert_eq!(table("80"), table("200"), "a line is wrapped");
}

/// Without a terminal there are 100 columns.
#[test]
fn help_of_all_programs_fits_into_100_columns() {
    for name in ["peer", "election", "mesh"] {
        let mut command = Command::new(example_path(name));
        command.arg("--help").env_remove("COLUMNS");
        let help = String::from_utf8(run(command).stdout).unwrap();
        assert!(help.contains("Usage: "), "{name}: {help}");
        let long = help.lines().find(|line| line.chars().count() > 100);
        assert_eq!(long, None, "{name}");
    }
}

/// Writes a file for a test.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn zoo_cfg_option_gives_servers_and_timeouts() {
    let addresses = reserve_addresses::<2>();
    let mut text = String::from("tickTime=2000\nsyncLimit=5\n");
    for (sid, address) in servers(&addresses) {
        let (host, port) = address.split_once(':').unwrap();
        text += &format!("server.{sid}={host}:2888:{port}\n");
    }
    let path = file("peer-zoo.cfg", &text);
    let options = ["--zoo-cfg", path.to_str().unwrap()];
    let peers = [1, 2].map(|sid| Peer::start(sid, &[], &options));
    let one = addresses[0].address.as_str();
    assert_field(&peers[0].next("listening"), "/addr", one);
    assert_field(&peers[1].next("up"), "/addr", one);
    for peer in peers {
        peer.quit();
    }

    let path = file("peer-bad-zoo.cfg", "tickTime=2000\nserver.1=nowhere\n");
    let (code, _, errors) = run_peer(&["--sid", "1", "--zoo-cfg", path.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.starts_with("peer: zoo.cfg line 2: "), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[test]
fn peer_without_a_listening_socket_exits_with_14() {
    let (_occupied, own) = listener();
    let port = own.rsplit(':').next().unwrap();
    let text = format!("electionPortBindRetry=1\nserver.1=127.0.0.1:2888:{port}\n");
    let path = file("peer-occupied-zoo.cfg", &text);
    let mut peer = Peer::start(1, &[], &["--zoo-cfg", path.to_str().unwrap()]);
    let failed = peer.next("listen-failed");
    assert_field(&failed, "/addr", own.as_str());
    assert!(failed["message"].is_string(), "{failed}");
    let lost = json!({ "event": "listener-lost", "addr": own });
    assert_eq!(peer.next("listener-lost"), lost);
    peer.next("halted");
    assert_eq!(peer.child.wait().unwrap().code(), Some(14));
    let errors = io::read_to_string(peer.child.stderr.take().unwrap()).unwrap();
    assert!(errors.contains("cannot listen"), "{errors}");
}

#[test]
fn peer_continues_while_it_listens_or_retries() {
    let (_occupied, taken) = listener();
    let [free] = reserve_addresses();
    let ports = [&taken, &free.address].map(|at| at.rsplit(':').next().unwrap());
    let address = |port| format!("127.0.0.1:2888:{port}");
    let both = format!("{}|{}", address(ports[0]), address(ports[1]));
    let once = "electionPortBindRetry=1";
    let several = "-Dzookeeper.multiAddress.enabled=true";
    for (more, addresses, event) in [
        (once, both, "listener-lost"),
        (
            "electionPortBindRetry=0",
            address(ports[0]),
            "listen-failed",
        ),
    ] {
        let text = format!("{more}\nserver.1={addresses}\n");
        let path = file("peer-half-occupied-zoo.cfg", &text);
        let mut peer = Peer::start(1, &[], &["--zoo-cfg", path.to_str().unwrap(), several]);
        peer.next(event);
        if event == "listener-lost" {
            TcpStream::connect(&free.address).unwrap();
        }
        peer.tell("send 1 still here");
        assert_eq!(peer.next("frame"), frame(1, "still here"));
        peer.quit();
    }
}

#[test]
fn each_initial_message_version_is_sent_and_understood() {
    let addresses = reserve_addresses::<3>();
    let versions = [(1, "bare"), (2, "v1"), (3, "v2")];
    let mut peers = versions
        .map(|(sid, form)| Peer::start(sid, &servers(&addresses), &["--initial-message", form]));
    for peer in &peers {
        peer.next("up");
        peer.next("up");
    }
    peers[0].tell("send 3 from the bare one");
    assert_eq!(peers[2].next("frame"), frame(1, "from the bare one"));
    for peer in peers {
        peer.quit();
    }

    for (form, version) in [("bare", None), ("v1", Some(V1)), ("v2", Some(V2))] {
        let (remote_listener, remote_address) = listener();
        let [first, second] = reserve_addresses();
        let own = format!("{}|{}", first.address, second.address);
        let peer = Peer::start(
            2,
            &[(1, &remote_address), (2, &own)],
            &["--initial-message", form],
        );
        let advertised = match form {
            "bare" => String::new(),
            "v1" => first.address.clone(),
            _ => own,
        };
        let message = TestConnection::accept(&remote_listener).read_initial_message();
        assert_eq!(
            (message.version, message.sid, message.addresses),
            (version, 2, advertised)
        );
        peer.quit();
    }
}

#[test]
fn unknown_sids_are_rejected_or_admitted() {
    let addresses = reserve_addresses::<2>();
    let own = &addresses[0].address;
    let peer = Peer::start(1, &servers(&addresses), &[]);
    peer.next("listening");
    let mut stranger = TestConnection::member(own, 7, &[]);
    stranger.wait_closed();
    let rejected = peer.next("rejected");
    assert_field(&rejected, "/addr", stranger.addr().to_string());
    assert_field(&rejected, "/sid", 7);
    assert_field(&rejected, "/reason", "unknown-sid");
    peer.quit();

    let options = ["--handshake-timeout-ms", "50"];
    let peer = Peer::start(1, &servers(&addresses), &options);
    peer.next("listening");
    TestConnection::dial(MEMBER_IP, own).wait_closed();
    let rejected = peer.next("rejected");
    assert_field(&rejected, "/sid", Value::Null);
    assert_field(&rejected, "/reason", "handshake-timeout");
    peer.quit();

    let peer = Peer::start(1, &servers(&addresses), &["--admit", "1"]);
    peer.next("listening");
    let mut joiner =
        TestConnection::dial_and_write(MEMBER_IP, own, &versioned(V1, 7, "127.0.0.1:3187"));
    assert_field(&peer.next("up"), "/sid", 7);
    joiner.send("hello");
    assert_eq!(peer.next("frame"), frame(7, "hello"));
    peer.quit();
}

/// Only Linux has the other loopback address without configuration.
#[cfg(target_os = "linux")]
#[test]
fn replace_newest_option_keeps_the_newest_connection() {
    let addresses = reserve_addresses::<2>();
    let own = &addresses[0].address;
    let peer = Peer::start(1, &servers(&addresses), &["--replace", "newest"]);
    peer.next("listening");
    let _member = TestConnection::member(own, 2, &[]);
    peer.next("up");
    let stranger = TestConnection::dial_and_write(STRANGER_IP, own, &bare(2));
    assert_field(&peer.next("down"), "/reason", "replaced");
    assert_field(&peer.next("up"), "/addr", stranger.addr().to_string());
    peer.quit();
}

/// As member 2, sends numbered frames to a peer whose output is not read, and waits for the echo of the last one.
#[track_caller]
fn send_frames_and_await_the_echo(to: &str, count: u64) -> TestConnection {
    eventually("a peer listens", || TcpStream::connect(to).is_ok());
    let mut member = TestConnection::member(to, 2, &[]);
    for number in 1..=count {
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(1000, 0);
        member.send(payload);
    }
    while member.recv()[..8] != count.to_be_bytes() {}
    member
}

#[test]
fn unread_output_loses_only_the_oldest_frames() {
    const FRAMES: u64 = 2000;
    let addresses = reserve_addresses::<2>();
    let options = ["--echo", "--capacity", "10"];
    let mut peer = Peer::start_unread(1, &servers(&addresses), &options);
    // Everything is received, although the pipe is full.
    let _member = send_frames_and_await_the_echo(&addresses[0].address, FRAMES);
    peer.read();
    let mut numbers = Vec::new();
    while numbers.last() != Some(&FRAMES) {
        let line = peer.next("frame");
        let hex = line["hex"].as_str().unwrap();
        numbers.push(u64::from_str_radix(&hex[..16], 16).unwrap());
    }
    assert!(numbers.is_sorted(), "{numbers:?}");
    let stats = peer.stats();
    assert_field(&stats, "/inbox/pushed", FRAMES);
    assert_field(&stats, "/inbox/taken", numbers.len());
    assert_field(&stats, "/inbox/dropped", FRAMES - numbers.len() as u64);
    assert_at_least(&stats, "/inbox/dropped", 1);
    peer.quit();
}

#[test]
fn end_of_input_does_not_end_the_peer() {
    let addresses = reserve_addresses();
    let [mut one, mut two] = pair(&addresses);
    drop(one.stdin.take());
    two.tell("send 1 are you there");
    assert_eq!(one.next("frame"), frame(2, "are you there"));
    two.quit();
}

#[test]
fn last_frame_is_delivered_before_the_sender_halts() {
    for end in ["flush\nquit", "quit 60000"] {
        let addresses = reserve_addresses::<2>();
        let servers = servers(&addresses);
        let mut sender = Peer::start(2, &servers, &[]);
        sender.tell(&format!("send 1 hello\n{end}"));
        // The receiver starts later, and the sender waits for it.
        assert_field(&sender.next("sent"), "/outcome", "queued");
        let receiver = Peer::start(1, &servers, &[]);
        assert_eq!(receiver.next("frame"), frame(2, "hello"));
        let (code, rest, errors) = sender.end();
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        assert_eq!(rest.last(), Some(&json!({ "event": "halted" })));
        receiver.quit();
    }
}

#[test]
fn seconds_option_halts_the_peer() {
    let peer = Peer::start(1, &ALONE, &["--seconds", "0.05"]);
    let (code, lines, errors) = peer.end();
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert_eq!(lines.last(), Some(&json!({ "event": "halted" })));
}

#[test]
fn huge_seconds_option_never_halts_the_peer() {
    let peer = Peer::start(1, &ALONE, &["--seconds", "1e19"]);
    peer.next("listening");
    peer.quit();
}

#[test]
fn closed_output_ends_the_peer_without_an_error() {
    let mut peer = Peer::start_unread(1, &ALONE, &[]);
    drop(peer.child.stdout.take());
    // More than once: a program that another test is just starting has the other end of the pipe until it executes.
    eventually("the peer ends", || {
        // Fails if it has ended already.
        let _ = peer.stdin.as_mut().unwrap().write_all(b"stats\n");
        peer.child.try_wait().unwrap().is_some()
    });
    let (code, _, errors) = peer.end();
    assert_eq!((code, errors.as_str()), (Some(0), ""));
}

#[test]
fn verbose_option_writes_the_log() {
    let addresses = reserve_addresses::<1>();
    let mut peer = Peer::start(1, &servers(&addresses), &["--verbose"]);
    peer.next("listening");
    peer.tell("quit");
    let (code, _, errors) = peer.end();
    assert_eq!(code, Some(0));
    assert!(
        errors.contains(&format!("listening on {}", addresses[0].address)),
        "{errors}"
    );
}

/// A process without free descriptors pauses accepting: the listening socket stays open, the silent connections are evicted,
/// and a member that waits in the accept queue is accepted then.
#[test]
fn recovers_from_descriptor_exhaustion() {
    let addresses = reserve_addresses::<2>();
    let servers = servers(&addresses);
    let mut command = Command::new("sh");
    // Some ten for connections. The rest are the listening socket, the poll, the waker and the standard streams.
    command
        .args(["-c", "ulimit -n 16; exec \"$0\" \"$@\""])
        .arg(program_path());
    let mut one = Peer::start_by(command, 1, &servers, &[]);
    one.next("listening");
    let silent: Vec<TestConnection> = (0..50)
        .map(|_| TestConnection::dial(STRANGER_IP, &addresses[0].address))
        .collect();
    // After all of them in the accept queue.
    let mut two = Peer::start(2, &servers, &[]);
    assert_field(&two.next("up"), "/sid", 1);
    two.tell("send 1 still here");
    let message = one.next("accept-failed")["message"].take();
    assert!(
        message.as_str().unwrap().contains("open files"),
        "{message}"
    );
    assert_eq!(one.next("frame"), frame(2, "still here"));
    let stats = one.stats();
    assert_at_least(&stats, "/rejected/evicted", 1);
    assert_at_least(&stats, "/accept_failures", 1);
    // With free descriptors, all connections are accepted.
    drop(silent);
    eventually("none is pending", || one.stats()["pending"] == 0);
    assert_at_least(&one.stats(), "/accepted", 51);
    one.quit();
    two.quit();
}
