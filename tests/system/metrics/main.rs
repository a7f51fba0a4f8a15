//! Tests the metrics and the alert rules with Prometheus, its checker `promtool`, and the parser of its Python client.
//!
//! Nothing here is skipped: without Debian's packages `prometheus` and `python3-prometheus-client` every test fails.

use std::{
    fs,
    io::Write as _,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use support::{
    ReservedAddress, eventually,
    http::{get, request},
    program::Peer,
    target_dir,
};

/// Debian's Python, since another one may come first in the path.
const PYTHON: &str = "/usr/bin/python3";

/// Reads metrics from standard input, and prints the type of each family and the number of samples.
const PARSE: &str = "
import json, sys
from prometheus_client.openmetrics.parser import text_fd_to_metric_families
families = list(text_fd_to_metric_families(sys.stdin))
print(json.dumps([len(families), sum(len(family.samples) for family in families)]))
";

fn folder(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.expect("the repository").join(name)
}

/// Runs a program with this input. It must succeed. Returns its standard output.
#[track_caller]
fn run(command: &mut Command, input: &str) -> String {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("NOT RUN: {shown}: {error}; see tests/run.sh setup"));
    // Dropped at the end of the statement, which ends the input.
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let [stdout, errors] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{shown}: {stdout}{errors}");
    stdout
}

/// Two linked peers, with the addresses at which they serve metrics.
fn pair() -> ([Peer; 2], [String; 2]) {
    let addresses = [(); 2].map(|()| ReservedAddress::new());
    let servers = [
        (1, &addresses[0].address[..]),
        (2, &addresses[1].address[..]),
    ];
    let peers = [1, 2].map(|sid| Peer::start(sid, &servers, &["--metrics", "127.0.0.1:0"]));
    let metrics = peers.each_ref().map(|peer| {
        let addr = peer.next("metrics")["addr"].clone();
        peer.next("up");
        addr.as_str().unwrap().to_owned()
    });
    (peers, metrics)
}

/// The metrics of a peer that has sent, received, and refused.
fn metrics() -> String {
    let ([mut one, two], [addr, _]) = pair();
    one.tell("send 2 hello\nsend 1 hello");
    two.next("frame");
    two.quit();
    one.next("down");
    let text = get(&addr, "/metrics");
    one.quit();
    text
}

#[test]
fn alert_rules_are_valid_and_fire() {
    let rules = folder("docs/operations/alerts.yml");
    let checked = run(
        Command::new("promtool").args(["check", "rules"]).arg(rules),
        "",
    );
    assert!(checked.contains("SUCCESS: 6 rules found"), "{checked}");
    let tests = folder("tests/system/metrics");
    let test = ["test", "rules", "alerts.yml"];
    run(Command::new("promtool").current_dir(tests).args(test), "");
}

/// What OpenMetrics has and the older text format of Prometheus does not, which `promtool` reads: units, the type `info`, and names of
/// families without the suffix of their samples.
fn in_older_format(text: &str) -> String {
    let mut older = String::new();
    let mut suffix = "";
    for line in text.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["#", "EOF"] | ["#", "UNIT", ..] => {}
            ["#", "TYPE", name, kind] => {
                let (with, kind) = match kind {
                    "counter" => ("_total", kind),
                    "info" => ("_info", "gauge"),
                    kind => ("", kind),
                };
                suffix = with;
                older += &format!("# TYPE {name}{suffix} {kind}\n");
            }
            ["#", "HELP", name, ref help @ ..] => {
                older += &format!("# HELP {name}{suffix} {}\n", help.join(" "));
            }
            _ => older += &format!("{line}\n"),
        }
    }
    older
}

#[test]
fn names_and_texts_follow_the_rules_of_prometheus() {
    let check = ["check", "metrics"];
    run(
        Command::new("promtool").args(check),
        &in_older_format(&metrics()),
    );
}

