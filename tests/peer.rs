//! The program `peer`: each command, each line that it prints, each way to start it wrongly.
//!
//! It runs as a user runs it, as a process with pipes. What the library does is tested elsewhere.

use std::{
    fs,
    io::{self, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::Command,
};

use serde_json::{Value, json};
use support::{
    ABROAD, HOME, Puppet, V1, V2, Vacant, bare, eventually, listener,
    program::{Peer, program, program_path},
    versioned,
};

/// Where a peer will listen.
struct Place {
    address: String,
    _kept: Option<Vacant>,
}

/// Places for peers. On Linux a socket that does not listen keeps everybody else away, and a peer can be bound beside
/// it; elsewhere nobody is likely to come first.
fn places<const N: usize>() -> [Place; N] {
    std::array::from_fn(|_| {
        let vacant = Vacant::new();
        Place {
            address: vacant.address.clone(),
            _kept: cfg!(target_os = "linux").then_some(vacant),
        }
    })
}

/// Servers 1, 2, ... at these places.
fn servers(places: &[Place]) -> Vec<(i64, &str)> {
    let addresses = places.iter().map(|place| place.address.as_str());
    (1..).zip(addresses).collect()
}

/// Peers 1 and 2, linked.
fn pair(places: &[Place; 2]) -> [Peer; 2] {
    let peers = [1, 2].map(|sid| Peer::start(sid, &servers(places), &[]));
    for (peer, place) in peers.iter().zip(places) {
        assert_eq!(peer.next("listening")["addr"], place.address.as_str());
    }
    let up =
        json!({ "event": "up", "sid": 1, "dialed": true, "addr": places[0].address, "link": 1 });
    assert_eq!(peers[1].next("up"), up);
    let up = peers[0].next("up");
    assert_eq!((&up["sid"], &up["dialed"]), (&json!(2), &json!(false)));
    peers
}

fn frame(sid: i64, payload: &str) -> Value {
    let hex: String = payload.bytes().map(|byte| format!("{byte:02x}")).collect();
    json!({ "event": "frame", "sid": sid, "len": payload.len(), "hex": hex })
}

#[test]
fn two_peers_link_and_talk() {
    let places = places();
    let [mut one, mut two] = pair(&places);
    one.tell("send 2 a text  with spaces ");
    let sent = one.next("sent");
    assert_eq!(sent["sid"], 2);
    // The loop may just be writing to the new link, and then writes this as well.
    assert!(["written", "queued"].contains(&sent["outcome"].as_str().unwrap()));
    assert_eq!(two.next("frame"), frame(1, "a text  with spaces "));
    two.tell("hex 1 68656C6c6f");
    assert_eq!(one.next("frame"), frame(2, "hello"));
    // Asking for links that are there changes nothing.
    one.tell("connect 2\nconnect-all");
    let stats = one.stats();
    assert_eq!(stats["ups"], 1);
    assert_eq!(
        stats["sent"],
        json!({
            "accepted": 1, "written": 1, "superseded": 0, "discarded": 0, "waiting": 0, "resent": 0, "bytes": 24,
        })
    );
    assert_eq!(stats["received"], json!({ "frames": 1, "bytes": 5 }));
    assert_eq!(stats["inbox"]["taken"], 1);
    let peers = stats["peers"].as_array().unwrap();
    assert_eq!(peers.len(), 1);
    assert_eq!(
        (&peers[0]["sid"], &peers[0]["linked"]),
        (&json!(2), &json!(true))
    );
    one.quit();
    let down = two.next("down");
    assert_eq!(
        (&down["sid"], &down["reason"]),
        (&json!(1), &json!("closed"))
    );
    assert_eq!(two.next("dial-failed")["sid"], 1);
    two.quit();
}

#[test]
fn an_echo_comes_back_and_one_to_oneself_ends() {
    let places = places::<2>();
    let servers = servers(&places);
    let mut one = Peer::start(1, &servers, &[]);
    let mut two = Peer::start(2, &servers, &["--echo"]);
    one.next("up");
    one.tell("send 2 there and back");
    one.next("sent");
    assert_eq!(one.next("frame"), frame(2, "there and back"));
    assert_eq!(two.next("frame"), frame(1, "there and back"));
    one.quit();
    two.tell("send 2 to myself");
    assert_eq!(two.next("sent")["outcome"], "loopback");
    assert_eq!(two.next("frame"), frame(2, "to myself"));
    let stats = two.stats();
    assert_eq!(
        (&stats["loopback"], &stats["inbox"]["pushed"]),
        (&json!(1), &json!(2))
    );
    two.quit();
}

#[test]
fn a_newer_frame_supersedes_one_that_waits() {
    let places = places::<2>();
    let mut peer = Peer::start(2, &servers(&places), &["--dial", "on-demand"]);
    peer.next("listening");
    assert_eq!(peer.stats()["dials"], 0);
    peer.tell("send 1 older\nsend 1 newer");
    assert_eq!(peer.next("sent")["outcome"], "queued");
    assert_eq!(peer.next("sent")["outcome"], "superseded");
    let failed = peer.next("dial-failed");
    assert_eq!(
        (&failed["sid"], &failed["reason"]),
        (&json!(1), &json!("io"))
    );
    let sent = &peer.stats()["peers"][0]["sent"];
    assert_eq!(
        (&sent["superseded"], &sent["waiting"]),
        (&json!(1), &json!(1))
    );
    peer.quit();
}

#[test]
fn a_command_that_cannot_be_obeyed_is_an_error_and_no_end() {
    let places = places::<2>();
    let mut peer = Peer::start(1, &servers(&places), &[]);
    for (command, message) in [
        ("dance", "there is no command `dance`"),
        ("send", "`` is no server id"),
        ("send two hello", "`two` is no server id"),
        ("send 7 hello", "no peer has the id 7"),
        ("send 2", "a frame has at least one byte"),
        ("send 2 ", "a frame has at least one byte"),
        ("hex 2 abc", "a hexadecimal digit is missing"),
        ("hex 2 xy", "this is not hexadecimal"),
        ("connect 7", "no peer has the id 7"),
        ("connect", "`` is no server id"),
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
    assert_eq!(peer.next("error")["message"], "a command is not UTF-8");
    let long = "00".repeat((512 << 10) + 1);
    peer.tell(&format!("hex 2 {long}"));
    assert_eq!(
        peer.next("error")["message"],
        "a frame of 524289 bytes is longer than 524288"
    );
    // An empty line is nothing, and the carriage return of other systems belongs to the line's end.
    peer.tell("\r\n\nsend 1 hello\r");
    assert_eq!(peer.next("frame"), frame(1, "hello"));
    peer.quit();
}

#[test]
fn a_wrong_command_line_names_the_help_and_exits_with_2() {
    let own = "1=127.0.0.1:3181";
    let cases: &[(&[&str], &str)] = &[
        (&[], "--sid"),
        (&["--sid", "one"], "'one'"),
        (&["--sid", "1"], "server 1"),
        (&["--sid", "2", "--server", own], "server 2"),
        (&["--sid", "1", "--server", "127.0.0.1:3181"], "no `=`"),
        (&["--sid", "1", "--server", "x=127.0.0.1:3181"], "`x`"),
        (&["--sid", "1", "--server", "1=127.0.0.1"], "port"),
        (&["--sid", "1", "--server", "1="], "no address"),
        (&["--sid", "-1", "--server", own], "-1"),
        (&["--sid", "1", "--server", own, "--server", own], "twice"),
        (
            &["--sid", "1", "--server", own, "--server", "2=127.0.0.1:0"],
            "server 2",
        ),
        (
            &["--sid", "1", "--server", own, "--dial", "never"],
            "on-demand",
        ),
        (
            &["--sid", "1", "--server", own, "--replace", "all"],
            "newest",
        ),
        (
            &["--sid", "1", "--server", own, "--challenge", "v3"],
            "bare",
        ),
        (
            &["--sid", "1", "--server", own, "--capacity", "0"],
            "--capacity",
        ),
        (&["--sid", "1", "--server", own, "--admit", "0"], "--admit"),
        (&["--sid", "1", "--server", own, "--admit", "-1"], "--admit"),
        (
            &["--sid", "1", "--server", own, "--seconds", "-1"],
            "--seconds",
        ),
        (
            &["--sid", "1", "--server", own, "--capacity", "-1"],
            "--capacity",
        ),
        (&["--sid", "1", "--server", "-1=127.0.0.1:3181"], "-1"),
        (
            &["--sid", "1", "--server", own, "--server", "--echo"],
            "--server",
        ),
        (
            &["--sid", "1", "--server", own, "--peer-dead-after-ms", "5"],
            "--peer-dead-after-ms",
        ),
        (
            &["--sid", "1", "--server", own, "--handshake-timeout-ms", "0"],
            "--handshake-timeout-ms",
        ),
        (
            &["--sid", "1", "--server", own, "--seconds", "soon"],
            "soon",
        ),
        (&["--sid", "1", "--server", own, "--shout"], "--shout"),
        (&["--sid", "1", "--server", own, "more"], "more"),
        (&["--sid", "1", "--zoo-cfg", "no/such/file"], "no/such/file"),
    ];
    for (arguments, word) in cases {
        let output = program().args(*arguments).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
        assert!(
            errors.starts_with("peer: ") && errors.contains(word),
            "{arguments:?}: {errors}"
        );
        // What is wrong with a file is not in the help.
        let has_help = errors.contains("--help");
        assert_eq!(has_help, !arguments.contains(&"--zoo-cfg"), "{errors}");
    }
    let output = program().output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("Usage: peer --sid <SID>"), "{errors}");
}

#[test]
fn a_negative_id_of_a_server_is_understood_and_refused() {
    let output = program()
        .args([
            "--sid",
            "1",
            "--server",
            "1=127.0.0.1:0",
            "--server",
            "-1=127.0.0.1:1",
        ])
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let first = errors.lines().next().unwrap();
    assert!(
        first.starts_with("peer: -1 cannot be the id of a server"),
        "{errors}"
    );
}

/// Sends a signal to a peer.
fn signal(peer: &Peer, name: &str) {
    let id = peer.child.id().to_string();
    let script = ["-c", "kill -s \"$0\" \"$1\"", name, &id];
    assert!(Command::new("sh").args(script).status().unwrap().success());
}

#[test]
fn a_signal_halts_a_peer() {
    for name in ["INT", "TERM"] {
        let places = places::<1>();
        let peer = Peer::start(1, &servers(&places), &[]);
        peer.next("listening");
        signal(&peer, name);
        let (code, rest, errors) = peer.end();
        assert_eq!((code, errors.as_str()), (Some(0), ""), "SIG{name}");
        assert_eq!(rest, [json!({ "event": "halted" })], "SIG{name}");
    }
}

#[test]
fn a_signal_ends_a_peer_that_nobody_reads() {
    const FRAMES: u64 = 500;
    let places = places::<2>();
    let peer = Peer::start_unread(1, &servers(&places), &["--echo"]);
    let mut member = say_once_it_listens(&places[0].address, &bare(2));
    for number in 1..=FRAMES {
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(1000, 0);
        member.send(payload);
    }
    // The last echo: more lines wait than a pipe has room for.
    while member.recv()[..8] != FRAMES.to_be_bytes() {}
    signal(&peer, "TERM");
    let (code, _, errors) = peer.end();
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("nobody reads standard output"), "{errors}");
}

