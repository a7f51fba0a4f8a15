//! Injects random faults into the members and the paths between them, and undoes all of them.

use std::{
    thread,
    time::{Duration, Instant},
};

use support::{proxy::PathState, rng::Rng};

use crate::mesh::{Mesh, NEVER_KILLED};

/// How a fault ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undo {
    Start(i64),
    Continue(i64),
    ReadOutput(i64),
    Open((i64, i64)),
    /// The second one is a member of the first one again.
    TakeBack((i64, i64)),
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

    /// Sends a few frames, and starts and ends faults that are due.
    pub(crate) fn step(&mut self, mesh: &mut Mesh) {
        // This sets the pace. The test waits for nothing here.
        thread::sleep(Duration::from_millis(5));
        self.send_frames(mesh);
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

    /// Sends three frames, each between a random pair of members.
    fn send_frames(&mut self, mesh: &mut Mesh) {
        let pairs = mesh.pairs();
        for _ in 0..3 {
            let (from, to) = *self.rng.pick(&pairs);
            let bytes = self.length();
            mesh.member(from).send(to, bytes);
        }
    }

    /// From 1 byte to 512 KiB, mostly short.
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
        let is_running = mesh.member(sid).is_running();
        let lasts = self.rng.millis(50, 3000);
        match self.rng.below(100) {
            0..12 if is_running && !NEVER_KILLED.contains(&sid) => {
                mesh.log().note(format!("{sid} is killed for {lasts:?}"));
                mesh.member(sid).kill();
                // Its other faults end with the process.
                let is_of_process = |undo: Undo| match undo {
                    Undo::Continue(of) | Undo::ReadOutput(of) | Undo::TakeBack((of, _)) => {
                        of == sid
                    }
                    Undo::Start(_) | Undo::Open(_) => false,
                };
                self.underway.retain(|(_, undo)| !is_of_process(*undo));
                self.later(lasts, Undo::Start(sid));
            }
            12..24 if is_running => {
                mesh.log().note(format!("{sid} is stopped for {lasts:?}"));
                mesh.member(sid).stop();
                self.later(lasts, Undo::Continue(sid));
            }
            24..36 if is_running => {
                mesh.log().note(format!("{sid} is not read for {lasts:?}"));
                mesh.member(sid).read_output(false);
                self.later(lasts, Undo::ReadOutput(sid));
            }
            36..52 => {
                mesh.log().note(format!("{pair:?} is cut"));
                mesh.cut(pair);
            }
            52..66 => {
                mesh.log()
                    .note(format!("{pair:?} is stalled for {lasts:?}"));
                mesh.set_path(pair, PathState::Stalled);
                self.later(lasts, Undo::Open(pair));
            }
            66..78 => {
                mesh.log().note(format!("{pair:?} is closed for {lasts:?}"));
                mesh.set_path(pair, PathState::Closed);
                self.later(lasts, Undo::Open(pair));
            }
            78..82 => {
                mesh.log().note("all paths are cut");
                for pair in mesh.pairs() {
                    mesh.cut(pair);
                }
            }
            82..90 => self.change_members(mesh, pair, lasts),
            90..100 => {
                let frames = self.rng.between(20, 300);
                mesh.log().note(format!("{pair:?}: a burst of {frames}"));
                for _ in 0..frames {
                    let bytes = self.length();
                    mesh.member(pair.0).send(pair.1, bytes);
                }
            }
            _ => {}
        }
    }

    /// The first one removes the second one from its members for a while, or gives it another address.
    fn change_members(&mut self, mesh: &mut Mesh, (at, sid): (i64, i64), lasts: Duration) {
        if mesh.member(at).has_removed(sid) {
            return;
        }
        if self.rng.percent(40) {
            return self.set_server(mesh, (at, sid));
        }
        let leave = self.rng.percent(50).then(|| self.rng.millis(0, 1000));
        mesh.log()
            .note(format!("{at} removes {sid} for {lasts:?}, leave {leave:?}"));
        mesh.member(at).remove(sid, leave);
        self.later(lasts, Undo::TakeBack((at, sid)));
    }

    /// The second one is a member of the first one at one of its addresses.
    fn set_server(&mut self, mesh: &mut Mesh, (at, sid): (i64, i64)) {
        let address = self.rng.pick(mesh.proxies((at, sid))).address.clone();
        mesh.log().note(format!("{sid} is at {address} for {at}"));
        mesh.member(at).set_server(sid, &address);
    }

    fn later(&mut self, lasts: Duration, undo: Undo) {
        self.underway.retain(|(_, other)| *other != undo);
        self.underway.push((Instant::now() + lasts, undo));
    }

    fn undo(&mut self, mesh: &mut Mesh, undo: Undo) {
        mesh.log().note(format!("{undo:?}"));
        match undo {
            Undo::Start(sid) => mesh.member(sid).start(),
            Undo::Continue(sid) => mesh.member(sid).resume(),
            Undo::ReadOutput(sid) => mesh.member(sid).read_output(true),
            Undo::TakeBack(pair) => self.set_server(mesh, pair),
            Undo::Open(pair) => mesh.set_path(pair, PathState::Open),
        }
    }

    /// Ends all faults.
    pub(crate) fn undo_all(mut self, mesh: &mut Mesh) {
        for (_, undo) in std::mem::take(&mut self.underway) {
            self.undo(mesh, undo);
        }
        mesh.restore_members();
    }
}
