//! Checks the rules of the source code that a program can check.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Every file under `dir`, its path from the root, and its text.
fn files(dir: &str, extension: &str) -> Vec<(String, String)> {
    let root = root();
    let mut dirs = vec![root.join(dir)];
    let mut files = Vec::new();
    while let Some(dir) = dirs.pop() {
        let mut entries: Vec<PathBuf> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                // Build output of a package of its own.
                if !path.ends_with("target") {
                    dirs.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!files.is_empty(), "nothing to check in {dir}");
    files
}

/// The files of the library without its unit tests.
fn library() -> impl Iterator<Item = (String, String)> {
    files("src", "rs")
        .into_iter()
        .filter(|(path, _)| !path.ends_with("tests.rs") && !path.contains("/tests/"))
}

/// The lines of a file with their numbers, up to its unit tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..)
        .zip(text.lines())
        .take_while(|(_, line)| !line.starts_with("#[cfg(all(test"))
}

/// The lines of code among these: without blank lines and comments.
fn code_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> usize {
    let is_code = |line: &str| !line.is_empty() && !line.starts_with("//");
    lines
        .into_iter()
        .filter(|line| is_code(line.trim()))
        .count()
}

/// Whether a path that begins with this word is in the line: `log::` is not in `backlog::`.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Fails where a line of the library, other than a comment, names one of these words, unless it is allowed there.
#[track_caller]
fn forbid(words: &[&str], rule: &str, is_allowed: impl Fn(&str, &str) -> bool) {
    for (path, text) in library() {
        for (number, line) in code(&text) {
            let is_comment = line.trim_start().starts_with("//");
            for word in words {
                let is_fine = is_comment || !names(line, word) || is_allowed(&path, line);
                assert!(is_fine, "{path}:{number}: `{word}` {rule}");
            }
        }
    }
}

#[test]
fn protocol_rules_use_no_clock_thread_socket_or_log() {
    let words = [
        "Instant::now",
        "SystemTime",
        "std::thread",
        "TcpStream",
        "mio::",
        "log::",
        "crate::net",
    ];
    forbid(&words, "in the protocol rules", |path, _| {
        !path.starts_with("src/proto/")
    });
}

#[test]
fn only_event_loop_and_net_use_mio_socket2_and_log() {
    let rule = "outside src/event_loop and src/net";
    forbid(&["mio::", "socket2::", "log::"], rule, |path, line| {
        // The line that says that the loop has ended is written on the loop's thread.
        let is_last_line = path == "src/manager/mod.rs" && line.contains("log::error!");
        is_last_line || path.starts_with("src/event_loop/") || path.starts_with("src/net/")
    });
}

#[test]
fn only_platform_rs_names_operating_systems() {
    let words = ["target_os", "target_vendor", "target_arch"];
    forbid(&words, "outside src/net/platform.rs", |path, _| {
        path == "src/net/platform.rs"
    });
}

/// The modules of the library, by path, with what each imports: paths from the root of the crate.
fn imports() -> BTreeMap<Vec<String>, Vec<Vec<String>>> {
    let mut modules = BTreeMap::new();
    for (path, text) in library() {
        let name = path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut module: Vec<String> = name.split('/').map(str::to_owned).collect();
        if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
            module.pop();
        }
        // Without comments and line ends: a statement may span lines.
        let code: String = code(&text)
            .map(|(_, line)| line.split("//").next().unwrap_or_default().trim())
            .filter(|line| !line.starts_with("#["))
            .collect::<Vec<_>>()
            .join(" ");
        let mut found = Vec::new();
        for statement in code.split(';') {
            let Some((before, tree)) = statement.rsplit_once("use ") else {
                continue;
            };
            if before.is_empty() || before.ends_with([' ', ')']) {
                expand("", tree, &mut found);
            }
        }
        // Paths in the text. A visibility (`pub(in path)`) is not an import.
        let text = code.replace("pub(in ", "pub(");
        for path in text.split(|c: char| !(c.is_alphanumeric() || "_:".contains(c))) {
            if path.starts_with("crate::")
                && !path.ends_with("::")
                && !text.contains(&format!("pub({path})"))
            {
                found.push(path.to_owned());
            }
        }
        modules.insert(module, found);
    }
    let names: BTreeSet<Vec<String>> = modules.keys().cloned().collect();
    modules
        .into_iter()
        .map(|(module, found)| {
            let paths = found
                .iter()
                .filter_map(|path| absolute(&module, path, &names));
            let paths = paths.collect();
            (module, paths)
        })
        .collect()
}

