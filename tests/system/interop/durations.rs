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

/// One of our voters, and what it has printed about its leader.
struct Member {
    voter: Voter,
    /// The leader that it follows.
    leader: Option<i64>,
    has_reached: bool,
}

impl Member {
    fn start(ensemble: &Ensemble, sid: i64) -> Self {
        Self {
            voter: Voter::start(ensemble, sid, &["--follow-leader-port"]),
            leader: None,
            has_reached: false,
        }
    }

    /// Reads the lines that it has printed since.
    fn read_lines(&mut self) {
        while let Some(line) = self.voter.line_within(Duration::ZERO) {
            match line["event"].as_str() {
                Some("elected") => {
                    self.leader = line["leader"].as_i64();
                    self.has_reached = line["state"] == "leading";
                }
                Some("leader-reached") => self.has_reached = true,
                Some("looking") => self.leader = None,
                _ => {}
            }
        }
    }
}

/// The leader that at least `followers` of them follow.
fn leader_of(members: &mut [Member], followers: usize) -> Option<i64> {
    members.iter_mut().for_each(Member::read_lines);
    let leaders = || members.iter().filter_map(|member| member.leader);
    let count = |leader| leaders().filter(|other| *other == leader).count();
    leaders().find(|leader| count(*leader) >= followers)
}

#[test]
fn five_of_ours_elect_repeatedly() {
    let ensemble = Ensemble::new(SERVERS as usize);
    let start = |sid| Member::start(&ensemble, sid);
    let mut ours: Vec<Member> = (1..=SERVERS).map(start).collect();
    let mut times = Vec::new();
    for _ in 0..elections(5) {
        let mut leader = None;
        wait_until("all follow one leader", || {
            leader = leader_of(&mut ours, SERVERS as usize);
            leader.is_some() && ours.iter().all(|member| member.has_reached)
        });
        let leader = leader.expect("the wait has ended");
        let killed = &mut ours[leader as usize - 1];
        let killed_at = Instant::now();
        killed.voter.process.kill();
        // Discards the lines that it had printed before.
        killed.read_lines();
        killed.leader = None;
        let mut time = None;
        wait_until("a quorum has another leader", || {
            let next = leader_of(&mut ours, QUORUM).filter(|next| *next != leader);
            time = next.map(|_| killed_at.elapsed());
            time.is_some()
        });
        times.extend(time);
        ours[leader as usize - 1] = start(leader);
    }
    print("ours", times);
    ours.into_iter().for_each(|member| member.voter.quit());
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
