//! Unit tests of `fair_queue`.

use std::{
    sync::Arc,
    task::{Wake, Waker},
    thread,
};

use super::{super::fixture::*, *};
use crate::sync::Signal;

fn pop_all(inbox: &Inbox<Of>, into: &mut VecDeque<Of>, wait: Wait) -> Result<usize, Nothing> {
    inbox.pop_all(into, wait).map(|popped| popped.taken)
}

/// `TestCircularBlockingQueue` of the original: of three offers to a queue of two, the last two are taken.
#[test]
fn full_inbox_drops_the_oldest_item() {
    let inbox = Inbox::new(Room::for_items(2), InboxFull::DropOldest);
    for n in 1..=3 {
        assert_eq!(inbox.push(run(n..n + 1)), Ok(n == 3));
    }
    let popped = [(); 3].map(|()| pop(&inbox, Wait::No));
    assert_eq!(popped, [Ok(2), Ok(3), Err(Nothing::Yet)]);
    assert_eq!(
        inbox.counts(),
        Counts {
            pushed: 3,
            taken: 2,
            dropped: 1,
            waiting: 0
        }
    );
}

#[test]
fn one_push_of_several_items_wakes_all_waiters() {
    let inbox = Arc::new(Inbox::new(Room::for_items(2), InboxFull::DropOldest));
    let waiting_threads = [(); 2].map(|()| {
        let inbox = Arc::clone(&inbox);
        thread::spawn(move || pop(&inbox, Wait::Forever))
    });
    while lock(&inbox.state).waiting_threads < waiting_threads.len() {
        thread::yield_now();
    }
    inbox.push(run(1..3)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !waiting_threads.iter().all(thread::JoinHandle::is_finished) {
        assert!(Instant::now() < deadline, "somebody sleeps on");
        thread::yield_now();
    }
    let taken: Vec<_> = waiting_threads
        .map(|waiting_thread| waiting_thread.join().unwrap())
        .into();
    assert!(
        taken.contains(&Ok(1)) && taken.contains(&Ok(2)),
        "{taken:?}"
    );
}

#[test]
fn oversized_entry_keeps_its_newest_items() {
    let inbox = Inbox::new(Room::for_items(2), InboxFull::DropOldest);
    inbox.push(run(0..1)).unwrap();
    inbox.push_all([run(1..3), run(3..6)]).unwrap();
    let popped = [(); 2].map(|()| pop(&inbox, Wait::No));
    assert_eq!(popped, [Ok(4), Ok(5)]);
    assert_eq!(
        inbox.counts(),
        Counts {
            pushed: 6,
            taken: 2,
            dropped: 4,
            waiting: 0
        }
    );
}

#[test]
fn oldest_entry_is_dropped_when_memory_is_full() {
    let room = Room {
        items: 100,
        bytes: 20,
    };
    let inbox = Inbox::new(room, InboxFull::DropOldest);
    inbox.push_all([run(0..2), run(2..4), run(4..6)]).unwrap();
    assert_eq!(inbox.counts().dropped, 2, "24 bytes are held by three");
    let popped = [(); 2].map(|()| pop(&inbox, Wait::No));
    assert_eq!(popped, [Ok(2), Ok(3)]);
    // Items that were taken hold no memory.
    inbox.push(run(0..4)).unwrap();
    assert_eq!(inbox.counts().dropped, 2);
    let mut taken = VecDeque::new();
    assert_eq!(pop_all(&inbox, &mut taken, Wait::No), Ok(6));
    inbox.push_all([run(0..4), run(4..9)]).unwrap();
    assert_eq!(inbox.counts().waiting, 9, "all was taken");
    let counts = inbox.counts();
    assert_eq!(
        counts.pushed,
        counts.taken + counts.dropped + counts.waiting
    );
}

#[test]
fn all_items_are_taken_at_once() {
    let inbox = Inbox::new(Room::for_items(4), InboxFull::DropOldest);
    let mut taken = VecDeque::new();
    assert_eq!(pop_all(&inbox, &mut taken, Wait::No), Err(Nothing::Yet));
    inbox.push_all([run(0..3), run(3..5)]).unwrap();
    assert_eq!(pop(&inbox, Wait::No), Ok(1));
    assert_eq!(pop_all(&inbox, &mut taken, Wait::Forever), Ok(3));
    assert_eq!(taken, [run(2..3), run(3..5)]);
    assert_eq!(pop(&inbox, Wait::No), Err(Nothing::Yet));
    assert_eq!(
        inbox.counts(),
        Counts {
            pushed: 5,
            taken: 4,
            dropped: 1,
            waiting: 0
        }
    );
}

#[test]
fn closed_inbox_is_drained_and_then_reports_the_end() {
    let inbox = Inbox::new(Room::for_items(2), InboxFull::DropOldest);
    inbox.push(run(1..2)).unwrap();
    inbox.close();
    assert_eq!(inbox.push(run(2..3)), Err(Refused::Closed));
    assert_eq!(pop(&inbox, Wait::Forever), Ok(1));
    assert_eq!(pop(&inbox, Wait::Forever), Err(Nothing::Ever));
}

#[test]
fn waiting_ends_at_the_deadline() {
    let inbox = Inbox::<Of>::new(Room::for_items(1), InboxFull::DropOldest);
    assert_eq!(pop(&inbox, Wait::Until(Instant::now())), Err(Nothing::Yet));
}

fn all(inbox: &Inbox<Of>) -> Vec<(char, u64)> {
    std::iter::from_fn(|| inbox.pop(Wait::No).ok())
        .map(|popped| popped.taken)
        .collect()
}

#[test]
fn flooding_owner_drops_its_own_items() {
    let inbox = Inbox::new(Room::for_items(10), InboxFull::DropOldest);
    inbox.push(Of('q', 0, 1)).unwrap();
    for n in 0..100 {
        inbox.push(Of('f', 1000 * n, 1000)).unwrap();
        if n % 40 == 1 {
            inbox.push(Of('q', n, 1)).unwrap();
        }
    }
    let quiet: Vec<_> = [0, 1, 41, 81].map(|n| ('q', n)).into();
    let (of_quiet, of_flood): (Vec<_>, Vec<_>) = all(&inbox)
        .into_iter()
        .partition(|(owner, _)| *owner == 'q');
    assert_eq!(of_quiet, quiet);
    let newest: Vec<_> = (99_994..100_000).map(|n| ('f', n)).collect();
    assert_eq!(of_flood, newest);
    assert!(inbox.has_dropped());
    assert_eq!(inbox.take_dropped(), BTreeMap::from([('f', 99_994)]));
    assert!(!inbox.has_dropped() && inbox.take_dropped().is_empty());
}

#[test]
fn flooding_owners_keep_equal_shares() {
    let inbox = Inbox::new(Room::for_items(100), InboxFull::DropOldest);
    for n in 0..10 {
        for owner in ['a', 'b'] {
            inbox.push(Of(owner, 650 * n, 650)).unwrap();
        }
    }
    let of_a = all(&inbox)
        .iter()
        .filter(|(owner, _)| *owner == 'a')
        .count();
    assert_eq!((of_a, inbox.counts().taken), (50, 100));
}

#[test]
fn memory_is_freed_from_the_owner_that_holds_most() {
    let room = Room {
        items: 1000,
        bytes: 80,
    };
    let inbox = Inbox::new(room, InboxFull::DropOldest);
    inbox.push(Of('q', 0, 3)).unwrap();
    for n in 0..1000 {
        inbox.push(Of('f', n, 1)).unwrap();
    }
    let (quiet, rest) = (all(&inbox), inbox.counts());
    assert_eq!(quiet[..3], [('q', 0), ('q', 1), ('q', 2)]);
    assert_eq!((quiet.len(), rest.dropped), (12, 991));
    // No entry without items is left where entries were dropped.
    assert!(lock(&inbox.state).queue.is_empty());
}

#[test]
fn nothing_is_dropped_when_peers_are_slowed() {
    let inbox = Inbox::new(Room::for_items(10), InboxFull::PushBack);
    let mut n = 0;
    while inbox.has_room_for(|| 'f') {
        inbox.push(Of('f', n, 1)).unwrap();
        n += 1;
    }
    assert_eq!(n, 5, "it has as much as is left");
    assert!(inbox.has_room_for(|| 'q'), "another one has room");
    inbox.push(Of('q', 0, 1)).unwrap();
    // The loop is woken when half of what waited at the refusal is left.
    let wakes: Vec<_> = (0..5).map(|_| inbox.pop(Wait::No).unwrap().wakes).collect();
    assert_eq!(wakes, [false, false, false, true, false]);
    assert!(inbox.has_room_for(|| 'f'));
    // All messages of one read are taken, even if they exceed the room.
    inbox.push(Of('f', n, 1000)).unwrap();
    assert!(!inbox.has_room_for(|| 'f') && !inbox.has_room_for(|| 'q'));
    assert_eq!(inbox.offer(Of('q', 1, 1)), Err(Refused::Full));
    let mut into = VecDeque::new();
    let popped = inbox.pop_all(&mut into, Wait::No).unwrap();
    assert_eq!((popped.taken, popped.wakes), (1001, true));
    assert_eq!(inbox.counts().dropped, 0);
    assert_eq!(inbox.offer(Of('q', 1, 1)), Ok(false));
}

#[test]
fn waiter_is_notified_of_room_in_the_inbox() {
    let inbox = Arc::new(Inbox::new(Room::for_items(1), InboxFull::PushBack));
    inbox.push(Of('a', 0, 1)).unwrap();
    let waiter = {
        let inbox = Arc::clone(&inbox);
        thread::spawn(move || inbox.wait_for_room('a', None))
    };
    while inbox.waiters.count() == 0 {
        thread::yield_now();
    }
    assert_eq!(inbox.pop(Wait::No).unwrap().taken, ('a', 0));
    assert!(waiter.join().unwrap());
}

fn tasks(inbox: &Inbox<Of>) -> usize {
    lock(&inbox.state).tasks.len()
}

#[test]
fn push_wakes_as_many_tasks_as_items_in_their_order() {
    let inbox = Inbox::new(Room::for_items(9), InboxFull::DropOldest);
    let mut waiting = [(); 3].map(|()| (inbox.task_pop(), Signal::new()));
    for (task, (_, waker)) in &mut waiting {
        assert_eq!(task.pop(Some(waker.clone())), Err(Nothing::Yet));
    }
    let wakes = || waiting.each_ref().map(|(_, (signal, _))| signal.take());
    inbox.push(run(0..2)).unwrap();
    assert_eq!(wakes(), [1, 1, 0]);
    inbox.push(run(2..3)).unwrap();
    assert_eq!(wakes(), [0, 0, 1]);
    inbox.push(run(3..4)).unwrap();
    assert_eq!(wakes(), [0, 0, 0], "all were woken and have not looked");
}

#[test]
fn future_has_one_waker_at_most_and_none_when_dropped() {
    let inbox = Inbox::new(Room::for_items(9), InboxFull::DropOldest);
    let mut one = inbox.task_pop();
    let mut other = inbox.task_pop();
    let (first, first_waker) = Signal::new();
    let (second, second_waker) = Signal::new();
    assert_eq!(one.pop(Some(first_waker)), Err(Nothing::Yet));
    assert_eq!(one.pop(Some(second_waker)), Err(Nothing::Yet));
    let (_, waker) = Signal::new();
    assert_eq!(other.pop(Some(waker)), Err(Nothing::Yet));
    assert_eq!(tasks(&inbox), 2);
    drop(other);
    assert_eq!(tasks(&inbox), 1);
    inbox.push(run(0..1)).unwrap();
    assert_eq!((first.take(), second.take()), (0, 1), "the last waker");
    assert_eq!(tasks(&inbox), 0);
    let (_, waker) = Signal::new();
    assert_eq!(one.pop(None).unwrap().taken, ('a', 0));
    assert_eq!(one.pop(Some(waker)), Err(Nothing::Yet));
    drop(one);
    assert_eq!(tasks(&inbox), 0);
}

#[test]
fn dropped_task_passes_its_wake_on_only_for_an_item() {
    let inbox = Inbox::new(Room::for_items(9), InboxFull::DropOldest);
    let mut waiting = [(); 2].map(|()| (inbox.task_pop(), Signal::new()));
    for (task, (_, waker)) in &mut waiting {
        assert_eq!(task.pop(Some(waker.clone())), Err(Nothing::Yet));
    }
    let [(woken, _), (mut next, (signal, waker))] = waiting;
    inbox.push(run(0..1)).unwrap();
    drop(woken);
    assert_eq!(signal.take(), 1);
    assert_eq!(next.pop(None).unwrap().taken, ('a', 0));
    // The item of this one is taken by others.
    let mut woken = inbox.task_pop();
    assert_eq!(woken.pop(Some(waker.clone())), Err(Nothing::Yet));
    assert_eq!(next.pop(Some(waker)), Err(Nothing::Yet));
    inbox.push(run(1..2)).unwrap();
    assert_eq!((pop(&inbox, Wait::No), signal.take()), (Ok(1), 1));
    drop(woken);
    assert_eq!(signal.take(), 0);
}

#[test]
fn panic_of_a_waker_does_not_reach_the_push() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("by the test");
        }
    }
    let inbox = Inbox::new(Room::for_items(9), InboxFull::DropOldest);
    let mut waiting = [(); 2].map(|()| inbox.task_pop());
    let (signal, waker) = Signal::new();
    for (task, waker) in waiting
        .iter_mut()
        .zip([Waker::from(Arc::new(Panics)), waker])
    {
        assert_eq!(task.pop(Some(waker)), Err(Nothing::Yet));
    }
    inbox.push(run(0..2)).unwrap();
    assert_eq!(signal.take(), 1);
}

