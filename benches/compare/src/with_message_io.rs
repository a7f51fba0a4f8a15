//! message-io: its FramedTcp, which puts a length of one to ten bytes before a payload.
//!
//! It has no way to set TCP_NODELAY, writes the length and the payload in two calls, and spins while the socket takes
//! nothing: `send` either has written the frame, or the connection is gone.

use std::{io, thread, time::Instant};

use message_io::{
    network::{Endpoint, NetEvent, SendStatus, Transport},
    node::{self, NodeEvent, NodeHandler},
};

use crate::{
    Role, Workload,
    control::{Stage, Warmth},
    meter::Intake,
    payload,
};

pub(crate) fn run(stage: &Stage) -> io::Result<()> {
    if stage.meter.workload == Workload::Latest {
        return Err(io::Error::other(
            "message-io has nothing in which a newer frame takes the place of an older one",
        ));
    }
    stage.variant(&["send"])?;
    let (handler, listener) = node::split::<()>();
    let network = handler.network();
    match &stage.role {
        Role::Serve { listen, .. } => {
            let (_, address) = network.listen(Transport::FramedTcp, listen.as_str())?;
            stage.ready(&address.to_string());
            let mut intake = Intake::new(&stage.meter);
            listener.for_each(|event| match event {
                NodeEvent::Network(NetEvent::Message(from, payload)) => {
                    if stage.meter.workload == Workload::Latency {
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
            let warmth = Warmth::new(stage, address.to_string());
            match stage.meter.workload {
                Workload::Latency => ping(stage, &handler, listener, endpoint, warmth),
                _ => send(stage, &handler, listener, endpoint, warmth),
            }
            Ok(())
        }
    }
}

/// An answer is followed by the next frame where it is heard.
fn ping(
    stage: &Stage,
    handler: &NodeHandler<()>,
    listener: node::NodeListener<()>,
    endpoint: Endpoint,
    mut warmth: Warmth<'_>,
) {
    let payload = vec![b'x'; stage.role.task().bytes()];
    let mut sent = Instant::now();
    listener.for_each(|event| match event {
        NodeEvent::Network(NetEvent::Connected(_, true)) => {
            sent = Instant::now();
            handler.network().send(endpoint, &payload);
        }
        NodeEvent::Network(NetEvent::Message(..)) => {
            stage.meter.record(sent.elapsed());
            warmth.round();
            sent = Instant::now();
            handler.network().send(endpoint, &payload);
        }
        NodeEvent::Network(NetEvent::Connected(_, false) | NetEvent::Disconnected(_)) => {
            handler.stop()
        }
        NodeEvent::Network(_) | NodeEvent::Signal(()) => {}
    });
}

/// Frames go out by a thread of the application, one after the other.
fn send(
    stage: &Stage,
    handler: &NodeHandler<()>,
    listener: node::NodeListener<()>,
    endpoint: Endpoint,
    mut warmth: Warmth<'_>,
) {
    let meter = &stage.meter;
    let mut payload = vec![b'x'; stage.role.task().bytes()];
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
            warmth.round();
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
