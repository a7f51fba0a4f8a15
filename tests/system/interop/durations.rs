//! Measures how long five servers, ours or real ones, take to elect a leader after theirs is killed. The times are printed, and
//! only the election of a leader is checked. `ELECTIONS=n` sets the number of elections.

use std::{
    env,
    time::{Duration, Instant},
};

use crate::{
    deadlines::wait_until,
    server::{Ensemble, Server},
    voter::Voter,
};

const SERVERS: i64 = 5;
const QUORUM: usize = 3;

fn elections(default: usize) -> usize {
    env::var("ELECTIONS").map_or(default, |text| text.parse().expect("ELECTIONS is a number"))
}

/// Prints percentiles of these times.
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

/// Five of our voters, and what they have printed about their leader.
struct Ours {
    voters: Vec<Voter>,
    /// The leader that each follows.
    leaders: Vec<Option<i64>>,
    /// Which of them have reached their leader.
    reached: Vec<bool>,
}

impl Ours {
    /// Reads the lines that they have printed since.
    fn read_lines(&mut self) {
        for (at, voter) in self.voters.iter().enumerate() {
            while let Some(line) = voter.line_within(Duration::ZERO) {
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

    /// The leader that at least `followers` of them follow.
    fn leader_of(&self, followers: usize) -> Option<i64> {
        let count_followers = |leader| {
            self.leaders
                .iter()
                .filter(|other| **other == leader)
                .count()
        };
        let leader = self
            .leaders
            .iter()
            .find(|leader| leader.is_some() && count_followers(**leader) >= followers);
        leader.copied().flatten()
    }
}

#[test]
fn five_of_ours_elect_repeatedly() {
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
        wait_until("all follow one leader", || {
            ours.read_lines();
            leader = ours.leader_of(SERVERS as usize);
            leader.is_some() && ours.reached.iter().all(|reached| *reached)
        });
        let leader = leader.expect("the wait has ended");
        let at = leader as usize - 1;
        let killed_at = Instant::now();
        ours.voters[at].process.kill();
        // Discards the lines that it had printed before.
        ours.read_lines();
        ours.leaders[at] = None;
        let mut time = None;
        wait_until("a quorum has another leader", || {
            ours.read_lines();
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

/// The log line at the end of each election.
const TOOK: &str = " - LEADER ELECTION TOOK";

#[test]
fn five_real_servers_elect_repeatedly() {
    let ensemble = Ensemble::new(SERVERS as usize);
    let mut servers: Vec<Server> = (1..=SERVERS).map(|sid| ensemble.start(sid)).collect();
    let leads = |server: &Server| server.is_in_mode("leader");
    let follows = |server: &&Server| server.is_in_mode("follower");
    let mut times = Vec::new();
    for _ in 0..elections(2) {
        let mut leader = None;
        wait_until("all follow one leader", || {
            leader = servers.iter().position(leads);
            let followers = servers.iter().filter(follows).count();
            leader.is_some() && followers + 1 == servers.len()
        });
        let at = leader.expect("the wait has ended");
        let before: Vec<usize> = servers
            .iter()
            .map(|server| server.count_in_log(TOOK))
            .collect();
        let killed_at = Instant::now();
        servers[at].process.kill();
        let mut time = None;
        wait_until("a quorum has a leader", || {
            let now = servers.iter().map(|server| server.count_in_log(TOOK));
            let decided = now
                .zip(&before)
                .filter(|(now, before)| now > before)
                .count();
            time = (decided >= QUORUM).then(|| killed_at.elapsed());
            time.is_some()
        });
        times.extend(time);
        // Removes the log of the old process.
        drop(servers.remove(at));
        servers.insert(at, ensemble.start(at as i64 + 1));
    }
    print("real servers", times);
}
