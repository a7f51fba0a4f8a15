//! libzmq: PAIR for round trips, PUSH to PULL for what goes one way, over its own framing.
//!
//! libzmq moves bytes on a thread of its own and sets TCP_NODELAY itself.

use std::{io, mem, time::Instant};

use zmq::{Context, DONTWAIT, Message, Socket, SocketType};

use crate::{
    Role, Workload,
    control::{Stage, Warmth},
    meter::Intake,
    payload,
};

/// Frames that may wait at each end of a stream, for the variant that says so.
const DEEP: i32 = 100_000;

pub(crate) fn run(stage: &Stage) -> io::Result<()> {
    talk(stage, false)
}

pub(crate) fn run_conflated(stage: &Stage) -> io::Result<()> {
    if stage.meter.workload != Workload::Latest {
        return Err(io::Error::other(
            "conflated, only the latest frame is kept: --workload latest",
        ));
    }
    stage.meter.set_blind();
    talk(stage, true)
}

fn talk(stage: &Stage, is_conflated: bool) -> io::Result<()> {
    let context = Context::new();
    match &stage.role {
        Role::Serve { listen, .. } => {
            let socket = socket(stage, &context, is_conflated)?;
            socket.bind(&format!("tcp://{listen}"))?;
            let bound = socket.get_last_endpoint()?.unwrap_or_default();
            stage.ready(bound.trim_start_matches("tcp://"));
            serve(stage, &socket)
        }
        Role::Drive { to, .. } => {
            let socket = socket(stage, &context, is_conflated)?;
            socket.connect(&format!("tcp://{to}"))?;
            drive(stage, &socket, is_conflated, Warmth::new(stage, to.clone()))
        }
    }
}

/// Every option has to be set before the socket is bound or connected.
fn socket(stage: &Stage, context: &Context, is_conflated: bool) -> io::Result<Socket> {
    let is_serving = matches!(stage.role, Role::Serve { .. });
    let kind = match (stage.meter.workload, is_serving) {
        (Workload::Latency, _) => SocketType::PAIR,
        (_, true) => SocketType::PULL,
        (_, false) => SocketType::PUSH,
    };
    let socket = context.socket(kind)?;
    socket.set_linger(0)?;
    let marks = match stage.meter.workload {
        Workload::Latency => None,
        Workload::Latest if is_conflated => {
            let is_both = stage.variant(&["push", "both"])? == "both";
            socket.set_conflate(is_both || !is_serving)?;
            None
        }
        Workload::Latest | Workload::Lossless => Some(1),
        // As libzmq comes, 1000.
        Workload::Stream if stage.variant(&["hwm-1000", "hwm-100000"])? == "hwm-1000" => None,
        Workload::Stream => Some(DEEP),
    };
    if let Some(marks) = marks {
        socket.set_sndhwm(marks)?;
        socket.set_rcvhwm(marks)?;
    }
    Ok(socket)
}

fn serve(stage: &Stage, socket: &Socket) -> io::Result<()> {
    let mut message = Message::new();
    if stage.meter.workload == Workload::Latency {
        loop {
            socket.recv(&mut message, 0)?;
            // Handed on, not copied.
            socket.send(mem::replace(&mut message, Message::new()), 0)?;
        }
    }
    let mut intake = Intake::new(&stage.meter);
    loop {
        socket.recv(&mut message, 0)?;
        intake.frame(&message);
    }
}

fn drive(
    stage: &Stage,
    socket: &Socket,
    is_conflated: bool,
    mut warmth: Warmth<'_>,
) -> io::Result<()> {
    let mut payload = vec![b'x'; stage.role.task().bytes()];
    let meter = &stage.meter;
    if meter.workload == Workload::Latency {
        let mut answer = Message::new();
        loop {
            let sent = Instant::now();
            socket.send(&payload[..], 0)?;
            socket.recv(&mut answer, 0)?;
            meter.record(sent.elapsed());
            warmth.round();
        }
    }
    // A frame that is offered to a conflating socket never waits.
    let (flags, looks) = match meter.workload {
        Workload::Latest if !is_conflated => (
            DONTWAIT,
            stage.variant(&["events", "dontwait"])? == "events",
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
            // Without being asked, a socket that has refused looks whether there is room again once in a millisecond.
            Err(zmq::Error::EAGAIN) if looks => drop(socket.get_events()?),
            Err(zmq::Error::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        warmth.round();
    }
    Ok(())
}
