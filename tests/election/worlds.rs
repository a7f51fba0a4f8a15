//! What must hold in every simulated world: no leader without a quorum, none that lacks what a quorum has, no two of them,
//! and one in bounded time wherever a quorum is connected.

use std::{collections::BTreeSet, env, time::Duration};

use quorum_cnx::{Sid, ZooCfg};

use crate::{
    chance::Rng,
    election::{FINALIZE_WAIT, ZXID_OF_NO_DATA},
    notification::State,
    quorum::Quorum,
    world::{Failure, Rank, Weather, World},
};

/// Worlds of each kind.
const SEEDS: u64 = 800;

/// How long things go wrong.
const STORM: Duration = Duration::from_secs(40);

/// How soon after that somebody must lead all: two votes told again after the longest time, and a little.
const BOUND: Duration = Duration::from_secs(150);

/// One to seven voters, sometimes with groups and weights, and sometimes an observer, of random ranks.
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
    // Without any weight nobody could be elected: an ensemble of equals instead.
    let quorum = Quorum::of(&cfg).unwrap_or_else(|_| Quorum::majority((1..=voters).map(Sid)));
    (quorum, ranks)
}

/// Everything goes wrong for a while, then a quorum is left alone.
fn storm(seed: u64, verbose: bool) -> (World, Result<(), Failure>) {
    let mut rng = Rng::new(seed);
    let (quorum, ranks) = ensemble(&mut rng);
    let mut world = World::new(quorum, ranks, rng.fork(), verbose);
    let done = play(&mut world, &mut rng);
    (world, done)
}

fn play(world: &mut World, rng: &mut Rng) -> Result<(), Failure> {
    let crashes = rng.percent(60);
    while world.now < STORM {
        let at = rng.below(world.count());
        match rng.below(10) {
            0..=3 if !world.is_up(at) => world.start(at)?,
            4 if crashes => world.crash(at),
            5 => world.cut(at, rng.below(3)),
            6 => (0..world.count()).for_each(|at| world.cut(at, 0)),
            7 => {
                let slowest = *rng.pick(&[2, 50, 300, 2000]);
                world.weather = Weather {
                    loss_permille: *rng.pick(&[0, 50, 400]),
                    twice_permille: *rng.pick(&[0, 200]),
                    delay_ms: (1, slowest),
                    in_order: rng.percent(70),
                };
            }
            _ => {}
        }
        let longest = *rng.pick(&[20, 300, 3000]);
        let next = world.now + rng.millis(1, longest);
        world.run_until(next)?;
    }
    world.weather = Weather::CALM;
    // Some stay away, as long as the others are a quorum.
    let mut there: BTreeSet<usize> = (0..world.count()).collect();
    for _ in 0..rng.below(world.count()) {
        let leaver = rng.below(world.count());
        let mut left = there.clone();
        left.remove(&leaver);
        let sids: BTreeSet<Sid> = left.iter().map(|at| world.rank(*at).sid).collect();
        if world.quorum.is_met_by(&sids) {
            there = left;
        }
    }
    for at in 0..world.count() {
        let is_there = there.contains(&at);
        world.cut(at, usize::from(!is_there) * (at + 1));
        if is_there && !world.is_up(at) {
            world.start(at)?;
        }
    }
    world.run_until(STORM + BOUND)?;
    settled(world, &there)
}

