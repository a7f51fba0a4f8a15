//! The manager or loop to be halted, and the resources of the condition, which are released after the halt.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use quorum_cnx::{CnxManager, ConfigBuilder, EventLoop, Frame, Handle, Handler, Sid};
use support::{MEMBER_IP, TestConnection, bare, eventually, many::with_members};

use crate::callers::Caller;

/// Number of configured members. Those that are not linked are not dialed.
pub(crate) const MEMBERS: i64 = 1000;

/// A manager or a loop.
pub(crate) enum Subject {
    Manager(Arc<CnxManager>),
    Loop {
        handle: Handle,
        thread: JoinHandle<()>,
        /// Makes the handler request the halt at the next frame.
        stop: Arc<AtomicBool>,
        /// When the handler requested it.
        requested_at: Receiver<Instant>,
    },
}

impl Subject {
    pub(crate) fn handle(&self) -> Handle {
        match self {
            Self::Manager(manager) => manager.handle(),
            Self::Loop { handle, .. } => handle.clone(),
        }
    }
}

pub(crate) struct Setup {
    caller: Caller,
    builder: Option<ConfigBuilder>,
    address: String,
    subject: Option<Subject>,
    /// How long the handler takes for each frame.
    delay: Duration,
    /// Number of frames that the handler has begun.
    handled: Arc<AtomicU64>,
    ends: Vec<TestConnection>,
    resources: Vec<Box<dyn Any>>,
}

impl Setup {
    pub(crate) fn new(caller: Caller) -> Self {
        let (builder, address) = with_members(MEMBERS);
        Self {
            caller,
            builder: Some(builder),
            address,
            subject: None,
            delay: Duration::ZERO,
            handled: Arc::default(),
            ends: Vec::new(),
            resources: Vec::new(),
        }
    }

    /// Changes the configuration before the start.
    pub(crate) fn adjust(&mut self, adjust: impl FnOnce(ConfigBuilder) -> ConfigBuilder) {
        let builder = self.builder.take().expect("not started yet");
        self.builder = Some(adjust(builder));
    }

    pub(crate) fn set_delay(&mut self, delay: Duration) {
        self.delay = delay;
    }

    /// Number of frames that the handler has begun.
    pub(crate) fn handled(&self) -> u64 {
        self.handled.load(Ordering::Acquire)
    }

    pub(crate) fn start(&mut self) -> Handle {
        let builder = self.builder.take().expect("started only once");
        let config = builder.build().unwrap();
        let subject = if self.caller.has_a_manager() {
            let manager = Arc::new(CnxManager::start(config).unwrap());
            Subject::Manager(manager)
        } else {
            let (stop, (sender, requested_at)) = (Arc::new(AtomicBool::new(false)), channel());
            let handler = HaltingHandler {
                delay: self.delay,
                handled: Arc::clone(&self.handled),
                stop: Arc::clone(&stop),
                requested_at: sender,
            };
            let mut event_loop = EventLoop::new(config, handler).unwrap();
            let handle = event_loop.handle().clone();
            let thread = thread::Builder::new().name("quorum-cnx-0".into());
            let thread = thread.spawn(move || event_loop.run().unwrap()).unwrap();
            Subject::Loop {
                handle,
                thread,
                stop,
                requested_at,
            }
        };
        self.subject = Some(subject);
        self.handle()
    }

    pub(crate) fn handle(&self) -> Handle {
        self.subject.as_ref().expect("started").handle()
    }

    pub(crate) fn manager(&self) -> Option<Arc<CnxManager>> {
        match &self.subject {
            Some(Subject::Manager(manager)) => Some(Arc::clone(manager)),
            _ => None,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Links these members. Returns their ends.
    #[track_caller]
    pub(crate) fn link(&self, sids: impl IntoIterator<Item = i64>) -> Vec<TestConnection> {
        let handle = self.handle();
        let link = |sid| {
            let end = TestConnection::dial_and_write(MEMBER_IP, &self.address, &bare(sid));
            eventually("the member is linked", || {
                handle.connected_to_peer(Sid(sid))
            });
            end
        };
        sids.into_iter().map(link).collect()
    }

    /// Adds ends that the halt must close.
    pub(crate) fn expect_closed(&mut self, ends: impl IntoIterator<Item = TestConnection>) {
        self.ends.extend(ends);
    }

    /// Adds a resource that must exist until the halt is over.
    pub(crate) fn keep(&mut self, resource: impl Any) {
        self.resources.push(Box::new(resource));
    }

    pub(crate) fn take_ends(&mut self) -> Vec<TestConnection> {
        std::mem::take(&mut self.ends)
    }

    pub(crate) fn into_parts(self) -> (Subject, Vec<Box<dyn Any>>) {
        (self.subject.expect("started"), self.resources)
    }
}

/// A handler that can halt its loop.
struct HaltingHandler {
    delay: Duration,
    handled: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    requested_at: Sender<Instant>,
}

impl Handler for HaltingHandler {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, handle: &Handle) {
        self.handled.fetch_add(1, Ordering::AcqRel);
        if self.stop.load(Ordering::Acquire) {
            // Fails if the receiver is gone.
            let _ = self.requested_at.send(Instant::now());
            handle.request_halt();
        } else if !self.delay.is_zero() {
            // The work of a slow application.
            thread::sleep(self.delay);
        }
    }
}
