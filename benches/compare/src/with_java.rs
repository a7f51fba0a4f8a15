//! The real thing: ZooKeeper's QuorumCnxManager in a Java virtual machine that takes the place of this process.
//!
//! Nothing is downloaded; what is missing is named. The Java program is compiled once, into the target directory.

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

/// What the class needs at run time; `libzookeeper-java` depends on the packages of all of them.
const NEEDED: [&str; 7] = [
    "zookeeper",
    "zookeeper-jute",
    "slf4j-api",
    "slf4j-simple",
    "commons-io",
    "metrics-core",
    "netty-handler",
];

/// Whose ZooKeeper it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Jars {
    Debian,
    /// Those in ZOOKEEPER_CLASSPATH.
    Given,
}

/// Becomes the Java program. Returns only if that fails.
pub(crate) fn run(jars: Jars, arguments: &[OsString]) -> io::Result<()> {
    let machine =
        machine(jars)?.ok_or_else(|| io::Error::other("ZOOKEEPER_CLASSPATH is not set"))?;
    let mut java = machine;
    Err(java.args(arguments).exec())
}

/// What the jar says of itself, without the last number. `None` if no jars were given.
pub(crate) fn version(jars: Jars) -> io::Result<Option<String>> {
    let Some(mut java) = machine(jars)? else {
        return Ok(None);
    };
    let output = java.arg("version").stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut numbers = said.trim().split(['.', '-']);
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if output.status.success() => {
            Ok(Some(format!("{major}.{minor}")))
        }
        _ => Err(io::Error::other(format!(
            "it does not say its version: {}",
            String::from_utf8_lossy(&output.stderr)
        ))),
    }
}

/// A virtual machine as it comes, but for the level of the log.
fn machine(jars: Jars) -> io::Result<Option<Command>> {
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

/// Classes are kept by what they are made of.
fn compile(class_path: &str) -> io::Result<PathBuf> {
    let mut made_of = DefaultHasher::new();
    (SOURCE, class_path).hash(&mut made_of);
    let program = env::current_exe()?;
    // Beside the profiles: `target/java`, for `target/release/compare`.
    let kept = program
        .ancestors()
        .nth(2)
        .ok_or_else(|| io::Error::other("this program has no directory above it"))?
        .join("java");
    let classes = kept.join(format!("{:016x}", made_of.finish()));
    if classes.exists() {
        return Ok(classes);
    }
    // The other end may do the same at this time: each in its own directory, and one of them stays.
    let fresh = kept.join(format!("of-{}", process::id()));
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
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!(
            "CnxEnd.java does not compile: {said}"
        )));
    }
    match fs::rename(&fresh, &classes) {
        Err(_) if classes.exists() => fs::remove_dir_all(&fresh)?,
        done => done?,
    }
    Ok(classes)
}
