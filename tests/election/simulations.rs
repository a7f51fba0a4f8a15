//! Tests simulated ensembles: every leader has a quorum and all data that a quorum has, there are never two leaders, and a
//! connected quorum has a leader in bounded time.

use std::{collections::BTreeSet, env, time::Duration};

use quorum_cnx::{Sid, ZooCfg};

use support::rng::Rng;

use crate::{
    election::{FINALIZE_WAIT, ZXID_OF_NO_DATA},
    ensemble::{Ensemble, Failure, Network, Rank},
    notification::State,
    quorum::Quorum,
};

/// Simulations of each kind.
const SEEDS: u64 = 800;

/// How long faults happen.
const FAULT_TIME: Duration = Duration::from_secs(40);

/// How soon after the faults there must be one leader: two votes are resent at the longest interval, and some time is added.
const LEADER_BY: Duration = Duration::from_secs(150);

/// One to seven voters with random ranks, sometimes with groups and weights, and sometimes with an observer.
fn ensemble(rng: &mut Rng) -> (Quorum, Vec<Rank>) {
    let voters = rng.between(1, 7) as i64;
    let mut text = String::new();
    for sid in 1..=voters {
        text += &format!("server.{sid}=zk:{sid}:1{sid}\n");
    }
    if rng.percent(20) {
        text += "server.99=zk:99:199:observer\n";
    }
    if voters > 2 && rng.percent(30) {
        let mut groups = vec![Vec::new(); rng.between(1, 3)];
        for sid in 1..=voters {
            let group = rng.below(groups.len());
            groups[group].push(sid.to_string());
            text += &format!("weight.{sid}={}\n", *rng.pick(&[0, 1, 1, 1, 2]));
        }
        for (at, group) in groups.iter().enumerate().filter(|(_, all)| !all.is_empty()) {
            text += &format!("group.{at}={}\n", group.join(":"));
        }
    }
    let cfg = ZooCfg::parse(&text).unwrap();
    let sids: Vec<Sid> = cfg.servers.iter().map(|server| server.sid).collect();
    let rank = |sid| Rank {
        epoch: rng.below(2) as i64,
        zxid: rng.below(3) as i64,
        sid,
    };
    let ranks = sids.into_iter().map(rank).collect();
    // If no server has weight, all get the same weight.
    let quorum = Quorum::of(&cfg).unwrap_or_else(|_| Quorum::majority((1..=voters).map(Sid)));
    (quorum, ranks)
}

/// Injects faults for a while. Then a quorum runs without faults.
fn with_faults(seed: u64, verbose: bool) -> (Ensemble, Result<(), Failure>) {
    let mut rng = Rng::new(seed);
    let (quorum, ranks) = ensemble(&mut rng);
    let mut ensemble = Ensemble::new(quorum, ranks, rng.fork(), verbose);
    let done = inject_faults(&mut ensemble, &mut rng);
    (ensemble, done)
}

fn inject_faults(ensemble: &mut Ensemble, rng: &mut Rng) -> Result<(), Failure> {
    let crashes = rng.percent(60);
    while ensemble.now < FAULT_TIME {
        let at = rng.below(ensemble.count());
        match rng.below(10) {
            0..=3 if !ensemble.is_up(at) => ensemble.start(at)?,
            4 if crashes => ensemble.crash(at),
            5 => ensemble.cut(at, rng.below(3)),
            6 => (0..ensemble.count()).for_each(|at| ensemble.cut(at, 0)),
            7 => {
                let slowest = *rng.pick(&[2, 50, 300, 2000]);
                ensemble.network = Network {
                    loss_permille: *rng.pick(&[0, 50, 400]),
                    duplicate_permille: *rng.pick(&[0, 200]),
                    delay_ms: (1, slowest),
                    in_order: rng.percent(70),
                };
            }
            _ => {}
        }
        let longest = *rng.pick(&[20, 300, 3000]);
        let next = ensemble.now + rng.millis(1, longest);
        ensemble.run_until(next)?;
    }
    ensemble.network = Network::GOOD;
    // Some servers stay away, as long as the others are a quorum.
    let mut connected: BTreeSet<usize> = (0..ensemble.count()).collect();
    for _ in 0..rng.below(ensemble.count()) {
        let removed = rng.below(ensemble.count());
        let mut left = connected.clone();
        left.remove(&removed);
        let sids: BTreeSet<Sid> = left.iter().map(|at| ensemble.rank(*at).sid).collect();
        if ensemble.quorum.is_met_by(&sids) {
            connected = left;
        }
    }
    for at in 0..ensemble.count() {
        let is_connected = connected.contains(&at);
        ensemble.cut(at, usize::from(!is_connected) * (at + 1));
        if is_connected && !ensemble.is_up(at) {
            ensemble.start(at)?;
        }
    }
    ensemble.run_until(FAULT_TIME + LEADER_BY)?;
    check_common_leader(ensemble, &connected)
}

