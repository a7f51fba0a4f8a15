//! The Java side of the house: where ZooKeeper's classes are, and a virtual machine that runs them.
//!
//! Nothing here is installed or downloaded; what is missing is named, loudly.

use std::{
    env,
    fs::{self, OpenOptions},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::OnceLock,
};

const SOURCE: &str = include_str!("CnxPeer.java");

/// Where Debian keeps jars.
const JARS: &str = "/usr/share/java";

/// What the server needs at run time without the admin server; `libzookeeper-java` depends on the packages of all of them.
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

/// Where everything of this target that outlives a call goes: data, logs, classes.
pub(crate) fn scratch() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop");
    fs::create_dir_all(&path).expect("the target directory can be written");
    path
}

/// A virtual machine with ZooKeeper and our program in it, to which the name of a class and its arguments are to be added.
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
        // Start soon and stay small: several run at once, and none lives long.
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m"])
        // Debian's logger; then that of other class paths, which says less by default than is looked for.
        .arg("-Dorg.slf4j.simpleLogger.showDateTime=true")
        .arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS")
        .arg("-Dorg.apache.logging.log4j.level=INFO")
        .arg("-Dzookeeper.admin.enableServer=false")
        .args(["-cp", class_path]);
    java
}

/// Compiles our program, and gives the class path with it.
fn prepare() -> Result<String, String> {
    let jars = match env::var("ZOOKEEPER_CLASSPATH") {
        Ok(given) if !given.is_empty() => given,
        _ => of_debian()?,
    };
    let classes = compile(&jars)?;
    Ok(format!("{}:{jars}", classes.display()))
}

fn of_debian() -> Result<String, String> {
    let jars = NEEDED.map(|name| Path::new(JARS).join(name).with_extension("jar"));
    if let Some(missing) = jars.iter().find(|jar| !jar.exists()) {
        return Err(format!("there is no {}", missing.display()));
    }
    Ok(jars.map(|jar| jar.display().to_string()).join(":"))
}

/// Classes are kept by what they are made of, so that only the first run pays the compiler.
fn compile(jars: &str) -> Result<PathBuf, String> {
    let mut made_of = DefaultHasher::new();
    (SOURCE, jars).hash(&mut made_of);
    let kept = scratch().join(format!("classes-{:016x}", made_of.finish()));
    // Said by the compiler itself, also when nothing is left for it to do.
    let version = Command::new("javac").arg("-version").output();
    if !version.is_ok_and(|output| output.status.success()) {
        return Err("there is no javac".into());
    }
    if kept.exists() {
        return Ok(kept);
    }
    // Another run of this target may do the same at this time: each in its own directory, and one of them stays.
    let fresh = scratch().join(format!("classes-of-{}", process::id()));
    fs::create_dir_all(&fresh).map_err(|error| format!("cannot make a directory: {error}"))?;
    let source = fresh.join("CnxPeer.java");
    fs::write(&source, SOURCE).map_err(|error| format!("cannot write the program: {error}"))?;
    let output = Command::new("javac")
        .args(["-nowarn", "--release", "11", "-cp", jars, "-d"])
        .args([&fresh, &source])
        .output()
        .map_err(|error| format!("javac does not start: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the program does not compile: {said}"));
    }
    match fs::rename(&fresh, &kept) {
        Err(_) if kept.exists() => drop(fs::remove_dir_all(&fresh)),
        Err(error) => return Err(format!("cannot keep the classes: {error}")),
        Ok(()) => {}
    }
    Ok(kept)
}

/// A file for what a process of this name says, and its place.
pub(crate) fn log(name: &str) -> (fs::File, PathBuf) {
    let path = scratch().join(format!("{}-{name}.log", process::id()));
    // Appended to: a server that is started again goes on where it was.
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .expect("a log file can be opened");
    (file, path)
}
