//! Passes orders to an end and answers back, over stdin and stdout or between two threads.
//!
//! Every wait has a deadline.

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
    output::{self, print_error},
};

/// An order to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Begin to measure, and forget earlier results.
    Mark,
    /// Stop measuring.
    Stop,
}

/// How often a wait checks whether a thread has failed.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Traffic runs for this time before an end with `--seconds` begins to measure.
const SETTLE: Duration = Duration::from_millis(500);

/// The control channel of an end.
pub(crate) struct Control {
    orders: Receiver<Order>,
    say: Box<dyn Fn(Value) + Send>,
    give_up: Instant,
    /// Measures for this time without orders (`--seconds`).
    seconds: Option<Duration>,
    /// Keeps `orders` open if nothing is read from stdin.
    _unused: Option<Sender<Order>>,
    connected: Arc<AtomicBool>,
    /// True exactly when the orders ended without `stop`: no results are wanted.
    is_dismissed: Cell<bool>,
}

impl Control {
    /// Reads orders from stdin, and prints answers to stdout, one a line. The process ends after `at_most`.
    pub(crate) fn of_process(at_most: Duration, seconds: Option<Duration>) -> Self {
        let (sender, orders) = channel();
        let mut unused = None;
        if seconds.is_none() {
            thread::spawn(move || read_orders(&sender));
        } else {
            // There are no orders, and stdin may be closed.
            unused = Some(sender);
        }
        thread::spawn(move || {
            thread::sleep(at_most);
            print_error(format_args!(
                "frames: gave up after --at-most {} s",
                at_most.as_secs()
            ));
            process::exit(1);
        });
        let say = |value: Value| {
            // A closed standard output does not keep the end from stopping.
            if let Err(error) = output::print_line(value) {
                print_error(format_args!("frames: {error}"));
                process::exit(1);
            }
        };
        Self {
            seconds,
            _unused: unused,
            ..Self::new(orders, Box::new(say), at_most)
        }
    }

    /// Receives orders from another thread, and calls `say` with answers.
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
            seconds: None,
            _unused: None,
            connected: Arc::default(),
            is_dismissed: Cell::new(false),
        }
    }

    /// Sends the results, if they are wanted.
    pub(crate) fn answer(&self, results: Map<String, Value>) {
        if !self.is_dismissed.get() {
            self.say(results.into());
        }
    }

    fn say(&self, value: Value) {
        (self.say)(value);
    }

    /// Reports that the other end can connect to this address, or that traffic runs.
    pub(crate) fn ready(&self, at: SocketAddr) {
        self.say(json!({ "ready": at.to_string() }));
    }

    /// A flag to be set when the other end is connected.
    pub(crate) fn connected(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.connected)
    }

    /// Waits until `is_so` returns true.
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
                    "the orders ended while waiting for {what}"
                )));
            }
            if Instant::now() >= self.give_up {
                let waited = start.elapsed().as_secs();
                return Err(failure(format_args!("no {what} within {waited} s")));
            }
        }
        Ok(())
    }

    /// Waits for `stop`, and calls `on_mark` at each `mark`. Returns whether results are wanted.
    pub(crate) fn measure(
        &self,
        workers: &mut Workers,
        mut on_mark: impl FnMut(),
    ) -> io::Result<bool> {
        on_mark();
        if let Some(time) = self.seconds {
            return self.measure_for(time, workers, on_mark);
        }
        loop {
            match self.orders.recv_timeout(POLL_INTERVAL) {
                Ok(Order::Mark) => on_mark(),
                Ok(Order::Stop) => return Ok(true),
                Err(RecvTimeoutError::Disconnected) => {
                    self.is_dismissed.set(true);
                    return Ok(false);
                }
                Err(RecvTimeoutError::Timeout) => self.check(workers)?,
            }
        }
    }

    fn measure_for(
        &self,
        time: Duration,
        workers: &mut Workers,
        mut on_mark: impl FnMut(),
    ) -> io::Result<bool> {
        while !self.connected.load(Ordering::Acquire) {
            thread::sleep(POLL_INTERVAL);
            self.check(workers)?;
        }
        thread::sleep(SETTLE);
        on_mark();
        let start = Instant::now();
        while start.elapsed() < time {
            thread::sleep(POLL_INTERVAL.min(time.saturating_sub(start.elapsed())));
            self.check(workers)?;
        }
        Ok(true)
    }

    fn check(&self, workers: &mut Workers) -> io::Result<()> {
        workers.check()?;
        if Instant::now() >= self.give_up {
            return Err(failure("gave up: no `stop` within --at-most"));
        }
        Ok(())
    }
}

/// Reads orders until the end of stdin, which closes the channel.
fn read_orders(orders: &Sender<Order>) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let order = match line.trim() {
            "mark" => Order::Mark,
            "stop" => Order::Stop,
            "" => continue,
            other => {
                print_error(format_args!(
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
