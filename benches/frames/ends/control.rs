//! How an end is told to begin and to stop, and how it answers; the same over stdin and stdout and between two threads.
//!
//! Nothing here measures. Every wait has a deadline.

use std::{
    cell::Cell,
    fmt::Display,
    io::{self, BufRead as _},
    net::SocketAddr,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use super::workers::Workers;
use crate::{
    failure::failure,
    output::{self, complain},
};

/// What an end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Forget what was measured so far, begin now.
    Mark,
    /// Measuring ends.
    Stop,
}

/// How often a wait looks whether a thread has failed.
const GLANCE: Duration = Duration::from_millis(20);

/// A connection carries traffic for this long before an end that times itself begins.
const SETTLE: Duration = Duration::from_millis(500);

/// What an end hears and says.
pub(crate) struct Control {
    orders: Receiver<Order>,
    say: Box<dyn Fn(Value) + Send>,
    give_up: Instant,
    /// Marks and stops by itself after this time, for people without a harness.
    alone_for: Option<Duration>,
    /// Keeps `orders` from being hung up where nobody orders.
    _unheard: Option<Sender<Order>>,
    connected: Arc<AtomicBool>,
    /// True exactly when it was told to end without being asked for results.
    is_dismissed: Cell<bool>,
}

impl Control {
    /// Orders come as lines on stdin, answers leave as lines on stdout. The process ends itself after `at_most`.
    pub(crate) fn of_process(at_most: Duration, alone_for: Option<Duration>) -> Self {
        let (sender, orders) = channel();
        let mut unheard = None;
        if alone_for.is_none() {
            thread::spawn(move || hear(&sender));
        } else {
            // Nobody talks to it, and stdin may be closed.
            unheard = Some(sender);
        }
        thread::spawn(move || {
            thread::sleep(at_most);
            complain(format_args!(
                "frames: gave up after --at-most {} s",
                at_most.as_secs()
            ));
            process::exit(1);
        });
        let say = |value: Value| {
            // Who does not listen any more does not stop us from ending.
            if let Err(error) = output::say(value) {
                complain(format_args!("frames: {error}"));
                process::exit(1);
            }
        };
        Self {
            alone_for,
            _unheard: unheard,
            ..Self::new(orders, Box::new(say), at_most)
        }
    }

    /// Orders and answers go between threads.
    pub(crate) fn of_thread(
        at_most: Duration,
        say: impl Fn(Value) + Send + 'static,
    ) -> (Sender<Order>, Self) {
        let (sender, orders) = channel();
        (sender, Self::new(orders, Box::new(say), at_most))
    }

    fn new(orders: Receiver<Order>, say: Box<dyn Fn(Value) + Send>, at_most: Duration) -> Self {
        Self {
            orders,
            say,
            give_up: Instant::now() + at_most,
            alone_for: None,
            _unheard: None,
            connected: Arc::default(),
            is_dismissed: Cell::new(false),
        }
    }

    /// Says what was measured, if anybody wants to know.
    pub(crate) fn answer(&self, results: Map<String, Value>) {
        if !self.is_dismissed.get() {
            self.say(results.into());
        }
    }

    /// Says any line.
    fn say(&self, value: Value) {
        (self.say)(value);
    }

    /// Says that the other end can connect here, or that traffic runs.
    pub(crate) fn ready(&self, at: SocketAddr) {
        self.say(json!({ "ready": at.to_string() }));
    }

    /// To be set when the other end is there.
    pub(crate) fn connected(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.connected)
    }

    /// Waits until something is so.
    pub(crate) fn wait(
        &self,
        what: impl Display,
        workers: &mut Workers,
        mut is_so: impl FnMut() -> bool,
    ) -> io::Result<()> {
        let start = Instant::now();
        while !is_so() {
            workers.check()?;
            if let Err(RecvTimeoutError::Disconnected) =
                self.orders.recv_timeout(Duration::from_millis(1))
            {
                return Err(failure(format_args!(
                    "told to end while waiting for {what}"
                )));
            }
            if Instant::now() >= self.give_up {
                let waited = start.elapsed().as_secs();
                return Err(failure(format_args!("no {what} within {waited} s")));
            }
        }
        Ok(())
    }

    /// Runs until `stop`; `on_mark` forgets what was measured so far. `false` when nobody wants results.
    pub(crate) fn measure(
        &self,
        workers: &mut Workers,
        mut on_mark: impl FnMut(),
    ) -> io::Result<bool> {
        on_mark();
        if let Some(time) = self.alone_for {
            return self.measure_alone(time, workers, on_mark);
        }
        loop {
            match self.orders.recv_timeout(GLANCE) {
                Ok(Order::Mark) => on_mark(),
                Ok(Order::Stop) => return Ok(true),
                Err(RecvTimeoutError::Disconnected) => {
                    self.is_dismissed.set(true);
                    return Ok(false);
                }
                Err(RecvTimeoutError::Timeout) => self.glance(workers)?,
            }
        }
    }

    fn measure_alone(
        &self,
        time: Duration,
        workers: &mut Workers,
        mut on_mark: impl FnMut(),
    ) -> io::Result<bool> {
        while !self.connected.load(Ordering::Acquire) {
            thread::sleep(GLANCE);
            self.glance(workers)?;
        }
        thread::sleep(SETTLE);
        on_mark();
        let start = Instant::now();
        while start.elapsed() < time {
            thread::sleep(GLANCE.min(time.saturating_sub(start.elapsed())));
            self.glance(workers)?;
        }
        Ok(true)
    }

    fn glance(&self, workers: &mut Workers) -> io::Result<()> {
        workers.check()?;
        if Instant::now() >= self.give_up {
            return Err(failure("gave up: nobody said `stop` within --at-most"));
        }
        Ok(())
    }
}

/// Ends with stdin, which the end sees as the hang-up of the channel.
fn hear(orders: &Sender<Order>) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let order = match line.trim() {
            "mark" => Order::Mark,
            "stop" => Order::Stop,
            "" => continue,
            other => {
                complain(format_args!(
                    "frames: `{other}` is no command; there are `mark` and `stop`"
                ));
                continue;
            }
        };
        if orders.send(order).is_err() {
            return;
        }
    }
}