#[test]
fn help_on_standard_input_gives_the_commands() {
    let places = places::<1>();
    let mut peer = Peer::start(1, &servers(&places), &[]);
    peer.tell("help");
    let help = peer.next("help");
    let commands: Vec<&str> = help["commands"]
        .as_array()
        .unwrap()
        .iter()
        .map(|command| command.as_str().unwrap())
        .collect();
    for command in [
        "send",
        "hex",
        "connect",
        "connect-all",
        "stats",
        "flush",
        "help",
        "quit",
    ] {
        let is_it = |line: &&str| line.split([' ', ':']).next() == Some(command);
        assert!(commands.iter().any(is_it), "{command}: {commands:?}");
    }
    peer.quit();
}

#[test]
fn the_help_names_every_command_and_is_no_failure() {
    let output = program().arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &output.stderr[..]),
        (Some(0), &b""[..])
    );
    for word in [
        "send SID TEXT",
        "hex SID HEX",
        "connect-all",
        "stats",
        "flush",
        "help",
        "quit",
        "--zoo-cfg",
    ] {
        assert!(help.contains(word), "{word:?} is not in {help}");
    }
}

/// A file for one test.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_zoo_cfg_brings_servers_and_times() {
    let places = places::<2>();
    let mut text = String::from("tickTime=2000\nsyncLimit=5\n");
    for (sid, address) in servers(&places) {
        let (host, port) = address.split_once(':').unwrap();
        text += &format!("server.{sid}={host}:2888:{port}\n");
    }
    let path = file("peer-zoo.cfg", &text);
    let options = ["--zoo-cfg", path.to_str().unwrap()];
    let peers = [1, 2].map(|sid| Peer::start(sid, &[], &options));
    let one = places[0].address.as_str();
    assert_eq!(peers[0].next("listening")["addr"], one);
    assert_eq!(peers[1].next("up")["addr"], one);
    for peer in peers {
        peer.quit();
    }

    let path = file("peer-bad-zoo.cfg", "tickTime=2000\nserver.1=nowhere\n");
    let output = program()
        .args(["--sid", "1", "--zoo-cfg", path.to_str().unwrap()])
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.starts_with("peer: zoo.cfg line 2: "), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[test]
fn a_peer_that_can_listen_nowhere_ends_with_a_code_of_its_own() {
    let (_occupied, own) = listener();
    let port = own.rsplit(':').next().unwrap();
    let text = format!("electionPortBindRetry=1\nserver.1=127.0.0.1:2888:{port}\n");
    let path = file("peer-occupied-zoo.cfg", &text);
    let mut peer = Peer::start(1, &[], &["--zoo-cfg", path.to_str().unwrap()]);
    let failed = peer.next("listen-failed");
    assert_eq!(failed["addr"], own.as_str());
    assert!(failed["message"].is_string(), "{failed}");
    let lost = json!({ "event": "listener-lost", "addr": own });
    assert_eq!(peer.next("listener-lost"), lost);
    peer.next("halted");
    assert_eq!(peer.child.wait().unwrap().code(), Some(14));
    let errors = io::read_to_string(peer.child.stderr.take().unwrap()).unwrap();
    assert!(errors.contains("cannot listen"), "{errors}");
}

