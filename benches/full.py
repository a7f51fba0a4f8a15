#!/usr/bin/env python3
"""The full run of the benchmark `frames`, and the tables and plots that are made from it.

    benches/full.py measure [PART...]   measures all parts, or these, into target/full
    benches/full.py write               writes the tables of README.md and docs/benchmarks.md, and copies the plots

A part takes about ten minutes. It has all rows of its workloads, so that what is compared is measured in the same rounds. Measure on a
machine that does nothing else, with everything built: `cargo build --release --manifest-path benches/compare/Cargo.toml`.

In a template below, the label of a row ends with [WORKLOAD SIZE COUNT METRIC]; COUNT may be several, with commas. {NAME} is the figure
of a participant, {NAME METRIC} another metric of it, and {NAME of OTHER} the ratio of the medians of two.
"""

import json, re, shutil, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "target" / "full"
ROUNDS = 7

PARTS = {
    "latency": "--workload latency",
    "slots": "--workload latest --workload lossless --workload contended --workload mix",
    "stream-1": "--workload stream --count 1",
    "stream-16": "--workload stream --count 16",
    "peers": "--workload many --workload slow-peer --workload fan-out --workload mesh",
    "delayed": "--workload delayed",
}

PLOTS = ["latency-64.svg", "latest.svg", "stream-1.svg", "stream-16.svg", "stream-states.svg"]

DOCS = """
| | bare sockets | quorum-cnx | | tokio | tokio by hand | libzmq | ZooKeeper 3.8 |
|---|---|---|---|---|---|---|---|
| round trip of 64 B, blocking, p50 [latency 64 0 rtt_p50_us] | {raw/block} | handler {handler/block} | inbox {inbox/block} | {tokio} | {tokio-by-hand} | {libzmq} | {zookeeper-3.8} |
| the same, p99 [latency 64 0 rtt_p99_us] | {raw/block} | handler {handler/block} | inbox {inbox/block} | {tokio} | {tokio-by-hand} | {libzmq} | {zookeeper-3.8} |
| the same, spinning, p50 [latency 64 0 rtt_p50_us] | {raw/spin} | handler {handler/spin}, loop {loop/spin} | inbox {inbox/spin} | | | | |
| the same, spinning, p99 [latency 64 0 rtt_p99_us] | {raw/spin} | handler {handler/spin}, loop {loop/spin} | inbox {inbox/spin} | | | | |
| newest of a sender that never pauses, 64 B [latest 64 0 delivered_per_s] | {raw/write} | handler {handler/block} | inbox {inbox/block} | {tokio} | | {libzmq}, conflating {libzmq-conflate} | {zookeeper-3.8} |
| the same, 1 KiB [latest 1024 0 delivered_per_s] | {raw/write} | handler {handler/block} | inbox {inbox/block} | {tokio} | | {libzmq}, conflating {libzmq-conflate} | {zookeeper-3.8} |
| one slot, nothing lost, 64 B [lossless 64 0 delivered_per_s] | {raw/write} | handler {handler/block} | inbox {inbox/block} | {tokio} | | {libzmq} | {zookeeper-3.8} |
| stream of 64 B, one a call [stream 64 1 delivered_per_s] | {raw/chunks} | sender {feed/block}, in place {feed-with/block}, loop {loop/block}, handler {handler/block} | inbox {inbox/block} | {tokio} | {tokio-by-hand} | {libzmq} | |
| stream of 64 B, 16 a call [stream 64 16 delivered_per_s] | {raw/chunks} | loop {loop/block}, handler {handler/block} | inbox {inbox/block} | {tokio} | {tokio-by-hand} | {libzmq} | |
| stream of 1 KiB [stream 1024 1 delivered_per_s] | {raw/chunks} | sender {feed/block}, in place {feed-with/block}, handler {handler/block} | inbox {inbox/block} | {tokio} | {tokio-by-hand} | {libzmq} | |
| stream of 16 KiB [stream 16384 1 delivered_per_s] | {raw/chunks} | loop {loop/block}, handler {handler/block} | inbox {inbox/block} | {tokio} | {tokio-by-hand} | {libzmq} | |
| stream of 64 KiB [stream 65536 1 delivered_per_s] | {raw/chunks} | loop {loop/block}, handler {handler/block} | inbox {inbox/block} | {tokio} | {tokio-by-hand} | {libzmq} | |
| stream of 512 KiB [stream 524288 1 delivered_per_s] | {raw/chunks} | loop {loop/block}, handler {handler/block} | inbox {inbox/block} | {tokio} | {tokio-by-hand} | {libzmq} | |
| eight threads to 1 / 8 peers, a slot for each peer [contended 64 1,8 delivered_per_s] | {raw/write} | handler {handler/block} | | | | | |
| the same through queues; in brackets the ratio to one thread [contended 64 1,8 delivered_per_s] | | handler {handler/queue} | | | | | |
| one value to 100 / 1000 peers, a peer [fan-out 64 100,1000 per_peer_p50_us] | {raw/write} | handler {handler/block} | | | | | |
| full mesh of 3 / 9 servers in one process [mesh 64 3,9 full_ms] | {raw/connect} | | inbox {inbox/block} | | | | {zookeeper-3.8} |
| full mesh of 33 / 65 servers in one process [mesh 64 33,65 full_ms] | {raw/connect} | | inbox {inbox/block} | | | | |
| replication, 100 / 1000 / 10 000 entries in flight [mix 200 100,1000,10000 acknowledged_per_s] | | handler {handler/block}, loop {loop/block} | inbox {inbox/block} | {tokio} | {tokio-by-hand} | | |
| stream of 64 KiB, 1 / 20 ms each way [delayed 65536 1,20 delivered_per_s] | {raw/block} | handler {handler/block}, loop {loop/block} | inbox {inbox/block} | | | | |
"""