#[test]
fn the_parser_of_the_python_client_reads_every_sample() {
    let text = metrics();
    let parsed = run(Command::new(PYTHON).args(["-c", PARSE]), &text);
    let parsed: Value = serde_json::from_str(&parsed).unwrap();
    let count = |is_counted: fn(&str) -> bool| text.lines().filter(|line| is_counted(line)).count();
    let families = count(|line| line.starts_with("# TYPE "));
    let samples = count(|line| !line.starts_with('#'));
    assert_eq!(parsed, json!([families, samples]));
    assert!(families > 50 && samples > 100, "{parsed}");
}

/// A running Prometheus, which ends with the test.
struct Prometheus {
    child: Child,
    address: ReservedAddress,
    directory: PathBuf,
}

impl Prometheus {
    fn start(targets: &[String]) -> Self {
        let address = ReservedAddress::new();
        let directory = target_dir()
            .join("tmp")
            .join(format!("prometheus-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        // JSON is YAML.
        let config = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": [folder("docs/operations/alerts.yml")],
            "scrape_configs": [{ "job_name": "test", "static_configs": [{ "targets": targets }] }],
        });
        let file = directory.join("prometheus.yml");
        fs::write(&file, config.to_string()).unwrap();
        let log = fs::File::create(directory.join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("data").display()
            ))
            .arg(format!("--web.listen-address={}", address.address))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("NOT RUN: prometheus: {error}; see tests/run.sh setup"));
        let mut prometheus = Self {
            child,
            address,
            directory,
        };
        eventually("Prometheus is ready", || {
            let ended = prometheus.child.try_wait().unwrap();
            assert!(ended.is_none(), "{}", prometheus.log());
            let address = &prometheus.address.address;
            let ask = "GET /-/ready HTTP/1.0\r\n\r\n";
            TcpStream::connect(address).is_ok() && request(address, ask).0.contains(" 200 ")
        });
        prometheus
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap()
    }

    #[track_caller]
    fn api(&self, path: &str) -> Value {
        let body = get(&self.address.address, &format!("/api/v1/{path}"));
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Fails when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A directory that is left behind does no harm.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn prometheus_scrapes_a_peer_and_evaluates_the_rules() {
    let ([one, two], metrics) = pair();
    let prometheus = Prometheus::start(&metrics);
    // By the server that reports: the peer, and whether it was dialed.
    let mut links = Vec::new();
    eventually("both peers are scraped", || {
        let found = prometheus.api("query?query=quorum_cnx_peer_link_info");
        let found = found["result"].as_array().unwrap();
        let labels = ["instance", "sid", "dialed"];
        let link = |found: &Value| labels.map(|label| found["metric"][label].clone());
        links = found.iter().map(link).collect();
        links.len() == 2
    });
    for (addr, sid, dialed) in [(&metrics[0], "2", "false"), (&metrics[1], "1", "true")] {
        let link = [json!(addr), json!(sid), json!(dialed)];
        assert!(links.contains(&link), "{links:?}");
    }
    // Units are known in OpenMetrics only.
    let described = prometheus.api("targets/metadata?metric=quorum_cnx_turn_seconds");
    let of_one = &described[0];
    assert_eq!(
        (&of_one["type"], &of_one["unit"]),
        (&json!("histogram"), &json!("seconds"))
    );

    let rules = || {
        let groups = prometheus.api("rules");
        groups["groups"][0]["rules"].as_array().unwrap().clone()
    };
    let is_firing = |name: &str| {
        let is_it = |rule: &Value| rule["name"] == name && rule["state"] != "inactive";
        rules().iter().any(is_it)
    };
    eventually("each rule is evaluated", || {
        let rules = rules();
        rules.len() == 6 && rules.iter().all(|rule| rule["health"] == "ok")
    });
    assert!(!is_firing("QuorumCnxPeerNotLinked"));
    two.quit();
    one.next("down");
    eventually("the alert waits for its minute", || {
        is_firing("QuorumCnxPeerNotLinked")
    });
    one.quit();
}
