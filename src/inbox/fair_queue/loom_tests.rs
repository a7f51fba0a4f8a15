//! Models of what threads share in `fair_queue`, for loom.

use std::{future::poll_fn, task::Poll};

use loom::{sync::Arc, thread};

use super::{super::fixture::*, task_pop::TaskPop, *};
use crate::sync::{Signal, complete};

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

/// Takes an item of such an owner in a task.
async fn pop_async(task: &mut TaskPop<'_, Of>) -> Result<u64, Nothing> {
    poll_fn(|cx| match task.pop(Some(cx.waker().clone())) {
        Err(Nothing::Yet) => Poll::Pending,
        popped => Poll::Ready(popped.map(|popped| popped.taken.1)),
    })
    .await
}

#[test]
fn loom_task_is_woken_by_push_and_close() {
    loom::model(|| {
        let inbox = Arc::new(Inbox::new(Room::for_items(2), InboxFull::DropOldest));
        let task = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || {
                let mut taken = Vec::new();
                let mut task = inbox.task_pop();
                while let Ok(item) = complete(pop_async(&mut task)) {
                    taken.push(item);
                }
                taken
            })
        };
        inbox.push(run(1..2)).unwrap();
        inbox.push(run(2..3)).unwrap();
        inbox.close();
        assert_eq!(task.join().unwrap(), [1, 2]);
    });
}

#[test]
fn loom_dropped_task_passes_its_wake_on() {
    loom::model(|| {
        let inbox = Arc::new(Inbox::new(Room::for_items(2), InboxFull::DropOldest));
        let (_, waker) = Signal::new();
        let mut dropped = inbox.task_pop();
        assert!(dropped.pop(Some(waker)).is_err());
        let other = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || complete(pop_async(&mut inbox.task_pop())))
        };
        let sender = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || inbox.push(run(1..2)).unwrap())
        };
        // Before or after it is woken, or while it is.
        drop(dropped);
        sender.join().unwrap();
        assert_eq!(other.join().unwrap(), Ok(1));
    });
}

#[test]
fn loom_thread_and_task_both_get_an_item() {
    loom::model(|| {
        let inbox = Arc::new(Inbox::new(Room::for_items(2), InboxFull::DropOldest));
        let waiting_thread = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || pop(&inbox, Wait::Forever).unwrap())
        };
        let task = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || complete(pop_async(&mut inbox.task_pop())).unwrap())
        };
        inbox.push(run(1..2)).unwrap();
        inbox.push(run(2..3)).unwrap();
        assert_eq!(waiting_thread.join().unwrap() + task.join().unwrap(), 3);
    });
}

#[test]
fn loom_task_is_notified_of_room_in_the_inbox() {
    loom::model(|| {
        let inbox = Arc::new(Inbox::new(Room::for_items(1), InboxFull::PushBack));
        inbox.push(run(1..2)).unwrap();
        let task = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || complete(inbox.wait_for_room_async('a')))
        };
        assert_eq!(pop(&inbox, Wait::No), Ok(1));
        task.join().unwrap();
        assert_eq!(inbox.waiters.count(), 0);
    });
}
