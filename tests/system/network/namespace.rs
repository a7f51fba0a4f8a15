//! Network namespaces: creates them, runs commands in them, and removes them when their owner is dropped.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use support::signal::{Signal, signal};

/// The prefix of the name of every namespace of these tests. The id of the process that created it follows.
const PREFIX: &str = "qcnx-";

/// A directory for each namespace. `ip netns exec` mounts its files over those in /etc.
const OVERLAYS: &str = "/etc/netns";

/// A number that is unique among the networks of this process.
pub(crate) fn nth_network() -> usize {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// A network namespace: devices, addresses, ports.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new(network: usize, part: &str) -> Self {
        let name = format!("{PREFIX}{}-{network}-{part}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]));
        // From here on it is removed on drop, even after a panic.
        let namespace = Self { name };
        // Without IPv6 no packets are sent but those of the tests.
        namespace.batch(&["link set lo up".into()]);
        run(namespace.command("sysctl").args([
            "-qw",
            "net.ipv6.conf.all.disable_ipv6=1",
            "net.ipv6.conf.default.disable_ipv6=1",
        ]));
        namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs in this namespace.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Executes lines of `ip`. All must succeed.
    #[track_caller]
    pub(crate) fn batch(&self, lines: &[String]) {
        let mut command = Command::new("ip");
        feed(
            command.args(["-n", &self.name, "-batch", "-"]),
            &lines.join("\n"),
        );
    }

    /// The path of the file that is /etc/`name` in this namespace.
    pub(crate) fn overlay(&self, name: &str) -> PathBuf {
        Path::new(OVERLAYS).join(&self.name).join(name)
    }

    /// Writes the file that is /etc/`name` in this namespace. In place, since running programs have mounted the old file.
    pub(crate) fn write_overlay(&self, name: &str, text: &str) {
        let path = self.overlay(name);
        fs::create_dir_all(path.parent().expect("the path has a parent")).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes a namespace. Leftovers do not disturb the next run: it uses other names, and removes them.
fn remove(name: &str) {
    let _ = Command::new("ip").args(["netns", "del", name]).status();
    let _ = fs::remove_dir_all(Path::new(OVERLAYS).join(name));
}

/// The names of namespaces and overlays with this prefix.
pub(crate) fn existing(prefix: &str) -> Vec<String> {
    let mut names: Vec<String> = ["/run/netns", OVERLAYS]
        .iter()
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The prefix of the names of one network of this process.
pub(crate) fn prefix(network: usize) -> String {
    format!("{PREFIX}{}-{network}-", std::process::id())
}

/// Removes namespaces of killed runs, which were not dropped. Returns their names.
pub(crate) fn sweep() -> Vec<String> {
    let mut swept = existing(PREFIX);
    swept.retain(|name| {
        let owner = name[PREFIX.len()..].split('-').next().unwrap_or_default();
        // Without a process id it is not a namespace of these tests.
        owner.parse::<u32>().is_ok() && !Path::new("/proc").join(owner).exists()
    });
    for name in &swept {
        // Ends the peers that still run in it.
        if let Ok(pids) = Command::new("ip").args(["netns", "pids", name]).output() {
            for pid in String::from_utf8_lossy(&pids.stdout).split_whitespace() {
                // Fails if it has ended.
                let _ = pid.parse().map(|pid| signal(pid, Signal::SIGKILL));
            }
        }
        remove(name);
    }
    swept
}

/// Removes the directory of overlays, if it is empty.
pub(crate) fn tidy() {
    let _ = fs::remove_dir(OVERLAYS);
}

/// Runs a command that must succeed.
#[track_caller]
pub(crate) fn run(command: &mut Command) {
    feed(command, "");
}

/// The same with this text on its standard input.
#[track_caller]
pub(crate) fn feed(command: &mut Command, input: &str) {
    if let Err(why) = try_feed(command, input) {
        panic!("{why}");
    }
}

/// The same, but returns an error.
pub(crate) fn try_feed(command: &mut Command, input: &str) -> Result<(), String> {
    let spawned = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let mut stdin = child.stdin.take().expect("the stream is piped");
    // Fails when the command ends without reading it. Its error is returned below.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child
        .wait_with_output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}", errors.trim()))
}
