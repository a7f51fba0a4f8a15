//! How long five servers take to elect a leader when theirs is killed: ours, and real ones. What is measured is printed;
//! only that somebody is elected is checked. `ELECTIONS=n` is for how many.

use std::{
    env,
    time::{Duration, Instant},
};

use crate::{
    patience::patiently,
    server::{Ensemble, Server},
    voter::Voter,
};

const SERVERS: i64 = 5;
const QUORUM: usize = 3;

fn elections(default: usize) -> usize {
    env::var("ELECTIONS").map_or(default, |text| text.parse().expect("ELECTIONS is a number"))
}

/// Prints the times of a row of elections.
fn print(who: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1].as_millis();
    println!(
        "{who}: {} elections of {SERVERS} servers, from the death of the leader to a quorum with a new one: \
         p50 {} ms, p99 {} ms, from {} to {} ms",
        times.len(),
        at(50),
        at(99),
        at(0),
        at(100),
    );
}

/// What five of ours say of their leader.
struct Ours {
    voters: Vec<Voter>,
    /// Whom each follows.
    leaders: Vec<Option<i64>>,
    /// Who has reached its leader.
    reached: Vec<bool>,
}

impl Ours {
    /// Hears what they have said since.
    fn hear(&mut self) {
        for (at, voter) in self.voters.iter().enumerate() {
            while let Some(line) = voter.program.event_within(Duration::ZERO) {
                match line["event"].as_str() {
                    Some("elected") => {
                        self.leaders[at] = line["leader"].as_i64();
                        self.reached[at] = line["state"] == "leading";
                    }
                    Some("leader-reached") => self.reached[at] = true,
                    Some("looking") => self.leaders[at] = None,
                    _ => {}
                }
            }
        }
    }

    /// Whom at least so many follow.
    fn leader_of(&self, followers: usize) -> Option<i64> {
        let follow = |leader| {
            self.leaders
                .iter()
                .filter(|other| **other == leader)
                .count()
        };
        let led = self
            .leaders
            .iter()
            .find(|leader| leader.is_some() && follow(**leader) >= followers);
        led.copied().flatten()
    }
}

#[test]
fn five_of_ours_elect_again_and_again() {
    let ensemble = Ensemble::new(SERVERS as usize);
    let start = |sid| Voter::start(&ensemble, sid, &["--follow-leader-port"]);
    let mut ours = Ours {
        voters: (1..=SERVERS).map(start).collect(),
        leaders: vec![None; SERVERS as usize],
        reached: vec![false; SERVERS as usize],
    };
    let mut times = Vec::new();
    for _ in 0..elections(5) {
        let mut leader = None;
        patiently("all follow one", || {
            ours.hear();
            leader = ours.leader_of(SERVERS as usize);
            leader.is_some() && ours.reached.iter().all(|reached| *reached)
        });
        let leader = leader.expect("it was waited for");
        let at = leader as usize - 1;
        let killed_at = Instant::now();
        ours.voters[at].program.process.kill();
        // What it has said before it died is of no interest.
        ours.hear();
        ours.leaders[at] = None;
        let mut time = None;
        patiently("a quorum has another leader", || {
            ours.hear();
            let next = ours.leader_of(QUORUM).filter(|next| *next != leader);
            time = next.map(|_| killed_at.elapsed());
            time.is_some()
        });
        times.extend(time);
        ours.voters[at] = start(leader);
        ours.reached[at] = false;
    }
    print("ours", times);
    ours.voters.into_iter().for_each(Voter::quit);
}

/// What the log says at the end of each election.
const TOOK: &str = " - LEADER ELECTION TOOK";

#[test]
fn five_real_servers_elect_again_and_again() {
    let ensemble = Ensemble::new(SERVERS as usize);
    let mut servers: Vec<Server> = (1..=SERVERS).map(|sid| ensemble.start(sid)).collect();
    let leads = |server: &Server| {
        let said = server.ask("srvr");
        said.is_some_and(|said| said.contains("Mode: leader\n"))
    };
    let follows = |server: &Server| {
        let said = server.ask("srvr");
        said.is_some_and(|said| said.contains("Mode: follower\n"))
    };
    let mut times = Vec::new();
    for _ in 0..elections(2) {
        let mut leader = None;
        patiently("all follow one", || {
            leader = servers.iter().position(leads);
            let followers = servers.iter().filter(|server| follows(server)).count();
            leader.is_some() && followers + 1 == servers.len()
        });
        let at = leader.expect("it was waited for");
        let before: Vec<usize> = servers
            .iter()
            .map(|server| server.count_said(TOOK))
            .collect();
        let killed_at = Instant::now();
        servers[at].process.kill();
        let mut time = None;
        patiently("a quorum has a leader", || {
            let now = servers.iter().map(|server| server.count_said(TOOK));
            let decided = now
                .zip(&before)
                .filter(|(now, before)| now > before)
                .count();
            time = (decided >= QUORUM).then(|| killed_at.elapsed());
            time.is_some()
        });
        times.extend(time);
        // With the old one goes its log.
        drop(servers.remove(at));
        servers.insert(at, ensemble.start(at as i64 + 1));
    }
    print("real ones", times);
}