README = """
| | bare sockets | quorum-cnx | tokio, by hand | ZooKeeper 3.8 |
|---|---|---|---|---|
| round trip of 64 B, blocking, p50 [latency 64 0 rtt_p50_us] | {raw/block} | handler {handler/block}, inbox {inbox/block} | {tokio}, {tokio-by-hand} | {zookeeper-3.8} |
| the same, spinning [latency 64 0 rtt_p50_us] | {raw/spin} | handler {handler/spin}, inbox {inbox/spin} | | |
| newest of a sender that never pauses, 64 B [latest 64 0 delivered_per_s] | {raw/write} | handler {handler/block}, inbox {inbox/block} | {tokio} | {zookeeper-3.8} |
| one slot, no frame lost, 64 B [lossless 64 0 delivered_per_s] | {raw/write} | handler {handler/block}, inbox {inbox/block} | {tokio} | {zookeeper-3.8} |
| stream of 64 B, one a call [stream 64 1 delivered_per_s] | {raw/chunks}, encoded before | `Sender` {feed/block}, in place {feed-with/block}, inbox {inbox/block} | {tokio}, {tokio-by-hand} | |
| stream of 1 KiB, one a call [stream 1024 1 delivered_per_s] | {raw/chunks}, encoded before | handler {handler/block}, inbox {inbox/block} | {tokio}, {tokio-by-hand} | |
| stream of 64 KiB, one a call [stream 65536 1 delivered_per_s] | {raw/chunks}, encoded before | handler {handler/block}, inbox {inbox/block} | {tokio}, {tokio-by-hand} | |
| stream of 512 KiB, one a call [stream 524288 1 delivered_per_s] | {raw/chunks}, encoded before | handler {handler/block}, inbox {inbox/block} | {tokio}, {tokio-by-hand} | |
| one value to 100 peers, per peer [fan-out 64 100 per_peer_p50_us] | {raw/write} | handler {handler/block} | | |
| full mesh of 9 servers in one process [mesh 64 9 full_ms] | {raw/connect} | {inbox/block} | | {zookeeper-3.8} |
"""

TASKS = """
| | p50 | p99 | |
|---|---|---|---|
| bare sockets [latency 64 0 rtt_p50_us] | {raw/block} | {raw/block rtt_p99_us} | |
| a bare socket of tokio [latency 64 0 rtt_p50_us] | {tokio-by-hand} | {tokio-by-hand rtt_p99_us} | |
| `EventLoop` in an `AsyncFd` [latency 64 0 rtt_p50_us] | {async-fd} | {async-fd rtt_p99_us} | {async-fd of tokio-by-hand} of the bare socket of tokio |
| inbox: a thread that calls `recv` [latency 64 0 rtt_p50_us] | {inbox/block} | {inbox/block rtt_p99_us} | |
| inbox: a task that calls `recv_async` [latency 64 0 rtt_p50_us] | {recv-async} | {recv-async rtt_p99_us} | {recv-async of recv-channel} of tokio's channel |
| tokio's `mpsc`, into which the loop's thread sends [latency 64 0 rtt_p50_us] | {recv-channel} | {recv-channel rtt_p99_us} | |
"""

