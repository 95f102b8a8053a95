//! Texts that are read, and what is said of those that are not.

use super::*;

fn measured_on() -> MeasuredOn {
    MeasuredOn {
        model_bytes: 3_163_737,
        model_sha256: "fe2d".repeat(16),
        provider: "cpu".to_owned(),
        settings: "graph_optimization=all".to_owned(),
        intra_op_threads: 2,
        runtime: "ONNX Runtime 1.31.1".to_owned(),
        processor: "Example \"9\" CPU".to_owned(),
        gpus: String::new(),
    }
}

fn point(length: usize, rows: usize, micros: u64) -> MeasuredPoint {
    MeasuredPoint::new(length, rows, Duration::from_micros(micros)).unwrap()
}

fn file() -> CostFile {
    let points = vec![point(1, 1, 1500), point(1, 2, 2900), point(576, 64, 80_000)];
    CostFile { measured_on: measured_on(), points }
}

fn text() -> String {
    file().to_text().unwrap()
}

/// What is said of the text after `from` was replaced.
fn refusal(from: &str, to: &str) -> String {
    let text = text();
    assert!(text.contains(from), "{from} not in\n{text}");
    CostFile::parse(&text.replacen(from, to, 1)).unwrap_err().to_string()
}

/// Number of the first line that begins so.
fn line(start: &str) -> usize {
    text().lines().position(|line| line.starts_with(start)).unwrap() + 1
}

#[test]
fn what_was_written_is_read() {
    assert_eq!(CostFile::parse(&text()), Ok(file()));
    let gpus = "NVIDIA T4".to_owned();
    let on_gpu =
        CostFile { measured_on: MeasuredOn { gpus, ..measured_on() }, points: file().points };
    let text = on_gpu.to_text().unwrap();
    assert!(text.contains("gpus = \"NVIDIA T4\""), "{text}");
    assert_eq!(CostFile::parse(&text), Ok(on_gpu));
}

#[test]
fn times_are_kept_to_a_tenth_of_a_microsecond() {
    let precise = MeasuredPoint::new(1, 1, Duration::from_nanos(1_234_560)).unwrap();
    assert!((precise.micros - 1234.6).abs() < 1e-9, "{precise:?}");
    assert!(MeasuredPoint::new(1, 1, Duration::ZERO).unwrap().micros > 0.0, "stays readable");
    assert_eq!(MeasuredPoint::new(0, 1, Duration::from_millis(1)), None);
    assert_eq!(MeasuredPoint::new(1, 1 << 40, Duration::from_millis(1)), None);
    assert_eq!(MeasuredPoint::new(1, 1, Duration::from_hours(2)), None);
    let whole = text().replace("micros = 1500.0", "micros = 1500");
    assert_eq!(CostFile::parse(&whole), Ok(file()));
}

#[test]
fn a_cost_model_learns_the_points() {
    let mut costs = CostModel::new(64, Duration::ZERO);
    for point in &file().points {
        point.tell(&mut costs);
    }
    assert_eq!(costs.expect(2, 1), Duration::from_micros(2900));
    assert_eq!(costs.expect(64, 576), Duration::from_millis(80));
}

#[test]
fn mistakes_are_told_with_line_and_key() {
    let rows = line("rows = 1");
    let said = refusal("rows = 1", "rows = 0");
    assert!(said.starts_with(&format!("line {rows}, `points.rows`: ")), "{said}");
    let said = refusal("rows = 1", "rows = \"one\"");
    assert!(said.starts_with(&format!("line {rows}, `points.rows`: invalid type")), "{said}");
    let said = refusal("rows = 1\n", "rows = 1\ncolumns = 3\n");
    assert!(said.starts_with(&format!("line {}, `points.columns`: unknown", rows + 1)), "{said}");
    let micros = line("micros = 1500");
    for wrong in ["0.0", "1e-300", "-1", "nan", "inf", "1e12"] {
        let said = refusal("micros = 1500.0", &format!("micros = {wrong}"));
        let expected = format!("line {micros}, `points.micros`: expected 0.1 to 3600000000");
        assert!(said.starts_with(&expected), "{wrong}: {said}");
    }
    let said = refusal("provider = ", "provider 7 ");
    assert!(said.starts_with(&format!("line {}", line("provider"))), "{said}");
    let said = refusal("provider = \"cpu\"\n", "");
    let expected = format!("line {}, `measured_on`: missing field", line("[measured_on]"));
    assert!(said.starts_with(&expected), "{said}");
    let said = refusal("length = 1\nrows = 2", "length = 1\nrows = 1");
    assert!(said.ends_with("there is a point of 1 rows of 1 already"), "{said}");
    assert!(said.starts_with(&format!("line {}, `points", line("rows = 2") - 2)), "{said}");
}

#[test]
fn another_schema_is_told_before_its_keys() {
    let said = refusal("schema = 1", "schema = 2\nfuture = true");
    assert_eq!(said, format!("line {}, `schema`: 2 is not 1", line("schema")));
    let none = CostFile { points: Vec::new(), ..file() }.to_text().unwrap();
    let said = CostFile::parse(&none).unwrap_err().to_string();
    assert!(said.ends_with("there are no points"), "{said}");
    let said = refusal("schema = 1\n", "");
    assert!(said.contains("missing field `schema`"), "{said}");
    for odd in ["", "\u{0}", "[", "schema = 1", "[[points]]", "schema = 1\n[measured_on]\n=\n"] {
        assert!(CostFile::parse(odd).is_err(), "{odd:?}");
    }
}

#[test]
fn size_is_bounded() {
    let long = format!("{}#{}", text(), "x".repeat(MAX_BYTES));
    assert_eq!(CostFile::parse(&long), Err(CostFileError::TooLong));
    let points = |count: usize| {
        let points = (1..=count).map(|rows| point(1, rows, 3_599_999_999)).collect();
        CostFile { measured_on: measured_on(), points }.to_text().unwrap()
    };
    assert_eq!(CostFile::parse(&points(MAX_POINTS)).unwrap().points.len(), MAX_POINTS);
    let said = CostFile::parse(&points(MAX_POINTS + 1)).unwrap_err().to_string();
    assert!(said.ends_with("there are more than 4096 points"), "{said}");
    let quoted = refusal("rows = 1", &format!("rows = \"{}\"", "long".repeat(10_000)));
    assert!(quoted.len() < 1000, "{quoted}");
}

#[test]
fn every_difference_is_named() {
    let then = measured_on();
    assert_eq!(then.differences(&then), [""; 0]);
    let now = MeasuredOn {
        model_bytes: 1,
        model_sha256: "0".to_owned(),
        provider: "cuda".to_owned(),
        settings: "graph_optimization=off".to_owned(),
        intra_op_threads: 1,
        runtime: "ONNX Runtime 1.30.0".to_owned(),
        processor: "other".to_owned(),
        gpus: "NVIDIA T4".to_owned(),
    };
    let keys: Vec<String> = then
        .differences(&now)
        .iter()
        .map(|difference| difference.split(' ').next().unwrap().to_owned())
        .collect();
    let text = toml::to_string(&now).unwrap();
    let all: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(keys, all, "a field that is not compared");
    let provider = &then.differences(&now)[2];
    assert_eq!(provider, "provider was \"cpu\", is \"cuda\"");
}
