//! libzmq: PAIR for round trips, PUSH to PULL for one-way traffic, with its own framing.
//!
//! libzmq reads and writes on a thread of its own, and sets TCP_NODELAY itself.

use std::{io, mem, time::Instant};

use zmq::{Context, DONTWAIT, Message, Socket, SocketType};

use crate::{
    Role, Workload,
    control::{EndContext, WarmUp},
    meter::Intake,
    payload,
};

/// Frames that may wait at each end of a stream, for the variant `hwm-100000`.
const HIGH_WATER_MARK: i32 = 100_000;

pub(crate) fn run(context: &EndContext) -> io::Result<()> {
    run_end(context, false)
}

pub(crate) fn run_conflated(context: &EndContext) -> io::Result<()> {
    if context.meter.workload != Workload::Latest {
        return Err(io::Error::other(
            "with ZMQ_CONFLATE only the newest frame is kept: use --workload latest",
        ));
    }
    context.meter.set_written_unknown();
    run_end(context, true)
}

fn run_end(context: &EndContext, is_conflated: bool) -> io::Result<()> {
    let zmq = Context::new();
    match &context.role {
        Role::Serve { listen, .. } => {
            let socket = socket(context, &zmq, is_conflated)?;
            socket.bind(&format!("tcp://{listen}"))?;
            let bound = socket.get_last_endpoint()?.unwrap_or_default();
            context.ready(bound.trim_start_matches("tcp://"));
            serve(context, &socket)
        }
        Role::Drive { to, .. } => {
            let socket = socket(context, &zmq, is_conflated)?;
            socket.connect(&format!("tcp://{to}"))?;
            drive(
                context,
                &socket,
                is_conflated,
                WarmUp::new(context, to.clone()),
            )
        }
    }
}

/// Creates a socket with its options, which must be set before it is bound or connected.
fn socket(context: &EndContext, zmq: &Context, is_conflated: bool) -> io::Result<Socket> {
    let is_serving = matches!(context.role, Role::Serve { .. });
    let kind = match (context.meter.workload, is_serving) {
        (Workload::Latency, _) => SocketType::PAIR,
        (_, true) => SocketType::PULL,
        (_, false) => SocketType::PUSH,
    };
    let socket = zmq.socket(kind)?;
    socket.set_linger(0)?;
    let marks = match context.meter.workload {
        Workload::Latency => None,
        Workload::Latest if is_conflated => {
            let is_both = context.variant(&["push", "both"])? == "both";
            socket.set_conflate(is_both || !is_serving)?;
            None
        }
        Workload::Latest | Workload::Lossless => Some(1),
        // The default of libzmq is 1000.
        Workload::Stream if context.variant(&["hwm-1000", "hwm-100000"])? == "hwm-1000" => None,
        Workload::Stream => Some(HIGH_WATER_MARK),
        Workload::Mix | Workload::Beats => {
            return Err(io::Error::other("libzmq has no such workload"));
        }
    };
    if let Some(marks) = marks {
        socket.set_sndhwm(marks)?;
        socket.set_rcvhwm(marks)?;
    }
    Ok(socket)
}

fn serve(context: &EndContext, socket: &Socket) -> io::Result<()> {
    let mut message = Message::new();
    if context.meter.workload == Workload::Latency {
        loop {
            socket.recv(&mut message, 0)?;
            // Moved, not copied.
            socket.send(mem::replace(&mut message, Message::new()), 0)?;
        }
    }
    let mut intake = Intake::new(&context.meter);
    loop {
        socket.recv(&mut message, 0)?;
        intake.frame(&message);
    }
}

fn drive(
    context: &EndContext,
    socket: &Socket,
    is_conflated: bool,
    mut warm_up: WarmUp<'_>,
) -> io::Result<()> {
    let mut payload = vec![b'x'; context.role.task().bytes()];
    let meter = &context.meter;
    if meter.workload == Workload::Latency {
        let mut answer = Message::new();
        loop {
            let sent = Instant::now();
            socket.send(&payload[..], 0)?;
            socket.recv(&mut answer, 0)?;
            meter.record(sent.elapsed());
            warm_up.round();
        }
    }
    // A send to a conflating socket never blocks.
    let (flags, polls_events) = match meter.workload {
        Workload::Latest if !is_conflated => (
            DONTWAIT,
            context.variant(&["events", "dontwait"])? == "events",
        ),
        Workload::Latest => (DONTWAIT, false),
        _ => (0, false),
    };
    for number in 1.. {
        if meter.workload != Workload::Stream {
            payload::set_stamp(&mut payload, payload::now());
        }
        payload::set_number(&mut payload, number);
        meter.offered.add(1);
        match socket.send(&payload[..], flags) {
            Ok(()) => meter.written.add(1),
            // Otherwise libzmq checks a full socket for room only once in a millisecond.
            Err(zmq::Error::EAGAIN) if polls_events => drop(socket.get_events()?),
            Err(zmq::Error::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        warm_up.round();
    }
    Ok(())
}