proptest::proptest! {
    /// Any pushes and pops of any owners: the items of each owner are taken in order, the sums hold, and an owner with
    /// no more than its share of the items loses nothing because of another one, as long as the bytes suffice.
    #[test]
    fn inbox_shares_its_room_fairly(
        steps in proptest::collection::vec((0_u8..5, 0_u8..4, 1_usize..30), 1..200),
        items in 1_usize..40,
        bytes in 1_usize..200,
    ) {
        let inbox = Inbox::new(Room { items, bytes }, InboxFull::DropOldest);
        let mut pushed = BTreeMap::<char, u64>::new();
        let mut came = BTreeMap::<char, u64>::new();
        let mut see = |item: (char, u64)| {
            let next = came.entry(item.0).or_default();
            assert!(item.1 >= *next, "out of order");
            *next = item.1 + 1;
        };
        for (what, owner, count) in steps {
            let owner = char::from(b'a' + owner);
            match what {
                0..=2 => {
                    let next = pushed.entry(owner).or_default();
                    let entry = Of(owner, *next, count);
                    let (usage, lost, fits) = {
                        let state = lock(&inbox.state);
                        let fits = state.held + entry.held() <= bytes;
                        (state.owners.clone(), state.dropped.clone(), fits)
                    };
                    inbox.push(entry).unwrap();
                    *next += count as u64;
                    let state = lock(&inbox.state);
                    let owners = usage.iter().filter(|(other, _)| *other != owner).count() + 1;
                    for (other, usage) in usage.iter().filter(|(other, _)| *other != owner) {
                        if fits && usage.items <= (items / owners) as u64 {
                            assert_eq!(state.dropped.get(other), lost.get(other));
                        }
                    }
                }
                3 => {
                    for _ in 0..count {
                        let Ok(popped) = inbox.pop(Wait::No) else { break };
                        see(popped.taken);
                    }
                }
                _ => {
                    let mut into = VecDeque::new();
                    let _ = inbox.pop_all(&mut into, Wait::No);
                    for mut entry in into {
                        while entry.items() > 0 {
                            see(entry.take());
                        }
                    }
                }
            }
            let state = lock(&inbox.state);
            let live = || state.queue.iter().filter(|entry| entry.items() > 0);
            let Counts { pushed, taken, dropped, waiting } = state.counts;
            assert_eq!(pushed, taken + dropped + waiting);
            assert_eq!(waiting, live().map(|entry| entry.items() as u64).sum::<u64>());
            assert_eq!(state.held, live().map(Entry::held).sum::<usize>());
            assert_eq!(state.queue.len(), live().count() + state.empty);
            assert!(waiting <= items as u64);
            assert!(state.held <= bytes || live().count() == 1);
            for (owner, usage) in &state.owners {
                let own = || live().filter(|entry| entry.owner() == *owner);
                assert_eq!(usage.items, own().map(|entry| entry.items() as u64).sum::<u64>());
                assert_eq!(usage.held, own().map(Entry::held).sum::<usize>());
            }
            assert!(state.queue.front().is_none_or(|entry| entry.items() > 0));
        }
    }
}
