//! Finds ZooKeeper's classes, compiles the Java program of the tests, and runs a virtual machine with both.
//!
//! Nothing here installs or downloads anything. What is missing is named in a panic.

use std::{
    env,
    fs::{self, OpenOptions},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::OnceLock,
};

const SOURCE: &str = include_str!("CnxPeer.java");

/// The directory of jars on Debian.
const JARS: &str = "/usr/share/java";

/// What the server needs at run time without the admin server. `libzookeeper-java` depends on all their packages.
const NEEDED: [&str; 14] = [
    "zookeeper",
    "zookeeper-jute",
    "slf4j-api",
    "slf4j-simple",
    "commons-cli",
    "commons-io",
    "metrics-core",
    "snappy-java",
    "netty-buffer",
    "netty-codec",
    "netty-common",
    "netty-handler",
    "netty-resolver",
    "netty-transport",
];

/// The directory for the data, logs and classes of these tests.
pub(crate) fn scratch() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop");
    fs::create_dir_all(&path).expect("the target directory can be written");
    path
}

/// The command of a virtual machine with ZooKeeper and our program. The caller adds the name of a class and its arguments.
pub(crate) fn machine() -> Command {
    static CLASS_PATH: OnceLock<Result<String, String>> = OnceLock::new();
    let class_path = match CLASS_PATH.get_or_init(prepare) {
        Ok(class_path) => class_path,
        Err(why) => panic!(
            "INTEROP WAS NOT RUN: {why}. Run tests/system/interop/setup.sh, or install a JDK and ZooKeeper's jars \
             (Debian: default-jdk-headless libzookeeper-java) or name the jars in ZOOKEEPER_CLASSPATH"
        ),
    };
    let mut java = Command::new("java");
    java
        // A fast start and little memory: several short-lived ones run at once.
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m"])
        // Debian's logger, and then that of other class paths, whose default level is too high.
        .arg("-Dorg.slf4j.simpleLogger.showDateTime=true")
        .arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS")
        .arg("-Dorg.apache.logging.log4j.level=INFO")
        .arg("-Dzookeeper.admin.enableServer=false")
        .args(["-cp", class_path]);
    java
}

/// Compiles our program, and returns the class path.
fn prepare() -> Result<String, String> {
    let jars = match env::var("ZOOKEEPER_CLASSPATH") {
        Ok(given) if !given.is_empty() => given,
        _ => debian_jars()?,
    };
    let classes = compile(&jars)?;
    Ok(format!("{}:{jars}", classes.display()))
}

fn debian_jars() -> Result<String, String> {
    let jars = NEEDED.map(|name| Path::new(JARS).join(name).with_extension("jar"));
    if let Some(missing) = jars.iter().find(|jar| !jar.exists()) {
        return Err(format!("there is no {}", missing.display()));
    }
    Ok(jars.map(|jar| jar.display().to_string()).join(":"))
}

/// Compiles our program, or returns the classes of an earlier run. Their directory is named by a hash of all inputs.
fn compile(jars: &str) -> Result<PathBuf, String> {
    let mut inputs = DefaultHasher::new();
    (SOURCE, jars).hash(&mut inputs);
    let directory = scratch().join(format!("classes-{:016x}", inputs.finish()));
    // Checked even when nothing has to be compiled.
    let version = Command::new("javac").arg("-version").output();
    if !version.is_ok_and(|output| output.status.success()) {
        return Err("there is no javac".into());
    }
    if directory.exists() {
        return Ok(directory);
    }
    // Another run may do the same at this time: each in its own directory, one of which is kept.
    let temporary = scratch().join(format!("classes-of-{}", process::id()));
    fs::create_dir_all(&temporary)
        .map_err(|error| format!("cannot create a directory: {error}"))?;
    let source = temporary.join("CnxPeer.java");
    fs::write(&source, SOURCE).map_err(|error| format!("cannot write the program: {error}"))?;
    let output = Command::new("javac")
        .args(["-nowarn", "--release", "11", "-cp", jars, "-d"])
        .args([&temporary, &source])
        .output()
        .map_err(|error| format!("javac does not start: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the program does not compile: {errors}"));
    }
    match fs::rename(&temporary, &directory) {
        Err(_) if directory.exists() => drop(fs::remove_dir_all(&temporary)),
        Err(error) => return Err(format!("cannot keep the classes: {error}")),
        Ok(()) => {}
    }
    Ok(directory)
}

/// The log file of a process with this name, and its path.
pub(crate) fn log(name: &str) -> (fs::File, PathBuf) {
    let path = scratch().join(format!("{}-{name}.log", process::id()));
    // A server that is started again appends to it.
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .expect("a log file can be opened");
    (file, path)
}
