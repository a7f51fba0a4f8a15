//! The metrics that the programs serve over HTTP.
//!
//! Whether other programs can read them is tested in `system/metrics`.

use std::{collections::BTreeSet, io::Read as _, net::TcpStream};

use support::{
    LONG, ReservedAddress,
    ensemble::Ensemble,
    eventually,
    http::{get, request},
    program::Peer,
};

/// Starts peer 1 of 2 with metrics. Returns their address, too.
fn start(options: &[&str]) -> (Peer, String) {
    let other = ReservedAddress::new();
    let servers = [(1, "127.0.0.1:0"), (2, &other.address[..])];
    let options = [&["--metrics", "127.0.0.1:0"], options].concat();
    let peer = Peer::start(1, &servers, &options);
    let addr = peer.next("metrics")["addr"].as_str().unwrap().to_owned();
    (peer, addr)
}

#[test]
fn peer_serves_its_statistics() {
    let (mut peer, addr) = start(&["--capacity", "1"]);
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
    // Those that wait to be printed, and not the library's own.
    eventually("the frame is printed", || {
        get(&addr, "/metrics").contains("quorum_cnx_inbox_taken_total 1\n")
    });
    peer.quit();
}

#[test]
fn other_requests_are_refused() {
    let (peer, addr) = start(&[]);
    // One byte more than is read.
    let long = format!("{:x<1$}", "GET /metrics HTTP/1.1\r\nX: ", (8 << 10) + 1);
    for (asked, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("GET /metrics/1 HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
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
fn silent_connections_do_not_keep_others_out() {
    let (peer, addr) = start(&[]);
    // As many as are answered at the same time.
    let silent: Vec<_> = (0..4).map(|_| TcpStream::connect(&addr).unwrap()).collect();
    assert!(get(&addr, "/metrics").ends_with("# EOF\n"));
    for mut connection in silent {
        connection.set_read_timeout(Some(LONG)).unwrap();
        assert_eq!(connection.read(&mut [0]).unwrap(), 0);
    }
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
