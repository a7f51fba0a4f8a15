//! Models of what threads share in `fair_queue`, for loom.

use loom::{sync::Arc, thread};

use super::{super::fixture::*, *};

#[test]
fn loom_loop_is_woken_when_refused_room_is_free() {
    loom::model(|| {
        let inbox = Arc::new(Inbox::new(Room::for_items(2), InboxFull::PushBack));
        inbox.push(Of('a', 0, 2)).unwrap();
        let application = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || {
                let one = inbox.pop(Wait::No).unwrap();
                let other = inbox.pop(Wait::No).unwrap();
                one.wakes || other.wakes
            })
        };
        let has_room = inbox.has_room_for(|| 'a');
        let wakes = application.join().unwrap();
        assert!(has_room || wakes, "the loop waits for ever");
        assert!(inbox.has_room_for(|| 'a'));
    });
}

#[test]
fn loom_waiter_is_woken_by_push_and_close() {
    loom::model(|| {
        let inbox = Arc::new(Inbox::new(Room::for_items(1), InboxFull::DropOldest));
        let waiting_thread = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || {
                let mut taken = 0;
                while pop(&inbox, Wait::Forever).is_ok() {
                    taken += 1;
                }
                taken
            })
        };
        inbox.push(run(1..2)).unwrap();
        inbox.push(run(2..4)).unwrap();
        inbox.close();
        let taken = waiting_thread.join().unwrap();
        let counts = inbox.counts();
        assert_eq!(counts.taken, taken);
        assert_eq!(
            counts.pushed,
            counts.taken + counts.dropped + counts.waiting
        );
    });
}

#[test]
fn loom_pop_or_sees_items_of_either_inbox() {
    loom::model(|| {
        let inbox = Arc::new(Inbox::new(Room::for_items(1), InboxFull::DropOldest));
        let other = Arc::new(Inbox::new(Room::for_items(1), InboxFull::DropOldest));
        let waiter = {
            let (inbox, other) = (Arc::clone(&inbox), Arc::clone(&other));
            thread::spawn(move || {
                let popped = inbox.pop_or(Wait::Forever, || other.is_ready()).unwrap();
                match popped.taken {
                    Some((_, item)) => item,
                    None => pop(&other, Wait::No).unwrap(),
                }
            })
        };
        other.push(run(1..2)).unwrap();
        inbox.look_elsewhere();
        assert_eq!(waiter.join().unwrap(), 1);
        inbox.push(run(2..3)).unwrap();
        let popped = inbox.pop_or(Wait::Forever, || other.is_ready()).unwrap();
        assert_eq!(popped.taken, Some(('a', 2)));
    });
}
