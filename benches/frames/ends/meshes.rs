//! The common part of the measurements of meshes, which are built and restored repeatedly. Nothing here opens a connection.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::{Map, Value, json};

use super::{Control, times::Times, workers::Workers};

/// Measures the time until all servers are linked, and until a restarted one is linked again. `build` does both once.
pub(super) fn measure(
    control: &Control,
    mut build: impl FnMut(&Times, &Times) -> io::Result<()> + Send + 'static,
) -> io::Result<Map<String, Value>> {
    let times = Arc::new([Times::default(), Times::default()]);
    let over = Arc::new(AtomicBool::new(false));
    let mut workers = Workers::default();
    let (recording, is_over) = (Arc::clone(&times), Arc::clone(&over));
    workers.spawn("builder", move || {
        while !is_over.load(Ordering::Relaxed) {
            build(&recording[0], &recording[1])?;
        }
        Ok(())
    })?;
    let is_complete = || times[1].count() > 0;
    control.wait("first mesh", &mut workers, is_complete)?;
    control.connected().store(true, Ordering::Release);
    control.ready(([127, 0, 0, 1], 0).into());
    let wanted = control.measure(&mut workers, || times.iter().for_each(Times::reset))?;
    let mut results = Map::new();
    if wanted {
        control.wait("complete mesh", &mut workers, || {
            times.iter().all(|times| times.count() > 0)
        })?;
        for (key, times) in [("full_ms", &times[0]), ("reform_ms", &times[1])] {
            results.insert(key.into(), json!(times.median_us() / 1000.0));
        }
        results.insert("meshes".into(), json!(times[0].count()));
    }
    over.store(true, Ordering::Relaxed);
    Ok(results)
}