/// Checks that all connected servers have the same leader, and that it leads.
fn check_common_leader(ensemble: &Ensemble, connected: &BTreeSet<usize>) -> Result<(), Failure> {
    let mut leaders = BTreeSet::new();
    for at in connected {
        match ensemble.outcome(*at) {
            Some(outcome) => drop(leaders.insert(outcome.vote.leader)),
            None => {
                let sid = ensemble.rank(*at).sid;
                return Err(Failure(format!("{sid} has no leader after {LEADER_BY:?}")));
            }
        }
    }
    let leads = |sid: &Sid| {
        let leader = connected.iter().find(|at| ensemble.rank(**at).sid == *sid);
        let outcome = leader.and_then(|at| ensemble.outcome(*at));
        outcome.is_some_and(|outcome| outcome.state == State::Leading)
    };
    if leaders.len() != 1 || !leaders.iter().all(leads) {
        return Err(Failure(format!(
            "after {LEADER_BY:?} the leaders are {leaders:?}"
        )));
    }
    Ok(())
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[track_caller]
fn try_seeds(simulate: fn(u64, bool) -> (Ensemble, Result<(), Failure>)) {
    if let Some(seed) = number("ELECTION_SEED") {
        let (ensemble, done) = simulate(seed, true);
        println!("{}", ensemble.history());
        done.unwrap();
        return;
    }
    for seed in 0..number("ELECTION_SEEDS").unwrap_or(SEEDS) {
        if let (_, Err(Failure(what))) = simulate(seed, false) {
            panic!("seed {seed}: {what}\nreplay: ELECTION_SEED={seed}");
        }
    }
}

#[test]
fn never_two_leaders_and_one_leader_after_the_faults() {
    try_seeds(with_faults);
}

/// All servers start together, and receive all votes before they decide. All elect the best one in the first round.
fn without_faults(seed: u64, verbose: bool) -> (Ensemble, Result<(), Failure>) {
    let mut rng = Rng::new(seed);
    let (quorum, ranks) = ensemble(&mut rng);
    let mut ensemble = Ensemble::new(quorum, ranks, rng.fork(), verbose);
    let done = (|| {
        // A message to a server that has not started is lost here. So all start before the first message arrives.
        ensemble.network.delay_ms = (30, 90);
        for at in 0..ensemble.count() {
            ensemble.start(at)?;
            let next = ensemble.now + rng.millis(0, 3);
            ensemble.run_until(next)?;
        }
        ensemble.run_until(ensemble.now + FINALIZE_WAIT * 4)?;
        let ranks = (0..ensemble.count()).map(|at| ensemble.rank(at));
        let can_win = |rank: &Rank| {
            ensemble.quorum.is_voter(rank.sid) && ensemble.quorum.has_weight(rank.sid)
        };
        let best = ranks.filter(can_win).max();
        let best = best.ok_or_else(|| Failure("no server can win".into()))?;
        for at in 0..ensemble.count() {
            let outcome = ensemble.outcome(at);
            let vote = outcome.map(|outcome| (outcome.vote.leader, outcome.vote.round));
            let sid = ensemble.rank(at).sid;
            // A server that cannot win may learn the result later, when it sends its vote again.
            let may_learn_later = !can_win(&ensemble.rank(at));
            if vote != Some((best.sid, 1)) && !(may_learn_later && vote.is_none()) {
                return Err(Failure(format!(
                    "{sid} has {outcome:?} instead of {best:?} in the first round"
                )));
            }
        }
        Ok(())
    })();
    (ensemble, done)
}

#[test]
fn servers_that_start_together_elect_the_best_one() {
    try_seeds(without_faults);
}

/// A quorum can serve. The others only vote, whatever data they claim to have. All start within some seconds.
fn mixed(seed: u64, verbose: bool) -> (Ensemble, Result<(), Failure>) {
    let mut rng = Rng::new(seed);
    let voters = rng.between(3, 7) as i64;
    let quorum = Quorum::majority((1..=voters).map(Sid));
    let mut order: Vec<i64> = (1..=voters).collect();
    rng.shuffle(&mut order);
    let serving = rng.between(order.len() / 2 + 1, order.len());
    let serving = &order[..serving];
    let rank = |sid| {
        // A server that can serve has an epoch, and claims only data that it has.
        let zxid = match serving.contains(&sid) {
            true => *rng.pick(&[0, 0, 1]),
            false => *rng.pick(&[ZXID_OF_NO_DATA, 0, 1]),
        };
        Rank {
            epoch: zxid >> 32,
            zxid,
            sid: Sid(sid),
        }
    };
    let ranks: Vec<Rank> = (1..=voters).map(rank).collect();
    let mut ensemble = Ensemble::new(quorum, ranks, rng.fork(), verbose);
    ensemble.limit = rng.millis(1000, 8000);
    ensemble.init_limit = rng.millis(1000, 8000);
    ensemble.has_silent_port = rng.percent(50);
    let done = (|| {
        let can_serve = |at: &usize| serving.contains(&ensemble.rank(*at).sid.0);
        let all_serving: Vec<usize> = (0..ensemble.count()).filter(can_serve).collect();
        all_serving
            .iter()
            .for_each(|at| ensemble.set_can_serve(*at));
        let mut order: Vec<usize> = (0..ensemble.count()).collect();
        rng.shuffle(&mut order);
        for at in &order {
            ensemble.start(*at)?;
            let next = ensemble.now + rng.millis(0, 8000);
            ensemble.run_until(next)?;
        }
        ensemble.run_until(FAULT_TIME + LEADER_BY)?;
        check_common_leader(&ensemble, &order.iter().copied().collect())?;
        let leader = ensemble.outcome(0).map(|outcome| outcome.vote.leader);
        match (0..ensemble.count()).find(|at| Some(ensemble.rank(*at).sid) == leader) {
            Some(at) if all_serving.contains(&at) => Ok(()),
            _ => Err(Failure(format!("{leader:?} leads and cannot serve"))),
        }
    })();
    (ensemble, done)
}

#[test]
fn quorum_that_can_serve_provides_the_leader() {
    try_seeds(mixed);
}

#[test]
fn same_seed_gives_the_same_run() {
    for seed in 0..20 {
        assert_eq!(
            with_faults(seed, true).0.history(),
            with_faults(seed, true).0.history()
        );
    }
}