/// Expands `a::{b, c::d}` to `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, into: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((path, list)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        into.push(format!("{prefix}{path}"));
        return;
    };
    let prefix = format!("{prefix}{path}");
    let list = list.trim_end();
    let list = format!("{},", list.strip_suffix('}').unwrap_or(list));
    let (mut depth, mut start) = (0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !list[start..at].trim().is_empty() {
                    expand(&prefix, &list[start..at], into);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The path from the root of the crate, or `None` for a path of another crate.
fn absolute(module: &[String], path: &str, names: &BTreeSet<Vec<String>>) -> Option<Vec<String>> {
    let mut parts: Vec<String> = path
        .split("::")
        .map(|part| part.trim().to_owned())
        .collect();
    let mut base = match parts[0].as_str() {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len() - 1].to_vec(),
        first => {
            let child = [module, &[first.to_owned()]].concat();
            return names.contains(&child).then(|| [module, &parts].concat());
        }
    };
    parts.remove(0);
    while parts.first().is_some_and(|part| part == "super") {
        parts.remove(0);
        base.pop();
    }
    base.extend(parts);
    Some(base)
}

/// The module that defines an imported name. A module that only re-exports the name does not count.
fn target(path: &[String], modules: &BTreeMap<Vec<String>, Vec<Vec<String>>>) -> Vec<String> {
    let module = (0..=path.len())
        .rev()
        .map(|len| &path[..len])
        .find(|module| modules.contains_key(*module))
        .unwrap_or_default();
    let Some(name) = path.get(module.len()) else {
        return module.to_vec();
    };
    let reexport = modules[module].iter().find(|import| {
        import.len() > module.len() + 1 && import.starts_with(module) && import.last() == Some(name)
    });
    match reexport {
        Some(import) => target(import, modules),
        None => module.to_vec(),
    }
}

#[test]
fn module_imports_have_no_cycle() {
    let modules = imports();
    assert!(modules.len() > 40, "{} modules", modules.len());
    let mut edges: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = modules
        .iter()
        .map(|(module, imports)| {
            let targets = imports.iter().map(|path| target(path, &modules));
            (
                module.clone(),
                targets.filter(|target| target != module).collect(),
            )
        })
        .collect();
    assert!(edges.values().map(BTreeSet::len).sum::<usize>() > 100);
    // A module that imports none of the remaining modules is not part of a cycle.
    loop {
        let left: BTreeSet<Vec<String>> = edges.keys().cloned().collect();
        let before = edges.len();
        edges.retain(|_, targets| targets.iter().any(|target| left.contains(target)));
        if edges.len() == before {
            break;
        }
    }
    let cycle: Vec<String> = edges
        .iter()
        .map(|(module, targets)| {
            let targets = targets.iter().filter(|target| edges.contains_key(*target));
            let targets: Vec<String> = targets.map(|target| target.join("::")).collect();
            format!("{} imports {}", module.join("::"), targets.join(", "))
        })
        .collect();
    assert!(
        cycle.is_empty(),
        "in or above a cycle:\n{}",
        cycle.join("\n")
    );
}

/// The target triples among these words.
fn triples<'a>(words: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    words
        .filter(|word| {
            ["x86_64-", "aarch64-"]
                .iter()
                .any(|arch| word.starts_with(arch))
        })
        .collect()
}

#[test]
fn documents_name_exactly_the_checked_targets() {
    let read = |path| fs::read_to_string(root().join(path)).unwrap();
    let script = read("tests/targets.sh");
    let (_, list) = script.split_once("\ntargets=(").unwrap();
    let checked = triples(list.split_once(')').unwrap().0.split_whitespace());
    assert!(checked.len() >= 7, "{checked:?}");
    for (page, quote) in [("deny.toml", '"'), ("src/lib.rs", '`'), ("README.md", '`')] {
        let text = read(page);
        assert_eq!(triples(text.split(quote)), checked, "in {page}");
    }
}

