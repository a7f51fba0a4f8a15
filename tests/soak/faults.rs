//! What is done to the members and the ways between them, as chance has it; and all of it undone.
//!
//! Nothing here checks what comes of it.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    chance::Rng,
    mesh::{ELDERS, Mesh},
    proxy::Way,
};

/// Something that is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undo {
    Start(i64),
    Continue(i64),
    Listen(i64),
    Free((i64, i64)),
}

pub(crate) struct Faults {
    rng: Rng,
    underway: Vec<(Instant, Undo)>,
    next: Instant,
}

impl Faults {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            rng,
            underway: Vec::new(),
            next: Instant::now(),
        }
    }

    /// A moment of traffic, and perhaps a fault.
    pub(crate) fn step(&mut self, mesh: &mut Mesh) {
        // The pace of it; nothing is waited for.
        thread::sleep(Duration::from_millis(5));
        self.talk(mesh);
        let now = Instant::now();
        let (over, rest) = self.underway.iter().partition(|(at, _)| *at <= now);
        let over: Vec<(Instant, Undo)> = over;
        self.underway = rest;
        for (_, undo) in over {
            self.undo(mesh, undo);
        }
        if now >= self.next {
            self.fault(mesh);
            self.next = now + self.rng.millis(20, 400);
        }
    }

    /// Everybody who is there sends something to somebody.
    fn talk(&mut self, mesh: &mut Mesh) {
        let pairs = mesh.pairs();
        for _ in 0..3 {
            let (from, to) = *self.rng.pick(&pairs);
            let bytes = self.length();
            mesh.member(from).send(to, bytes);
        }
    }

    /// From 1 byte to 512 KiB, mostly little.
    fn length(&mut self) -> usize {
        match self.rng.below(1000) {
            0..5 => self.rng.between(100 << 10, 512 << 10),
            5..50 => self.rng.between(1 << 10, 64 << 10),
            50..100 => self.rng.between(1, 23),
            _ => self.rng.between(24, 500),
        }
    }

    fn fault(&mut self, mesh: &mut Mesh) {
        let sid = *self.rng.pick(&mesh.sids());
        let pair = *self.rng.pick(&mesh.pairs());
        let is_there = mesh.member(sid).is_there();
        let lasts = self.rng.millis(50, 3000);
        match self.rng.below(100) {
            0..12 if is_there && !ELDERS.contains(&sid) => {
                mesh.diary().note(format!("{sid} is killed for {lasts:?}"));
                mesh.member(sid).kill();
                // Nothing else is to be undone with this process.
                let is_its = |undo: Undo| undo == Undo::Continue(sid) || undo == Undo::Listen(sid);
                self.underway.retain(|(_, undo)| !is_its(*undo));
                self.later(lasts, Undo::Start(sid));
            }
            12..24 if is_there => {
                mesh.diary().note(format!("{sid} is stopped for {lasts:?}"));
                mesh.member(sid).stop();
                self.later(lasts, Undo::Continue(sid));
            }
            24..36 if is_there => {
                mesh.diary()
                    .note(format!("{sid} is not read for {lasts:?}"));
                mesh.member(sid).listen(false);
                self.later(lasts, Undo::Listen(sid));
            }
            36..52 => {
                mesh.diary().note(format!("{pair:?} is cut"));
                mesh.way(pair).cut();
            }
            52..66 => {
                mesh.diary()
                    .note(format!("{pair:?} is stalled for {lasts:?}"));
                mesh.way(pair).set(Way::Stalled);
                self.later(lasts, Undo::Free(pair));
            }
            66..78 => {
                mesh.diary()
                    .note(format!("{pair:?} is closed for {lasts:?}"));
                mesh.way(pair).set(Way::Closed);
                self.later(lasts, Undo::Free(pair));
            }
            78..82 => {
                mesh.diary().note("everything is cut");
                for pair in mesh.pairs() {
                    mesh.way(pair).cut();
                }
            }
            82..100 => {
                let frames = self.rng.between(20, 300);
                mesh.diary().note(format!("{pair:?}: a burst of {frames}"));
                for _ in 0..frames {
                    let bytes = self.length();
                    mesh.member(pair.0).send(pair.1, bytes);
                }
            }
            _ => {}
        }
    }

    fn later(&mut self, lasts: Duration, undo: Undo) {
        self.underway.retain(|(_, other)| *other != undo);
        self.underway.push((Instant::now() + lasts, undo));
    }

    fn undo(&self, mesh: &mut Mesh, undo: Undo) {
        mesh.diary().note(format!("{undo:?}"));
        match undo {
            Undo::Start(sid) => mesh.member(sid).start(),
            Undo::Continue(sid) => mesh.member(sid).go_on(),
            Undo::Listen(sid) => mesh.member(sid).listen(true),
            Undo::Free(pair) => mesh.way(pair).set(Way::Free),
        }
    }

    /// No fault is underway any more.
    pub(crate) fn undo_all(mut self, mesh: &mut Mesh) {
        for (_, undo) in std::mem::take(&mut self.underway) {
            self.undo(mesh, undo);
        }
    }
}
