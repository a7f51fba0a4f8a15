//! A server as the process that starts, hears and kills it sees it.
//!
//! Nothing here judges.

use std::{
    env,
    error::Error,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::Sender,
    thread,
};

use crate::member::Report;

/// A server, as this process sees it.
pub(crate) struct Server {
    pub(crate) sid: i64,
    pub(crate) address: String,
    pub(crate) incarnation: u64,
    child: Option<Child>,
    pub(crate) orders: Option<ChildStdin>,
    pub(crate) report: Option<Report>,
}

impl Server {
    pub(crate) fn new(sid: i64, address: String) -> Self {
        Self {
            sid,
            address,
            incarnation: 0,
            child: None,
            orders: None,
            report: None,
        }
    }

    /// Starts it, as this very program. What it says goes into `mouth`.
    pub(crate) fn spawn(
        &mut self,
        addresses: &[String],
        mouth: Sender<Said>,
    ) -> Result<(), Box<dyn Error>> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args(["--member", &self.sid.to_string()])
            .args(["--incarnation", &self.incarnation.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        for address in addresses {
            command.args(["--address", address]);
        }
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
        self.orders = child.stdin.take();
        self.child = Some(child);
        let (sid, incarnation) = (self.sid, self.incarnation);
        thread::spawn(move || {
            // A killed server may leave half a line.
            let reports = lines.map_while(|line| serde_json::from_str(&line.ok()?).ok());
            for report in reports.map(Some).chain([None]) {
                let said = Said {
                    sid,
                    incarnation,
                    report,
                };
                // Fails when nobody wants to know any more.
                let _ = mouth.send(said);
            }
        });
        Ok(())
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.child.is_some()
    }

    /// Why there is nothing to show of it.
    pub(crate) fn absence(&self) -> Option<&'static str> {
        match &self.report {
            Some(report) if report.port_is_free.is_some() => Some("halted"),
            Some(_) => None,
            None if self.is_alive() => Some("starting"),
            None => Some("dead"),
        }
    }

    /// SIGKILL: it has no chance to say anything to anybody.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails when it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.orders = None;
        self.report = None;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a server said, or `None` when it has ended; and in which life.
pub(crate) struct Said {
    pub(crate) sid: i64,
    pub(crate) incarnation: u64,
    pub(crate) report: Option<Report>,
}