#[test]
fn a_peer_that_listens_somewhere_or_tries_goes_on() {
    let (_occupied, taken) = listener();
    let [free] = places();
    let ports = [&taken, &free.address].map(|at| at.rsplit(':').next().unwrap());
    let place = |port| format!("127.0.0.1:2888:{port}");
    let both = format!("{}|{}", place(ports[0]), place(ports[1]));
    let once = "electionPortBindRetry=1";
    let several = "-Dzookeeper.multiAddress.enabled=true";
    for (more, addresses, event) in [
        (once, both, "listener-lost"),
        ("electionPortBindRetry=0", place(ports[0]), "listen-failed"),
    ] {
        let text = format!("{more}\nserver.1={addresses}\n");
        let path = file("peer-half-occupied-zoo.cfg", &text);
        let mut peer = Peer::start(1, &[], &["--zoo-cfg", path.to_str().unwrap(), several]);
        peer.next(event);
        peer.tell("send 1 still here");
        assert_eq!(peer.next("frame"), frame(1, "still here"));
        peer.quit();
    }
}

#[test]
fn each_dialect_is_sent_as_asked_and_understood_by_the_others() {
    let homes = places::<3>();
    let dialects = [(1, "bare"), (2, "v1"), (3, "v2")];
    let mut peers = dialects
        .map(|(sid, form)| Peer::start(sid, &servers(&homes), &["--initial-message", form]));
    for peer in &peers {
        peer.next("up");
        peer.next("up");
    }
    peers[0].tell("send 3 from the bare one");
    assert_eq!(peers[2].next("frame"), frame(1, "from the bare one"));
    for peer in peers {
        peer.quit();
    }

    for (dialect, version) in [("bare", None), ("v1", Some(V1)), ("v2", Some(V2))] {
        let (far_socket, far) = listener();
        let [first, second] = places();
        let own = format!("{}|{}", first.address, second.address);
        let peer = Peer::start(2, &[(1, &far), (2, &own)], &["--initial-message", dialect]);
        let told = match dialect {
            "bare" => String::new(),
            "v1" => first.address.clone(),
            _ => own,
        };
        let hello = Puppet::accept(&far_socket).hello();
        assert_eq!(
            (hello.version, hello.sid, hello.addresses),
            (version, 2, told)
        );
        peer.quit();
    }
}