TABLES = [("docs/benchmarks.md", "all", DOCS), ("docs/benchmarks.md", "tasks", TASKS), ("README.md", "readme", README)]


def measure(names):
    OUT.mkdir(parents=True, exist_ok=True)
    for name in names or PARTS:
        command = f"cargo bench --bench frames -- --rounds {ROUNDS} --within 1200 --no-strace {PARTS[name]}".split()
        subprocess.run([*command, "--json", OUT / f"{name}.json", "--plot", OUT], cwd=ROOT, check=True)


def read():
    """The record that all parts share, and all rows by workload, size, count, participant and metric."""
    records, rows = {}, {}
    for path in (OUT / f"{name}.json" for name in PARTS):
        if not path.exists():
            sys.exit(f"{path} is not there: benches/full.py measure {path.stem}")
        first, *others = json.loads(path.read_text())
        # Where the ends run, and the hour, differ from part to part.
        same = {key: value for key, value in first["record"].items() if key not in ("date", "placement")}
        records.setdefault(json.dumps(same), []).append(path.name)
        for row in others:
            rows[row["workload"], row["size"], row["count"], row["variant"], row["metric"]] = row
        record = first["record"]
    if len(records) > 1:
        sys.exit(f"measured on different machines, or with different options: {list(records.values())}")
    return record, rows


def decimals(value):
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 20 else f"{value:.0f}"


def quantities(values, metric):
    """`4.1 / 9.0 us`: all in the unit of the largest."""
    if metric.endswith("_per_s"):
        unit, name = next((unit, name) for unit, name in ((1e6, "M/s"), (1e3, "k/s"), (1, "/s")) if max(values) >= unit)
    else:
        unit, name = 1, metric.rsplit("_")[-1]
    return " / ".join(decimals(value / unit) for value in values) + " " + name


def table(template, rows):
    missing = set()

    def line(text):
        found = re.search(r" \[(\S+) (\d+) (\S+) (\w+)\]", text)
        if not found:
            return text
        workload, size, counts, metric = found.groups()

        def figures(name, metric):
            keys = [(workload, int(size), int(count), name, metric) for count in counts.split(",")]
            missing.update(key for key in keys if key not in rows)
            return [rows.get(key, {"value": 1, "ratio": None}) for key in keys]

        def cell(match):
            name, *more = match[1].split()
            if more[:1] == ["of"]:
                return f"{figures(name, metric)[0]['value'] / figures(more[1], metric)[0]['value']:.2f}"
            chosen = more[0] if more else metric
            found = figures(name, chosen)
            text = quantities([row["value"] for row in found], chosen)
            # Of the library only: the others stand beside the bare sockets.
            is_ours = "/" in name and not name.startswith("raw/")
            ratios = [f"{row['ratio']:.2f}" for row in found if is_ours and row["ratio"]]
            return f"{text} ({' / '.join(ratios)})" if ratios else text

        return re.sub(r"\{([^}]+)\}", cell, text.replace(found[0], ""))

    lines = [line(text) for text in template.strip().splitlines()]
    if missing:
        sys.exit("not measured:\n" + "\n".join(map(str, sorted(missing))))
    return "\n".join(lines)


def write():
    record, rows = read()
    machine = (
        f"Medians of {record['rounds']} rounds ({record['processor']}, {record['kernel'].split('-')[0]}, loopback, "
        f"{record['congestion_control']}, {record['date'][:10]}); in brackets the ratio to bare sockets in the same rounds."
    )
    for path, name, template in TABLES:
        begin, end = f"<!-- {name}: by benches/full.py -->", f"<!-- end of {name} -->"
        text = (ROOT / path).read_text()
        before, found, rest = text.partition(begin)
        _, has_end, after = rest.partition(end)
        if not (found and has_end):
            sys.exit(f"{path}: no {begin} ... {end}")
        (ROOT / path).write_text(f"{before}{begin}\n{machine}\n\n{table(template, rows)}\n{end}{after}")
    for plot in PLOTS:
        shutil.copy(OUT / plot, ROOT / "docs")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["measure", *names] if set(names) <= set(PARTS):
            measure(names)
        case ["write"]:
            write()
        case _:
            sys.exit(f"{__doc__}\nParts: {', '.join(PARTS)}")
