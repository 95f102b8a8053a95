//! Rows 8, 9 and 10: start, memory and size.

use crate::row::Row;
use crate::row::Target::AtMost;
use crate::run::{Server, onnxd};
use crate::setting::Setting;
use crate::start::{Expected, first_answer};

/// Loads after which memory is read.
const CALLERS: [&str; 2] = ["--concurrency", "256"];

/// Starts servers that have one model, and fills them.
pub(crate) fn start_and_memory(setting: &Setting) -> Result<Vec<Row>, String> {
    let log = setting.log();
    let duration = ["--duration", setting.effort.seconds];
    let rank = setting.repository(&["rank"], "")?;
    let expected = Expected::of(&Server::start(&rank, &log)?, "rank")?;
    let (mut seconds, mut resident) = (Vec::new(), Vec::new());
    for round in 1..=setting.effort.rounds {
        setting.say(&format!("starts, round {round} of {}", setting.effort.rounds));
        let (took, server) = first_answer(&rank, &log, &expected)?;
        seconds.push(took);
        server.load(&[&["rank"], &CALLERS[..], &duration].concat())?;
        resident.push(server.resident_mb());
    }
    let image = setting.repository(&["image"], "")?;
    let mut with_images = Vec::new();
    for round in 1..=setting.effort.few_rounds {
        setting.say(&format!("memory, round {round} of {}", setting.effort.few_rounds));
        let server = Server::start(&image, &log)?;
        server.load(&[&["image"], &CALLERS[..], &duration].concat())?;
        with_images.push(server.resident_mb());
    }
    let start = "process start to first right answer, rank";
    let memory = |model| format!("resident memory after 256 callers, {model}");
    Ok(vec![
        Row::new("8", start, seconds, ("s", AtMost(0.08))),
        Row::new("9", memory("rank"), resident, ("MB", AtMost(65.0))),
        Row::new("9", memory("image"), with_images, ("MB", AtMost(140.0))),
    ])
}

/// The file of the server.
pub(crate) fn size(_: &Setting) -> Result<Vec<Row>, String> {
    let bytes = std::fs::metadata(onnxd()).map_err(|error| error.to_string())?.len();
    let megabytes = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / 1e6;
    let name = "binary without the ONNX Runtime library";
    Ok(vec![Row::new("10", name, vec![megabytes], ("MB", AtMost(12.0)))])
}