#[test]
fn strangers_are_rejected_and_guests_admitted() {
    let places = places::<2>();
    let own = &places[0].address;
    let peer = Peer::start(1, &servers(&places), &[]);
    peer.next("listening");
    let mut stranger = Puppet::say(HOME, own, &bare(7));
    stranger.wait_closed();
    let rejected = peer.next("rejected");
    assert_eq!(rejected["addr"], stranger.addr().to_string());
    assert_eq!(rejected["sid"], 7);
    assert_eq!(rejected["reason"], "unknown-sid");
    peer.quit();

    let options = ["--handshake-timeout-ms", "50"];
    let peer = Peer::start(1, &servers(&places), &options);
    peer.next("listening");
    Puppet::dial(HOME, own).wait_closed();
    let rejected = peer.next("rejected");
    assert_eq!(rejected["sid"], Value::Null);
    assert_eq!(rejected["reason"], "handshake-timeout");
    peer.quit();

    let peer = Peer::start(1, &servers(&places), &["--admit", "1"]);
    peer.next("listening");
    let mut guest = Puppet::say(HOME, own, &versioned(V1, 7, "127.0.0.1:3187"));
    assert_eq!(peer.next("up")["sid"], 7);
    guest.send("hello");
    assert_eq!(peer.next("frame"), frame(7, "hello"));
    peer.quit();
}

