//! ZooKeeper's QuorumCnxManager, in a Java virtual machine that replaces this process.
//!
//! Nothing is downloaded; an error names what is missing. The Java program is compiled once, into the target directory.

use std::{
    env,
    ffi::OsString,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

const SOURCE: &str = include_str!("../java/CnxEnd.java");
const CLASS: &str = "org.apache.zookeeper.server.quorum.CnxEnd";

/// The jars that the class needs at run time. The Debian package `libzookeeper-java` installs all of them.
const NEEDED: [&str; 7] = [
    "zookeeper",
    "zookeeper-jute",
    "slf4j-api",
    "slf4j-simple",
    "commons-io",
    "metrics-core",
    "netty-handler",
];

/// The jars of ZooKeeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Jars {
    Debian,
    /// Those in ZOOKEEPER_CLASSPATH.
    Given,
}

/// Replaces this process by the Java program. Returns only if that fails.
pub(crate) fn run(jars: Jars, arguments: &[OsString]) -> io::Result<()> {
    let mut java =
        java_command(jars)?.ok_or_else(|| io::Error::other("ZOOKEEPER_CLASSPATH is not set"))?;
    Err(java.args(arguments).exec())
}

/// The version of the jar, without the patch number. `None` if no jars were given.
pub(crate) fn version(jars: Jars) -> io::Result<Option<String>> {
    let Some(mut java) = java_command(jars)? else {
        return Ok(None);
    };
    let output = java.arg("version").stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.trim().split(['.', '-']);
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if output.status.success() => {
            Ok(Some(format!("{major}.{minor}")))
        }
        _ => Err(io::Error::other(format!(
            "the jar does not report its version: {}",
            String::from_utf8_lossy(&output.stderr)
        ))),
    }
}

/// The command of a virtual machine with default settings, except for the log level.
fn java_command(jars: Jars) -> io::Result<Option<Command>> {
    let class_path = match jars {
        Jars::Debian => of_debian()?,
        Jars::Given => match env::var("ZOOKEEPER_CLASSPATH") {
            Ok(given) if !given.is_empty() => given,
            _ => return Ok(None),
        },
    };
    let classes = compile(&class_path)?;
    let mut java = Command::new("java");
    java.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=error")
        .arg("-Dorg.apache.logging.log4j.level=ERROR")
        .args(["-cp", &format!("{}:{class_path}", classes.display()), CLASS]);
    Ok(Some(java))
}

fn of_debian() -> io::Result<String> {
    let jars = NEEDED.map(|name| {
        Path::new("/usr/share/java")
            .join(name)
            .with_extension("jar")
    });
    match jars.iter().find(|jar| !jar.exists()) {
        Some(missing) => Err(io::Error::other(format!(
            "there is no {}: install libzookeeper-java",
            missing.display()
        ))),
        None => Ok(jars.map(|jar| jar.display().to_string()).join(":")),
    }
}

/// Compiles the Java program, unless it was compiled before from the same source and class path.
fn compile(class_path: &str) -> io::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    (SOURCE, class_path).hash(&mut hasher);
    let program = env::current_exe()?;
    // Beside the profiles: `target/java`, for `target/release/compare`.
    let directory = program
        .ancestors()
        .nth(2)
        .ok_or_else(|| io::Error::other("this program has no directory above it"))?
        .join("java");
    let classes = directory.join(format!("{:016x}", hasher.finish()));
    if classes.exists() {
        return Ok(classes);
    }
    // The other end may compile at the same time: each uses a directory of its own, and one of them is kept.
    let fresh = directory.join(format!("of-{}", process::id()));
    fs::create_dir_all(&fresh)?;
    let source = fresh.join("CnxEnd.java");
    fs::write(&source, SOURCE)?;
    let output = Command::new("javac")
        .args(["-nowarn", "--release", "11", "-cp", class_path, "-d"])
        .args([&fresh, &source])
        .output()
        .map_err(|error| {
            io::Error::other(format!(
                "javac does not start: {error}: install default-jdk-headless"
            ))
        })?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!(
            "CnxEnd.java does not compile: {errors}"
        )));
    }
    match fs::rename(&fresh, &classes) {
        Err(_) if classes.exists() => fs::remove_dir_all(&fresh)?,
        done => done?,
    }
    Ok(classes)
}
