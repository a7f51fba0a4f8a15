//! The metrics that the programs serve over HTTP, and the documents that name them.
//!
//! Whether other programs can read them is tested in `system/metrics`.

use std::{
    collections::BTreeSet,
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::Instant,
};

use quorum_cnx::Stats;
use support::{
    LONG, ReservedAddress, TestConnection,
    ensemble::Ensemble,
    eventually,
    http::{get, request},
    program::Peer,
};

/// Starts peer 1 of 2 with metrics. Returns the address of these, and that where it listens.
fn start() -> (Peer, String, String) {
    let other = ReservedAddress::new();
    let servers = [(1, "127.0.0.1:0"), (2, &other.address[..])];
    let peer = Peer::start(1, &servers, &["--metrics", "127.0.0.1:0"]);
    let addr = |event| peer.next(event)["addr"].as_str().unwrap().to_owned();
    let (listening, metrics) = (addr("listening"), addr("metrics"));
    (peer, metrics, listening)
}

#[test]
fn peer_serves_its_statistics() {
    let (mut peer, addr, listening) = start();
    peer.tell("send 1 to itself\nsend 2 waits\nsend 2 waits");
    (0..3).for_each(|_| drop(peer.next("sent")));
    let asked = "GET /metrics?name=any HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n";
    let (head, body) = request(&addr, asked);
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("HTTP/1.1 200 OK"));
    let headers: BTreeSet<&str> = lines.collect();
    let length = format!("Content-Length: {}", body.len());
    let kind = "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(headers, [kind, &length, "Connection: close"].into());
    for line in [
        "quorum_cnx_peer_linked{sid=\"2\"} 0\n",
        "quorum_cnx_peer_superseded_frames_total{sid=\"2\"} 1\n",
        "quorum_cnx_loopback_frames_total 1\n",
    ] {
        assert!(body.contains(line), "{line} is not in {body}");
    }
    assert!(body.ends_with("\n# EOF\n"));
    // What waits to be printed counts as the inbox. The library's own has the frame to itself only.
    let _other = TestConnection::member(&listening, 2, &["from 2"]);
    eventually("both frames are printed", || {
        get(&addr, "/metrics").contains("quorum_cnx_inbox_taken_total 2\n")
    });
    peer.quit();
}

#[test]
fn other_requests_are_refused() {
    let (peer, addr, _) = start();
    // One byte more than is read.
    let long = format!("{:x<1$}", "GET /metrics HTTP/1.1\r\nX: ", (8 << 10) + 1);
    for (asked, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("GET /metrics/1 HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        (
            "POST /metrics HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
            "405 Method Not Allowed",
        ),
        ("GET /metrics\r\n\r\n", "400 Bad Request"),
        ("\r\n\r\n", "400 Bad Request"),
        ("\u{ff}\r\n\r\n", "400 Bad Request"),
        (&long, "431 Request Header Fields Too Large"),
    ] {
        let (head, body) = request(&addr, asked);
        let line = head.lines().next();
        assert_eq!(line, Some(&format!("HTTP/1.1 {status}")[..]), "{asked}");
        assert_eq!(body, "");
    }
    peer.quit();
}

#[test]
fn slow_connections_do_not_keep_others_out() {
    let (peer, addr, _) = start();
    let is_open = |mut connection: &TcpStream| {
        connection.set_nonblocking(true).unwrap();
        let read = connection.read(&mut [0]);
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    // A round is repeated if the test was held up until the time of the slow connections was over.
    eventually("a scrape does not wait for slow connections", || {
        // More than may be open at a time. Each has sent a part of its request.
        let slow: Vec<_> = (0..50)
            .map(|_| {
                let mut connection = TcpStream::connect(&addr).unwrap();
                connection.write_all(b"G").unwrap();
                connection
            })
            .collect();
        assert!(get(&addr, "/metrics").ends_with("# EOF\n"));
        let open = slow.iter().filter(|connection| is_open(connection)).count();
        assert!(open < 32, "{open} beside the scrape");
        open >= 10
    });
    peer.quit();
}

#[test]
fn silent_connections_are_closed() {
    let (peer, addr, _) = start();
    let mut silent = TcpStream::connect(&addr).unwrap();
    silent.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    peer.quit();
}

#[test]
fn election_serves_its_statistics() {
    let ensemble = Ensemble::new(3, "");
    let mut voter = ensemble.start("2", &["--metrics", "127.0.0.1:0"]);
    voter.await_events("metrics", 1);
    let addr = voter.of("metrics").next().unwrap()["addr"].clone();
    let body = get(addr.as_str().unwrap(), "/metrics");
    for sid in [1, 3] {
        let line = format!("quorum_cnx_peer_linked{{sid=\"{sid}\"}} 0\n");
        assert!(body.contains(&line), "{line} is not in {body}");
    }
    voter.quit(1);
}

/// The names of all samples.
fn samples() -> BTreeSet<String> {
    let mut text = String::new();
    let stats = Stats::default();
    stats.write_openmetrics(Instant::now(), &mut text).unwrap();
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names = families.flat_map(|family| {
        let (name, kind) = family.split_once(' ').unwrap();
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_count", "_sum"],
            _ => &[""],
        };
        suffixes.iter().map(move |suffix| format!("{name}{suffix}"))
    });
    names.collect()
}

/// The names of metrics in a document.
fn named(document: &str) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("docs/operations").join(document)).unwrap();
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("quorum_cnx_"))
        .filter(|word| !["quorum_cnx_", "quorum_cnx_peer_"].contains(word))
        .map(str::to_owned)
        .collect()
}

#[test]
fn alert_rules_and_dashboard_use_existing_metrics() {
    let existing = samples();
    for document in ["alerts.yml", "dashboard.json"] {
        let named = named(document);
        assert!(named.len() >= 5, "{document}: {named:?}");
        let unknown: Vec<_> = named.difference(&existing).collect();
        assert!(unknown.is_empty(), "{document}: {unknown:?}");
    }
}

#[test]
fn every_metric_is_documented() {
    let part_of_histogram = |name: &str| {
        let suffixes = ["_bucket", "_count", "_sum"].iter();
        suffixes
            .filter_map(|suffix| name.strip_suffix(suffix).map(str::to_owned))
            .next()
    };
    let expected = samples()
        .into_iter()
        .map(|name| part_of_histogram(&name).unwrap_or(name));
    assert_eq!(named("README.md"), expected.collect());
}