/// The others' address answers without being asked to on Linux only.
#[cfg(target_os = "linux")]
#[test]
fn the_newest_connection_wins_if_it_shall() {
    let places = places::<2>();
    let own = &places[0].address;
    let peer = Peer::start(1, &servers(&places), &["--replace", "newest"]);
    peer.next("listening");
    let _member = Puppet::say(HOME, own, &bare(2));
    peer.next("up");
    let stranger = Puppet::say(ABROAD, own, &bare(2));
    assert_eq!(peer.next("down")["reason"], "replaced");
    assert_eq!(peer.next("up")["addr"], stranger.addr().to_string());
    peer.quit();
}

/// Says this as soon as somebody listens, who cannot tell when.
#[track_caller]
fn say_once_it_listens(to: &str, bytes: &[u8]) -> Puppet {
    eventually("somebody listens", || TcpStream::connect(to).is_ok());
    Puppet::say(HOME, to, bytes)
}

#[test]
fn who_does_not_read_loses_the_oldest_frames_and_stops_nobody() {
    const FRAMES: u64 = 2000;
    let places = places::<2>();
    let options = ["--echo", "--capacity", "10"];
    let mut peer = Peer::start_unread(1, &servers(&places), &options);
    let mut member = say_once_it_listens(&places[0].address, &bare(2));
    for number in 1..=FRAMES {
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(1000, 0);
        member.send(payload);
    }
    // The last echo: everything was taken, although the pipe has been full for long.
    while member.recv()[..8] != FRAMES.to_be_bytes() {}
    peer.read();
    let mut numbers = Vec::new();
    while numbers.last() != Some(&FRAMES) {
        let line = peer.next("frame");
        let hex = line["hex"].as_str().unwrap();
        numbers.push(u64::from_str_radix(&hex[..16], 16).unwrap());
    }
    assert!(numbers.is_sorted(), "{numbers:?}");
    let inbox = &peer.stats()["inbox"];
    assert_eq!(inbox["pushed"], FRAMES);
    assert_eq!(inbox["taken"], numbers.len());
    assert_eq!(inbox["dropped"], FRAMES - numbers.len() as u64);
    assert!(inbox["dropped"].as_u64() > Some(0), "{inbox}");
    peer.quit();
}

