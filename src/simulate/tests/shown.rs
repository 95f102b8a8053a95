//! What is shown: the table as it is, plots and JSON by what must be in them.

use super::*;

/// Two small situations.
fn compared() -> Vec<suite::Compared> {
    let small = |name, load| {
        let base = scenario(Curve::named(name).unwrap(), load, 3000);
        let deadlines = Deadlines::One(base.curve.best_time() * 3);
        suite::compare(Scenario { deadlines, deadlines_label: "3x", ..base }).unwrap()
    };
    vec![small("rank", 0.7), small("magika", 1.2)]
}

#[test]
fn the_table_is_as_it_was() {
    let table = report::markdown(&compared());
    assert_eq!(table, TABLE.trim(), "it is now:\n{table}");
}

/// A change of a policy changes this: look at what the test prints, then put it there.
const TABLE: &str = include_str!("table.md");

#[test]
fn plots_and_json_hold_everything() {
    let curve = Curve::named("steps").unwrap();
    let scenarios = suite::scenarios(&[curve], suite::Scale::exactly(150, 1));
    assert_eq!(scenarios.len(), 16);
    let swept = scenarios.into_iter().filter(suite::is_swept);
    let compared: Vec<_> = swept.map(|scenario| suite::compare(scenario).unwrap()).collect();
    assert_eq!(compared.len(), suite::LOADS.len());
    let files = plot::all(&compared).unwrap();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["goodput-steps.svg", "p99-steps.svg"]);
    for (name, svg) in &files {
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{name}");
        let labels = suite::Contender::ALL.map(suite::Contender::label);
        for text in labels.into_iter().chain(["30 %", "500 %", "load, as a share"]) {
            assert!(svg.contains(text), "{name} lacks {text}");
        }
        // One line for each, in the plot and in the legend.
        assert!(svg.matches("<polyline").count() >= 10, "{name}");
    }
    let json = report::to_json(&compared, 1);
    assert_eq!(json["seed"], 1);
    assert_eq!(json["situations"].as_array().unwrap().len(), compared.len());
    for one in json["situations"].as_array().unwrap() {
        for contender in suite::Contender::ALL {
            let figures = &one["policies"][contender.key()];
            assert!(figures["goodput"].is_number() && figures["utilisation"].is_number());
            assert_eq!(figures["waiting"], 0);
        }
        assert!(one["policies"]["best_fixed"]["settings"]["max_batch"].is_number());
    }
}

#[test]
fn the_whole_suite_has_enough_situations_of_every_kind() {
    let curves = Curve::NAMES.map(|name| Curve::named(name).unwrap());
    for scale in [suite::Scale::quick(1), suite::Scale::full(1), suite::Scale::exactly(150, 1)] {
        let all = suite::scenarios(&curves, scale);
        assert!(all.len() > 100);
        for instances in [1, 2, 8, 1000] {
            assert!(all.iter().any(|one| one.instances == instances));
        }
        for word in ["poisson", "bursty", "diurnal", "volleys", "square"] {
            assert!(all.iter().any(|one| one.arrivals.label() == word), "{word}");
        }
        for word in ["3x", "8x", "3x, 12x", "2x to 10x", "none"] {
            assert!(all.iter().any(|one| one.deadlines_label == word), "{word}");
        }
        let requests = scale.requests / 2..=scale.most;
        assert!(all.iter().all(|one| requests.contains(&one.requests)));
    }
}

#[test]
fn figures_have_three_digits_and_a_unit() {
    let numbers = [0.5, 9.999, 99.96, 999.6, 42_504.0, 12_345_678.0].map(report::number);
    assert_eq!(numbers, ["0.50", "10.0", "100", "1.00k", "42.5k", "12.3M"]);
    let times = [4700, 999_600, 12_345_678, 2_000_000_000].map(Duration::from_nanos);
    assert_eq!(times.map(report::time), ["4.70 us", "1.00 ms", "12.3 ms", "2.00 s"]);
}
