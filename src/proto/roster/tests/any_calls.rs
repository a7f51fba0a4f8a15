//! Calls in any order, with any id.

use super::*;

/// Makes any calls, with ids of peers, ids of removed peers, and ids that were never assigned. The actions of the roster are
/// followed as the loop would follow them, late, or not at all.
#[test]
fn roster_accepts_any_id_in_any_call() {
    use proptest::prelude::*;

    let source = |flags: u8| Source {
        ip: IpAddr::from([10, 0, 0, flags >> 3 & 3]),
        at_home: flags & 1 != 0,
    };
    let sid = prop_oneof![-3..12_i64, Just(i64::MAX), Just(i64::MIN)];
    // What is called, for which peer and connection, with which sid, flags and time.
    let call = (0..18_u8, 0..16_u8, 0..24_u8, sid, any::<u8>(), 0..1500_u16);
    proptest!(|(
        calls in proptest::collection::vec(call, 1..200),
        eager: bool, newest: bool, admitted_max in 0..3_usize, observers_max in 0..4_usize,
    )| {
        let rules = Rules { eager, newest, admitted_max, observers_max, ..rules() };
        let mut bench = Bench::started(rules);
        // Two ids that are never assigned. Assigned ids are added below.
        let mut ids = vec![PeerId(u64::MAX), PeerId(1 << 20)];
        for (what, whom, key, sid, flags, millis) in calls {
            ids.extend(bench.roster.by_sid.values().copied());
            ids.dedup();
            let id = ids[ids.len() - 1 - usize::from(whom) % ids.len()];
            // The same few connection keys are used repeatedly, for one peer or for several.
            let link = ConnectionKey { index: u32::from(key), generation: 1 };
            bench.brought += u64::from(flags & 4);
            let (now, todo) = (bench.now, &mut bench.todo);
            // Some native handshakes, of a few incarnations.
            let native = Native { incarnation: u64::from(flags & 3), ..bench.roster.native_to(OWN, false) };
            let native = Some(&native).filter(|_| flags & 8 != 0);
            match what {
                0 if flags & 1 != 0 => bench.roster.connect(id, now, todo),
                0 => bench.roster.want(id, now, todo),
                1 => bench.roster.initiate(id, now, todo),
                2 => bench.roster.on_linked(id, link, native.map(|native| native.incarnation), now, todo),
                3 => bench.roster.on_knocked(id, now),
                4 if flags & 2 != 0 => bench.roster.on_retired(id, now),
                4 => bench.roster.on_dial_failed(id, flags & 1 != 0, now, todo),
                5..=7 => {
                    let brought = match flags >> 6 {
                        0 => Brought::More,
                        n => Brought::Bytes(n.into()),
                    };
                    let addresses = [Address::new("10.0.0.9", 3888)];
                    let addresses = &addresses[..usize::from(flags & 2 != 0)];
                    let source = source(flags);
                    let claim = Claim { sid: Sid(sid), link, since: now, source, brought, addresses, native, retires: flags & 32 != 0 };
                    bench.roster.on_initial_message(&claim, now, todo);
                }
                8 => bench.roster.on_home(id, source(flags).ip, now, todo),
                9 => {
                    let link = bench.roster.link(id).filter(|_| flags & 1 != 0).unwrap_or(link);
                    bench.roster.on_down(id, link, flags & 2 != 0, now, todo);
                }
                10 => {
                    let link = bench.roster.contender(id).unwrap_or(link);
                    bench.roster.on_down(id, link, flags & 2 != 0, now, todo);
                }
                11 => bench.pass(Duration::from_millis(millis.into())),
                12 => {
                    // Sometimes with a new id, and sometimes with one that is or was in use.
                    let id = if flags & 1 != 0 { bench.roster.ids.next() } else { id };
                    bench.roster.on_joined(id, Sid(sid), now, todo);
                }
                13 if flags & 1 != 0 => bench.roster.on_back(id, todo),
                13 => bench.roster.on_moved(id, now, todo),
                14 => bench.roster.on_leaving(id, now, todo),
                15 => bench.roster.on_drained(id, todo),
                16 => bench.roster.retry_refused(now, todo),
                _ => bench.roster.remove(id, todo),
            }
            let _ = bench.roster.is_moot(id, Brought::Bytes(key.into()), bench.now);
            let _ = bench.roster.knocks(id);
            let _ = bench.roster.is_in_doubt(id);
            bench.roster.check();
        }
    });
}
