//! What a task is polled for: a message or an event, once or as a stream.
//!
//! Nothing here knows where the items come from.

use std::{
    fmt,
    future::poll_fn,
    task::{Context, Poll, Waker},
};

use crate::{error::RecvError, inbox::Nothing};

/// Messages or events as a stream: [`CnxManager::stream`](crate::CnxManager::stream), [`Events::stream`](crate::Events::stream).
///
/// With the feature `futures` this is a `futures_core::Stream`, which ends when nothing is left and nothing can arrive any more.
///
/// While it waits, it has a place of its own among the tasks that wait. A message for which it was woken is left to it until it is
/// polled or dropped: a stream that is not polled any more should be dropped, if other tasks receive, too.
pub struct RecvStream<'a, T> {
    pop: Box<Pop<'a, T>>,
}

/// Called with the waker of the task.
type Pop<'a, T> = dyn FnMut(&Waker) -> Result<T, Nothing> + Send + 'a;

impl<'a, T> RecvStream<'a, T> {
    pub(super) fn new(pop: impl FnMut(&Waker) -> Result<T, Nothing> + Send + 'a) -> Self {
        let pop = Box::new(pop);
        Self { pop }
    }

    /// Takes the oldest item. If there is none, the task of `cx` is woken when there may be one, unless a later call has named another
    /// task.
    ///
    /// # Errors
    ///
    /// [`RecvError::Halted`] if nothing is left and nothing can arrive any more.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, RecvError>> {
        to_poll((self.pop)(cx.waker()))
    }
}

#[cfg(feature = "futures")]
#[cfg_attr(docsrs, doc(cfg(feature = "futures")))]
impl<T> futures_core::Stream for RecvStream<'_, T> {
    type Item = T;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        // The only error is the end.
        self.poll_recv(cx).map(Result::ok)
    }
}

impl<T> fmt::Debug for RecvStream<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvStream").finish_non_exhaustive()
    }
}

/// Waits for `pop` to return an item. It is called with the waker of the task each time the task is polled.
pub(super) async fn receive<T>(
    mut pop: impl FnMut(&Waker) -> Result<T, Nothing>,
) -> Result<T, RecvError> {
    poll_fn(|cx| to_poll(pop(cx.waker()))).await
}

fn to_poll<T>(popped: Result<T, Nothing>) -> Poll<Result<T, RecvError>> {
    match popped {
        Err(Nothing::Yet) => Poll::Pending,
        popped => Poll::Ready(popped.map_err(RecvError::from)),
    }
}

/// Calls `pop`: first without a waker, since to clone one is wasted if there is something.
pub(super) fn pop_or_wait<T>(
    waker: &Waker,
    end_if_forked: impl FnOnce(),
    mut pop: impl FnMut(Option<Waker>) -> Result<T, Nothing>,
) -> Result<T, Nothing> {
    pop(None).or_else(|nothing| match nothing {
        Nothing::Ever => Err(nothing),
        Nothing::Yet => {
            end_if_forked();
            pop(Some(waker.clone()))
        }
    })
}