/// A function is found by its first line, and ends at the next line that is indented as much and ends with `}` or `;`: so does
/// what rustfmt has formatted.
#[test]
fn files_and_functions_are_short() {
    const FILE_LINES_MAX: usize = 400;
    const FUNCTION_LINES_MAX: usize = 70;
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut functions = 0;
    for (path, text) in library() {
        let is_inline_test = |line: &&str| line.ends_with("tests {") && line.starts_with("mod ");
        let lines: Vec<&str> = text
            .lines()
            .take_while(|line| !is_inline_test(line))
            .collect();
        let len = code_lines(lines.iter().copied());
        assert!(len <= FILE_LINES_MAX, "{path}: {len} lines of code");
        for (start, line) in lines.iter().enumerate() {
            let before_name = line.trim_start().split("fn ").next().unwrap_or_default();
            let is_function = line.contains("fn ")
                && before_name.split_whitespace().all(|word| {
                    ["pub", "const", "async"].contains(&word) || word.starts_with("pub(")
                });
            if !is_function {
                continue;
            }
            functions += 1;
            let is_end = |end: &&str| indent(end) == indent(line) && end.ends_with(['}', ';']);
            let end = lines[start..].iter().position(is_end);
            let end = end.unwrap_or_else(|| panic!("{path}:{}: no end", start + 1));
            let len = code_lines(lines[start..=start + end].iter().copied());
            assert!(
                len <= FUNCTION_LINES_MAX,
                "{path}:{}: a function of {len} lines",
                start + 1
            );
        }
    }
    assert!(functions > 500, "{functions} functions");
}

#[test]
fn every_file_begins_with_a_module_doc() {
    for dir in ["src", "tests", "examples", "benches"] {
        for (path, text) in files(dir, "rs") {
            let first = text.lines().next().unwrap_or_default();
            assert!(first.starts_with("//! "), "{path} begins with {first:?}");
        }
    }
}

#[test]
fn sources_have_no_leftover_markers() {
    for dir in ["src", "tests", "examples", "benches"] {
        for (path, text) in files(dir, "rs") {
            if path == "tests/tidy.rs" {
                continue;
            }
            for (number, line) in (1..).zip(text.lines()) {
                for word in [
                    "FIXME",
                    "XXX",
                    "dbg!(",
                    "todo!(",
                    "unimplemented!(",
                    "#[ignore",
                ] {
                    assert!(!line.contains(word), "{path}:{number}: {word}");
                }
                let is_task = line.contains("TODO") && !line.contains("TODO(#");
                assert!(!is_task, "{path}:{number}: a TODO without an issue");
                assert!(
                    !line.ends_with([' ', '\t']),
                    "{path}:{number}: trailing blanks"
                );
            }
        }
    }
}

/// Cargo does not look for tests in these folders: a program that no manifest names would never run. The table of
/// `tests/README.md` says what each is for: a file by its name, a folder with `/` at its end.
#[test]
fn every_test_program_is_in_a_manifest_and_in_the_table() {
    let page = fs::read_to_string(root().join("tests/README.md")).unwrap();
    let (_, table) = page.split_once("\n| where | what for |\n").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let places: BTreeSet<&str> = table
        .lines()
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|place| place.split('`').skip(1).step_by(2))
        .collect();
    for (folder, programs_min) in [("tests", 15), ("tests/system", 8)] {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let mut programs = 0;
        for (path, _) in files(folder, "rs") {
            let name = path.strip_prefix(folder).unwrap().trim_start_matches('/');
            if name.split('/').count() > 1 && !name.split('/').skip(1).eq(["main.rs"]) {
                continue;
            }
            programs += 1;
            let is_named = manifest.contains(&format!("\npath = \"{name}\"\n"));
            assert!(is_named, "{path} is not in {folder}/Cargo.toml");
            let place = path
                .trim_start_matches("tests/")
                .trim_end_matches("main.rs");
            let is_listed = places.contains(place);
            assert!(
                is_listed,
                "`{place}` is not in the table of tests/README.md"
            );
        }
        assert!(programs >= programs_min, "{folder}: {programs} programs");
    }
}

/// Rows of the tables name tests as `file: test`, with a file under `tests` or `src`.
#[test]
fn every_test_named_in_a_table_exists() {
    let sources: Vec<(String, String)> = [files("src", "rs"), files("tests", "rs")].concat();
    for (page, rows_min) in [("docs/parity.md", 12), ("tests/README.md", 35)] {
        let page = root().join(page);
        let text = fs::read_to_string(&page).unwrap();
        let mut rows = 0;
        for row in text.lines().filter(|line| line.starts_with("| ")) {
            let mut names_a_test = false;
            for reference in row.split('`').skip(1).step_by(2) {
                let Some((file, test)) = reference.split_once(": ") else {
                    continue;
                };
                names_a_test = true;
                let ends =
                    ["", "/mod", "/tests", "/loom_tests"].map(|part| format!("{file}{part}.rs"));
                let found = sources.iter().any(|(path, text)| {
                    ends.iter().any(|end| path.ends_with(&format!("/{end}")))
                        && text.contains(&format!("fn {test}("))
                });
                assert!(found, "{}: there is no `{reference}`", page.display());
            }
            rows += usize::from(names_a_test);
        }
        assert!(
            rows >= rows_min,
            "{}: only {rows} rows name a test",
            page.display()
        );
    }
}

