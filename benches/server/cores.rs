//! Row 12: a second instance on a second core.

use crate::row::Row;
use crate::row::Target::AtLeast;
use crate::run::{BOTH_CORES, SERVER_CORE, Server};
use crate::setting::Setting;

/// A load that asks little of its generator, which shares the second core.
const LOAD: [&str; 3] = ["magika", "--concurrency", "16"];

pub(crate) fn rows(setting: &Setting) -> Result<Vec<Row>, String> {
    let mut figures = Vec::new();
    for round in 1..=setting.effort.few_rounds {
        setting.say(&format!("instances, round {round} of {}", setting.effort.few_rounds));
        let mut rates = [0.0; 2];
        for (rate, (cores, instances)) in
            rates.iter_mut().zip([(SERVER_CORE, "instances = 1"), (BOTH_CORES, "instances = 2")])
        {
            let models = setting.repository(&["magika"], instances)?;
            let server = Server::start_on(cores, &models, &setting.log())?;
            *rate =
                server.load(&[&LOAD[..], &["--duration", setting.effort.seconds]].concat())?.rate;
        }
        figures.push(rates[1] / rates[0]);
    }
    let name = "2 instances on 2 cores over 1 on 1, magika";
    Ok(vec![Row::new("12", name, figures, ("x", AtLeast(1.9)))])
}
