//! Row 12: a second instance on a second core.

use crate::row::Row;
use crate::row::Target::AtLeast;
use crate::run::{BOTH_CORES, SERVER_CORE, Server};
use crate::setting::Setting;
use crate::turns;

/// A load that asks little of its generator, which shares the second core.
const LOAD: [&str; 3] = ["magika", "--concurrency", "16"];

pub(crate) fn rows(setting: &Setting) -> Result<Vec<Row>, String> {
    let rate = |cores: &str, instances: &str| {
        let models = setting.repository(&["magika"], instances)?;
        let server = Server::start_on(cores, &models, &setting.log())?;
        let duration = ["--duration", setting.effort.seconds];
        Ok(server.load(&[&LOAD[..], &duration[..]].concat())?.rate)
    };
    let figures = turns::shares(
        setting.effort.rounds,
        || rate(BOTH_CORES, "instances = 2"),
        || rate(SERVER_CORE, "instances = 1"),
        |round| setting.say(&format!("instances, {round}")),
    )?;
    let name = "2 instances on 2 cores over 1 on 1, magika";
    Ok(vec![Row::new("12", name, figures, ("x", AtLeast(1.9)))])
}