/// The dependencies of the library, with their licences. `deny.toml` has the same list; continuous integration also checks it for
/// advisories.
const DEPENDENCIES: [(&str, &str); 6] = [
    ("bytes", "MIT"),
    ("libc", "MIT OR Apache-2.0"),
    ("log", "MIT OR Apache-2.0"),
    ("mio", "MIT"),
    ("slab", "MIT"),
    ("socket2", "MIT OR Apache-2.0"),
];

/// What the features `tls` and `tls-ring` add, with their licences. ring, `cc` and what that needs come with `tls-ring` only.
const TLS_DEPENDENCIES: [(&str, &str); 30] = [
    ("block-buffer", "MIT OR Apache-2.0"),
    ("cc", "MIT OR Apache-2.0"),
    ("cfg-if", "MIT OR Apache-2.0"),
    ("const-oid", "Apache-2.0 OR MIT"),
    ("cpufeatures", "MIT OR Apache-2.0"),
    ("crypto-common", "MIT OR Apache-2.0"),
    ("der", "Apache-2.0 OR MIT"),
    ("der_derive", "Apache-2.0 OR MIT"),
    ("digest", "MIT OR Apache-2.0"),
    ("find-msvc-tools", "MIT OR Apache-2.0"),
    ("flagset", "Apache-2.0"),
    ("getrandom", "MIT OR Apache-2.0"),
    ("hybrid-array", "MIT OR Apache-2.0"),
    ("once_cell", "MIT OR Apache-2.0"),
    ("proc-macro2", "MIT OR Apache-2.0"),
    ("quote", "MIT OR Apache-2.0"),
    ("ring", "Apache-2.0 AND ISC"),
    ("rustls", "Apache-2.0 OR ISC OR MIT"),
    ("rustls-pki-types", "MIT OR Apache-2.0"),
    ("rustls-webpki", "ISC"),
    ("sha2", "MIT OR Apache-2.0"),
    ("shlex", "MIT OR Apache-2.0"),
    ("spki", "Apache-2.0 OR MIT"),
    ("subtle", "BSD-3-Clause"),
    ("syn", "MIT OR Apache-2.0"),
    ("typenum", "MIT OR Apache-2.0"),
    ("unicode-ident", "(MIT OR Apache-2.0) AND Unicode-3.0"),
    ("untrusted", "ISC"),
    ("x509-cert", "Apache-2.0 OR MIT"),
    ("zeroize", "Apache-2.0 OR MIT"),
];

/// Runs a program, and returns what it prints.
fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(root())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn dependencies_are_exactly_the_allowed_ones() {
    for (features, allowed) in [
        ("simulation", DEPENDENCIES.into()),
        (
            "simulation,tls-ring",
            DEPENDENCIES.into_iter().chain(TLS_DEPENDENCIES).collect(),
        ),
    ] {
        check_dependencies(features, &allowed);
    }
}

/// Compares the packages that the library needs with these features with those that are allowed.
fn check_dependencies(features: &str, allowed: &BTreeMap<&str, &str>) {
    // Packages for other systems may not have been fetched. No supported system needs more packages.
    let version = output("rustc", &["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let tree = output(
        env!("CARGO"),
        &[
            "tree",
            "--locked",
            "--offline",
            "--package=quorum-cnx",
            &format!("--features={features}"),
            "--edges=normal,build",
            "--prefix=none",
            "--format={p};{l}",
            "--target",
            host.unwrap(),
        ],
    );
    // `name v1.2.3;licence`, then ` (*)` if it is repeated; ` (source)` behind the version unless that is crates.io.
    let (_, needed) = tree.split_once('\n').unwrap();
    let found = needed.lines().map(|line| {
        let line = line.trim_end_matches(" (*)");
        let (package, licence) = line.split_once(';').unwrap();
        let package = package.trim_end_matches(" (proc-macro)");
        let (name, version) = package.split_once(' ').unwrap();
        assert!(!version.contains(' '), "{package} is not from crates.io");
        (name, licence)
    });
    assert_eq!(&found.collect::<BTreeMap<_, _>>(), allowed, "{features}");
}
