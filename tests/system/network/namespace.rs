//! Network namespaces: made, entered by commands, and gone with their processes and files when their owner is dropped.
//!
//! Nothing here knows what is connected to what.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Begins the name of every namespace of these tests; the id of the process that made it follows.
const PREFIX: &str = "qcnx-";

/// What `ip netns exec` lays over the files in /etc, a folder for each namespace.
const OVERLAYS: &str = "/etc/netns";

/// A number that no other network of this process has.
pub(crate) fn nth_network() -> usize {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// A machine's own network: devices, addresses, ports.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new(network: usize, part: &str) -> Self {
        let name = format!("{PREFIX}{}-{network}-{part}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]));
        // From here on it is removed, whatever happens.
        let namespace = Self { name };
        // Without the chatter of IPv6 a device is silent until somebody has something to say.
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

    /// A program that runs in there.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Lines of `ip`, all or none of which are of use.
    #[track_caller]
    pub(crate) fn batch(&self, lines: &[String]) {
        let mut command = Command::new("ip");
        feed(
            command.args(["-n", &self.name, "-batch", "-"]),
            &lines.join("\n"),
        );
    }

    /// Where the file is that programs in there see as /etc/`name`.
    pub(crate) fn overlay(&self, name: &str) -> PathBuf {
        Path::new(OVERLAYS).join(&self.name).join(name)
    }

    /// Writes the file that programs in there see as /etc/`name`. In its place, since those that run hold the old one.
    pub(crate) fn write_overlay(&self, name: &str, text: &str) {
        let path = self.overlay(name);
        fs::create_dir_all(path.parent().expect("it has a folder")).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// What is left over is of no account to the next run, whose names differ, and which removes it.
fn remove(name: &str) {
    let _ = Command::new("ip").args(["netns", "del", name]).status();
    let _ = fs::remove_dir_all(Path::new(OVERLAYS).join(name));
}

/// The namespaces and the overlays that begin like this.
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

/// What begins the names of this process' namespaces of one network.
pub(crate) fn prefix(network: usize) -> String {
    format!("{PREFIX}{}-{network}-", std::process::id())
}

/// Removes what a run has left that was killed: nobody drops anything then. Returns the names.
pub(crate) fn sweep() -> Vec<String> {
    let mut swept = existing(PREFIX);
    swept.retain(|name| {
        let owner = name[PREFIX.len()..].split('-').next().unwrap_or_default();
        // A number, or it is somebody else's.
        owner.parse::<u32>().is_ok() && !Path::new("/proc").join(owner).exists()
    });
    for name in &swept {
        // The peers in there, which wait for commands that nobody gives.
        if let Ok(pids) = Command::new("ip").args(["netns", "pids", name]).output() {
            for pid in String::from_utf8_lossy(&pids.stdout).split_whitespace() {
                let _ = Command::new("kill").args(["-KILL", pid]).status();
            }
        }
        remove(name);
    }
    swept
}

/// Removes the folder of overlays, if it is empty.
pub(crate) fn tidy() {
    let _ = fs::remove_dir(OVERLAYS);
}

/// Runs a command that must succeed.
#[track_caller]
pub(crate) fn run(command: &mut Command) {
    feed(command, "");
}

/// The same with this on its standard input.
#[track_caller]
pub(crate) fn feed(command: &mut Command, input: &str) {
    if let Err(why) = try_feed(command, input) {
        panic!("{why}");
    }
}

/// The same, or why it failed.
pub(crate) fn try_feed(command: &mut Command, input: &str) -> Result<(), String> {
    let spawned = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let mut stdin = child.stdin.take().expect("it is a pipe");
    // Who ends without reading it says why on its way.
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
