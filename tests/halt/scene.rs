//! What is to be halted, and everything around it: laid by a condition, and taken away when the halt is over.
//!
//! Nothing here halts.

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

use quorum_cnx::{CnxManager, ConfigBuilder, Dial, EventLoop, Frame, Handle, Handler, Sid};

use crate::{
    callers::Caller,
    common::{HOME, Puppet, bare, configure, eventually, listener},
};

/// The smallest, so that all members dial it, and it keeps what they open.
pub(crate) const OWN: Sid = Sid(0);

/// Members that are configured; those who are not linked are not dialed either.
pub(crate) const MEMBERS: i64 = 1000;

/// Either way to use the library.
pub(crate) enum Subject {
    Manager(Arc<CnxManager>),
    Loop {
        handle: Handle,
        thread: JoinHandle<()>,
        /// Has the handler ask for the halt, with the next frame.
        stop: Arc<AtomicBool>,
        /// When it did.
        asked: Receiver<Instant>,
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

pub(crate) struct Scene {
    caller: Caller,
    builder: Option<ConfigBuilder>,
    address: String,
    subject: Option<Subject>,
    /// How long the handler takes for a frame.
    pause: Duration,
    /// Frames that it has begun with.
    heard: Arc<AtomicU64>,
    ends: Vec<Puppet>,
    props: Vec<Box<dyn Any>>,
}

impl Scene {
    pub(crate) fn new(caller: Caller) -> Self {
        let (socket, address) = listener();
        Self {
            caller,
            builder: Some(members(&address).listener(socket)),
            address,
            subject: None,
            pause: Duration::ZERO,
            heard: Arc::default(),
            ends: Vec::new(),
            props: Vec::new(),
        }
    }

    /// Before it starts.
    pub(crate) fn shape(&mut self, shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder) {
        let builder = self.builder.take().expect("it has not started");
        self.builder = Some(shape(builder));
    }

    pub(crate) fn slow_down(&mut self, pause: Duration) {
        self.pause = pause;
    }

    /// Frames that the handler of a loop has begun with.
    pub(crate) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Acquire)
    }

    pub(crate) fn start(&mut self) -> Handle {
        let builder = self.builder.take().expect("it starts once");
        let config = builder.build().unwrap();
        let subject = if self.caller.has_a_manager() {
            let manager = Arc::new(CnxManager::start(config).unwrap());
            Subject::Manager(manager)
        } else {
            let (stop, (sender, asked)) = (Arc::new(AtomicBool::new(false)), channel());
            let handler = Obedient {
                pause: self.pause,
                heard: Arc::clone(&self.heard),
                stop: Arc::clone(&stop),
                asked: sender,
            };
            let mut event_loop = EventLoop::new(config, handler).unwrap();
            let handle = event_loop.handle().clone();
            let thread = thread::Builder::new().name("quorum-cnx-0".into());
            let thread = thread.spawn(move || event_loop.run().unwrap()).unwrap();
            Subject::Loop {
                handle,
                thread,
                stop,
                asked,
            }
        };
        self.subject = Some(subject);
        self.handle()
    }

    pub(crate) fn handle(&self) -> Handle {
        self.subject.as_ref().expect("it has started").handle()
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

    /// Members that are linked: their ends.
    #[track_caller]
    pub(crate) fn link(&self, sids: impl IntoIterator<Item = i64>) -> Vec<Puppet> {
        let handle = self.handle();
        let link = |sid| {
            let end = Puppet::say(HOME, &self.address, &bare(sid));
            eventually("the member is linked", || {
                handle.connected_to_peer(Sid(sid))
            });
            end
        };
        sids.into_iter().map(link).collect()
    }

    /// An end that must be hung up by the halt.
    pub(crate) fn watch(&mut self, ends: impl IntoIterator<Item = Puppet>) {
        self.ends.extend(ends);
    }

    /// Something that has to be there until the halt is over.
    pub(crate) fn keep(&mut self, prop: impl Any) {
        self.props.push(Box::new(prop));
    }

    pub(crate) fn take_ends(&mut self) -> Vec<Puppet> {
        std::mem::take(&mut self.ends)
    }

    pub(crate) fn part(self) -> (Subject, Vec<Box<dyn Any>>) {
        (self.subject.expect("it has started"), self.props)
    }
}

fn members(own: &str) -> ConfigBuilder {
    let mut servers = vec![(OWN.0, own.to_owned())];
    servers.extend((1..=MEMBERS).map(|sid| (sid, format!("127.0.0.1:{sid}"))));
    configure(OWN.0, &servers).dial(Dial::OnDemand)
}

/// Halts its loop when it is told to.
struct Obedient {
    pause: Duration,
    heard: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    asked: Sender<Instant>,
}

impl Handler for Obedient {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, handle: &Handle) {
        self.heard.fetch_add(1, Ordering::AcqRel);
        if self.stop.load(Ordering::Acquire) {
            // Fails when nobody wants to know.
            let _ = self.asked.send(Instant::now());
            handle.request_halt();
        } else if !self.pause.is_zero() {
            // The work of a slow application.
            thread::sleep(self.pause);
        }
    }
}
