//! Answers what a Java machine asks about revocation, over HTTP on loopback: for the list of a CA, and for the state of one certificate
//! (OCSP, which `openssl ocsp` answers).

use std::{
    collections::HashMap,
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use support::command::run;

use crate::certificates::Ca;

/// Bytes of a request's body that are read. One about one certificate has a tenth of it.
const BODY_BYTES_MAX: usize = 1024;

pub(crate) struct Responder {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    /// The CA with its key, an index of its certificates, requests and answers.
    directory: PathBuf,
    list: Vec<u8>,
    is_down: AtomicBool,
    lists: AtomicUsize,
    questions: AtomicUsize,
}

/// The answers to earlier OCSP requests, by path and body: those who are refused ask twice a second, and `openssl` is slow.
type Answers = HashMap<(String, Vec<u8>), Vec<u8>>;

impl Responder {
    /// Starts it for a CA that has revoked the certificates with the serial numbers `revoked`, and no others. Its thread ends with the process.
    pub(crate) fn start(ca: &Ca, directory: &Path, valid: &[u64], revoked: &[u64]) -> Self {
        ca.write(&directory.join("ca.pem"));
        // `openssl` demands another subject for each, and ignores it.
        let line = |(state, revoked_at, serial): (&str, &str, &u64)| {
            format!("{state}\t400101000000Z\t{revoked_at}\t{serial:04X}\tunknown\t/CN={serial}\n")
        };
        let valid = valid.iter().map(|serial| ("V", "", serial));
        let revoked_ones = revoked.iter().map(|serial| ("R", "260101000000Z", serial));
        let index: String = valid.chain(revoked_ones).map(line).collect();
        fs::write(directory.join("index.txt"), index).expect("a file can be written");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            directory: directory.to_owned(),
            list: ca.revocation_list(revoked).to_vec(),
            is_down: AtomicBool::new(false),
            lists: AtomicUsize::new(0),
            questions: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            let mut answers = Answers::new();
            for connection in listener.incoming().map_while(Result::ok) {
                // Fails if the client goes away early, or with the files at the end of the test.
                let _ = shared.serve(&connection, &mut answers);
            }
        });
        Self { address, state }
    }

    /// Where the list is.
    pub(crate) fn list_url(&self) -> String {
        format!("http://{}/list", self.address)
    }

    /// Where OCSP requests are answered.
    pub(crate) fn ocsp_url(&self) -> String {
        format!("http://{}/ocsp", self.address)
    }

    /// From now on, every request fails, or is answered again.
    pub(crate) fn set_down(&self, yes: bool) {
        self.state.is_down.store(yes, Ordering::Relaxed);
    }

    /// How often the list was fetched.
    pub(crate) fn lists(&self) -> usize {
        self.state.lists.load(Ordering::Relaxed)
    }

    /// How many OCSP requests came.
    pub(crate) fn questions(&self) -> usize {
        self.state.questions.load(Ordering::Relaxed)
    }
}

impl State {
    /// Answers one request, and closes the connection.
    fn serve(&self, mut connection: &TcpStream, answers: &mut Answers) -> io::Result<()> {
        let mut reader = BufReader::new(connection);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut length = 0;
        while !line.trim().is_empty() {
            line.clear();
            reader.read_line(&mut line)?;
            let (name, value) = line.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length.min(BODY_BYTES_MAX)];
        reader.read_exact(&mut body)?;
        let (status, content) = match path.strip_prefix("/ocsp") {
            _ if self.is_down.load(Ordering::Relaxed) => ("503 Service Unavailable", Vec::new()),
            None => {
                self.lists.fetch_add(1, Ordering::Relaxed);
                ("200 OK", self.list.clone())
            }
            Some(question) => {
                self.questions.fetch_add(1, Ordering::Relaxed);
                let question = (question.to_owned(), body);
                let answer = match answers.get(&question) {
                    Some(answer) => answer.clone(),
                    None => self.answer(&question.0, &question.1)?,
                };
                answers.insert(question, answer.clone());
                ("200 OK", answer)
            }
        };
        let length = content.len();
        write!(
            connection,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        )?;
        connection.write_all(&content)
    }

    /// Answers an OCSP request: the body, or in the path of the URL (RFC 6960, A.1).
    fn answer(&self, in_path: &str, body: &[u8]) -> io::Result<Vec<u8>> {
        let file = |name: &str| self.directory.join(name);
        let question = file("question.der");
        if body.is_empty() {
            let text = in_path.trim_start_matches('/');
            let text = text
                .replace("%2B", "+")
                .replace("%2F", "/")
                .replace("%3D", "=");
            fs::write(file("question.txt"), text)?;
            let mut decode = Command::new("openssl");
            decode
                .args(["base64", "-d", "-A", "-in"])
                .arg(file("question.txt"));
            fs::write(&question, run(decode).stdout)?;
        } else {
            fs::write(&question, body)?;
        }
        let mut command = Command::new("openssl");
        command.args(["ocsp", "-ndays", "1", "-respout", "/dev/stdout"]);
        for (option, name) in [
            ("-index", "index.txt"),
            ("-CA", "ca.pem"),
            ("-rsigner", "ca.pem"),
            ("-rkey", "ca.pem"),
            ("-reqin", "question.der"),
        ] {
            command.arg(option).arg(file(name));
        }
        Ok(run(command).stdout)
    }
}