/// All who are there have the same leader, which leads.
fn settled(world: &World, there: &BTreeSet<usize>) -> Result<(), Failure> {
    let mut leaders = BTreeSet::new();
    for at in there {
        match world.outcome(*at) {
            Some(outcome) => drop(leaders.insert(outcome.vote.leader)),
            None => {
                let sid = world.rank(*at).sid;
                return Err(Failure(format!("{sid} has no leader after {BOUND:?}")));
            }
        }
    }
    let leads = |sid: &Sid| {
        let leader = there.iter().find(|at| world.rank(**at).sid == *sid);
        let outcome = leader.and_then(|at| world.outcome(*at));
        outcome.is_some_and(|outcome| outcome.state == State::Leading)
    };
    if leaders.len() != 1 || !leaders.iter().all(leads) {
        return Err(Failure(format!("after {BOUND:?} they follow {leaders:?}")));
    }
    Ok(())
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[track_caller]
fn try_seeds(world: fn(u64, bool) -> (World, Result<(), Failure>)) {
    if let Some(seed) = number("ELECTION_SEED") {
        let (world, done) = world(seed, true);
        println!("{}", world.history());
        done.unwrap();
        return;
    }
    for seed in 0..number("ELECTION_SEEDS").unwrap_or(SEEDS) {
        if let (_, Err(Failure(what))) = world(seed, false) {
            panic!("seed {seed}: {what}\nELECTION_SEED={seed} shows how");
        }
    }
}

#[test]
fn no_storm_makes_two_leaders_and_after_it_a_quorum_has_one() {
    try_seeds(storm);
}

/// All start at once and hear each other sooner than they decide: the best of them is elected by all, in the first round.
fn calm(seed: u64, verbose: bool) -> (World, Result<(), Failure>) {
    let mut rng = Rng::new(seed);
    let (quorum, ranks) = ensemble(&mut rng);
    let mut world = World::new(quorum, ranks, rng.fork(), verbose);
    let done = (|| {
        // A server that is not up yet hears nothing, and the library would have told it: all are before the first speaks.
        world.weather.delay_ms = (30, 90);
        for at in 0..world.count() {
            world.start(at)?;
            let next = world.now + rng.millis(0, 3);
            world.run_until(next)?;
        }
        world.run_until(world.now + FINALIZE_WAIT * 4)?;
        let ranks = (0..world.count()).map(|at| world.rank(at));
        let can_win =
            |rank: &Rank| world.quorum.is_voter(rank.sid) && world.quorum.has_weight(rank.sid);
        let best = ranks.filter(can_win).max();
        let best = best.ok_or_else(|| Failure("nobody can win".into()))?;
        for at in 0..world.count() {
            let outcome = world.outcome(at);
            let vote = outcome.map(|outcome| (outcome.vote.leader, outcome.vote.round));
            let sid = world.rank(at).sid;
            // Who is no voter, or has no weight and ranks above, is told later, when it asks again.
            let is_told = !can_win(&world.rank(at));
            if vote != Some((best.sid, 1)) && !(is_told && vote.is_none()) {
                return Err(Failure(format!(
                    "{sid} has {outcome:?}, and not {best:?} in the first round"
                )));
            }
        }
        Ok(())
    })();
    (world, done)
}

#[test]
fn those_who_start_together_elect_the_best_in_the_first_round() {
    try_seeds(calm);
}

fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    (1..items.len()).for_each(|at| items.swap(at, rng.below(at + 1)));
}

/// Some can serve, enough of them to be led, and others only vote, whatever data they claim to have. All start within some
/// seconds.
fn mixed(seed: u64, verbose: bool) -> (World, Result<(), Failure>) {
    let mut rng = Rng::new(seed);
    let voters = rng.between(3, 7) as i64;
    let quorum = Quorum::majority((1..=voters).map(Sid));
    let mut order: Vec<i64> = (1..=voters).collect();
    shuffle(&mut order, &mut rng);
    let serving = rng.between(order.len() / 2 + 1, order.len());
    let serving = &order[..serving];
    let rank = |sid| {
        // A real server has some epoch, and claims nothing that it has not.
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
    let mut world = World::new(quorum, ranks, rng.fork(), verbose);
    world.limit = rng.millis(1000, 8000);
    world.init_limit = rng.millis(1000, 8000);
    world.is_silent_port = rng.percent(50);
    let done = (|| {
        let can_serve = |at: &usize| serving.contains(&world.rank(*at).sid.0);
        let all_serving: Vec<usize> = (0..world.count()).filter(can_serve).collect();
        all_serving.iter().for_each(|at| world.serves(*at));
        let mut order: Vec<usize> = (0..world.count()).collect();
        shuffle(&mut order, &mut rng);
        for at in &order {
            world.start(*at)?;
            let next = world.now + rng.millis(0, 8000);
            world.run_until(next)?;
        }
        world.run_until(STORM + BOUND)?;
        settled(&world, &order.iter().copied().collect())?;
        let leader = world.outcome(0).map(|outcome| outcome.vote.leader);
        match (0..world.count()).find(|at| Some(world.rank(*at).sid) == leader) {
            Some(at) if all_serving.contains(&at) => Ok(()),
            _ => Err(Failure(format!("{leader:?} leads and does not serve"))),
        }
    })();
    (world, done)
}

#[test]
fn where_enough_can_serve_one_of_them_comes_to_lead() {
    try_seeds(mixed);
}

#[test]
fn the_same_seed_has_the_same_history() {
    for seed in 0..20 {
        assert_eq!(storm(seed, true).0.history(), storm(seed, true).0.history());
    }
}
