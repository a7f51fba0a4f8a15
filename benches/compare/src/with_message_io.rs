//! message-io's FramedTcp, which puts a length of one to ten bytes before a payload.
//!
//! It cannot set TCP_NODELAY, writes the length and the payload with two calls, and spins while the socket is full: `send` returns
//! when the frame is written or the connection is gone.

use std::{io, thread, time::Instant};

use message_io::{
    network::{Endpoint, NetEvent, SendStatus, Transport},
    node::{self, NodeEvent, NodeHandler},
};

use crate::{
    Role, Workload,
    control::{EndContext, WarmUp},
    meter::Intake,
    payload,
};

pub(crate) fn run(context: &EndContext) -> io::Result<()> {
    if context.meter.workload == Workload::Latest {
        return Err(io::Error::other(
            "message-io has no queue in which a newer frame replaces an older one",
        ));
    }
    context.variant(&["send"])?;
    let (handler, listener) = node::split::<()>();
    let network = handler.network();
    match &context.role {
        Role::Serve { listen, .. } => {
            let (_, address) = network.listen(Transport::FramedTcp, listen.as_str())?;
            context.ready(&address.to_string());
            let mut intake = Intake::new(&context.meter);
            listener.for_each(|event| match event {
                NodeEvent::Network(NetEvent::Message(from, payload)) => {
                    if context.meter.workload == Workload::Latency {
                        network.send(from, payload);
                    } else {
                        intake.frame(payload);
                    }
                }
                NodeEvent::Network(NetEvent::Disconnected(_)) => handler.stop(),
                NodeEvent::Network(_) | NodeEvent::Signal(()) => {}
            });
            Ok(())
        }
        Role::Drive { to, .. } => {
            let (endpoint, address) = network.connect(Transport::FramedTcp, to.as_str())?;
            let warm_up = WarmUp::new(context, address.to_string());
            match context.meter.workload {
                Workload::Latency => ping(context, &handler, listener, endpoint, warm_up),
                _ => send(context, &handler, listener, endpoint, warm_up),
            }
            Ok(())
        }
    }
}

/// Sends the next frame when an answer arrives.
fn ping(
    context: &EndContext,
    handler: &NodeHandler<()>,
    listener: node::NodeListener<()>,
    endpoint: Endpoint,
    mut warm_up: WarmUp<'_>,
) {
    let payload = vec![b'x'; context.role.task().bytes()];
    let mut sent = Instant::now();
    listener.for_each(|event| match event {
        NodeEvent::Network(NetEvent::Connected(_, true)) => {
            sent = Instant::now();
            handler.network().send(endpoint, &payload);
        }
        NodeEvent::Network(NetEvent::Message(..)) => {
            context.meter.record(sent.elapsed());
            warm_up.round();
            sent = Instant::now();
            handler.network().send(endpoint, &payload);
        }
        NodeEvent::Network(NetEvent::Connected(_, false) | NetEvent::Disconnected(_)) => {
            handler.stop()
        }
        NodeEvent::Network(_) | NodeEvent::Signal(()) => {}
    });
}

/// Sends frames on a thread of the application, one after the other.
fn send(
    context: &EndContext,
    handler: &NodeHandler<()>,
    listener: node::NodeListener<()>,
    endpoint: Endpoint,
    mut warm_up: WarmUp<'_>,
) {
    let meter = &context.meter;
    let mut payload = vec![b'x'; context.role.task().bytes()];
    let mut offer = Some(move || {
        for number in 1.. {
            if meter.workload != Workload::Stream {
                payload::set_stamp(&mut payload, payload::now());
            }
            payload::set_number(&mut payload, number);
            meter.offered.add(1);
            if handler.network().send(endpoint, &payload) != SendStatus::Sent {
                return;
            }
            meter.written.add(1);
            warm_up.round();
        }
    });
    thread::scope(|scope| {
        listener.for_each(|event| match event {
            NodeEvent::Network(NetEvent::Connected(_, true)) => {
                if let Some(offer) = offer.take() {
                    scope.spawn(offer);
                }
            }
            NodeEvent::Network(NetEvent::Connected(_, false) | NetEvent::Disconnected(_)) => {
                handler.stop()
            }
            NodeEvent::Network(_) | NodeEvent::Signal(()) => {}
        });
    });
}