#[test]
fn the_end_of_input_is_no_end() {
    let places = places();
    let [mut one, mut two] = pair(&places);
    drop(one.stdin.take());
    two.tell("send 1 are you there");
    assert_eq!(one.next("frame"), frame(2, "are you there"));
    two.quit();
}

#[test]
fn a_frame_is_sent_and_done() {
    let places = places::<2>();
    let servers = servers(&places);
    let mut sender = Peer::start(2, &servers, &[]);
    sender.tell("send 1 hello\nflush\nquit");
    // The receiver comes later, and the sender waits for it.
    assert_eq!(sender.next("sent")["outcome"], "queued");
    let receiver = Peer::start(1, &servers, &[]);
    assert_eq!(receiver.next("frame"), frame(2, "hello"));
    let (code, rest, errors) = sender.end();
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert_eq!(rest.last(), Some(&json!({ "event": "halted" })));
    receiver.quit();
}

#[test]
fn it_halts_when_its_time_is_over() {
    let places = places::<1>();
    let peer = Peer::start(1, &servers(&places), &["--seconds", "0.05"]);
    let (code, lines, errors) = peer.end();
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert_eq!(lines.last(), Some(&json!({ "event": "halted" })));
}

#[test]
fn a_time_that_no_clock_reaches_is_no_end() {
    let places = places::<1>();
    let peer = Peer::start(1, &servers(&places), &["--seconds", "1e19"]);
    peer.next("listening");
    peer.quit();
}

#[test]
fn who_closes_its_output_ends_it_quietly() {
    let places = places::<1>();
    let mut peer = Peer::start_unread(1, &servers(&places), &[]);
    drop(peer.child.stdout.take());
    // May have ended already.
    let _ = peer.stdin.as_mut().unwrap().write_all(b"stats\n");
    let (code, _, errors) = peer.end();
    assert_eq!((code, errors.as_str()), (Some(0), ""));
}

#[test]
fn it_logs_if_asked() {
    let places = places::<1>();
    let mut peer = Peer::start(1, &servers(&places), &["--verbose"]);
    peer.next("listening");
    peer.tell("quit");
    let (code, _, errors) = peer.end();
    assert_eq!(code, Some(0));
    assert!(
        errors.contains(&format!("listening on {}", places[0].address)),
        "{errors}"
    );
}

/// A process that is out of descriptors rests from accepting and goes on: the listening socket stays open, members that
/// wait in its queue come in, and the silent ones that took the descriptors go.
#[test]
fn who_is_out_of_descriptors_recovers() {
    let places = places::<2>();
    let servers = servers(&places);
    let mut command = Command::new("sh");
    // Ten and some for itself: the listening socket, the queue of events, the waker, the standard streams.
    command
        .args(["-c", "ulimit -n 16; exec \"$0\" \"$@\""])
        .arg(program_path());
    let mut one = Peer::start_by(command, 1, &servers, &[]);
    one.next("listening");
    let silent: Vec<Puppet> = (0..50)
        .map(|_| Puppet::dial(ABROAD, &places[0].address))
        .collect();
    // Behind all of them in the queue.
    let mut two = Peer::start(2, &servers, &[]);
    assert_eq!(two.next("up")["sid"], 1);
    two.tell("send 1 still here");
    let told = one.next("accept-failed")["message"].take();
    assert!(told.as_str().unwrap().contains("open files"), "{told}");
    assert_eq!(one.next("frame"), frame(2, "still here"));
    let stats = one.stats();
    assert!(stats["rejected"]["evicted"].as_u64() > Some(0), "{stats}");
    assert!(stats["accept_failures"].as_u64() > Some(0), "{stats}");
    // With descriptors to spare, everybody is looked at.
    drop(silent);
    eventually("all are gone", || one.stats()["pending"] == 0);
    assert!(one.stats()["accepted"].as_u64() >= Some(51));
    one.quit();
    two.quit();
}
