//! Bodies: text, bytes, both, and every mistake.

use super::*;
use crate::grpc::wire::MAX_PARAMETERS;
use crate::pb::infer_parameter::ParameterChoice;

const ROOM: usize = 1 << 20;

fn parsed(text: &str, bytes: &'static [u8]) -> Result<Parsed, Failure> {
    parse(text.as_bytes(), Bytes::from_static(bytes), ROOM)
}

fn refusal(text: &str, bytes: &'static [u8]) -> String {
    let refusal = parsed(text, bytes).unwrap_err();
    let (status, message) = refusal.parts();
    assert_eq!(status, 400, "{message}");
    message.to_owned()
}

#[test]
fn text_and_bytes_meet_in_one_request() {
    let text = r#"{
        "id": "a", "unknown": {"deep": [[[]], 1, null]},
        "inputs": [
            {"name": "x", "shape": [1, 2], "datatype": "UINT8", "data": [[1, 2]]},
            {"name": "y", "shape": [3], "datatype": "BOOL", "parameters": {"binary_data_size": 3}},
            {"data": [7], "datatype": "INT8", "shape": [1], "name": "late"},
            {"name": "z", "shape": [0], "datatype": "FP32", "parameters": {"binary_data_size": 0}}
        ]
    }"#;
    let bytes = Bytes::from_static(&[1, 0, 1]);
    let got = parse(text.as_bytes(), bytes.clone(), ROOM).unwrap();
    let message = got.message;
    assert_eq!(message.id, "a");
    let names: Vec<&str> = message.inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(names, ["x", "y", "late", "z"]);
    assert_eq!(message.raw_input_contents, [&[1, 2][..], &[1, 0, 1], &[7], &[]]);
    assert!(message.inputs.iter().all(|input| input.parameters.is_empty()));
    // The very bytes of the body.
    assert_eq!(message.raw_input_contents[1].as_ptr(), bytes.as_ptr());
}

#[test]
fn parameters_keep_their_types() {
    let text = r#"{"parameters": {"flag": true, "count": -3, "large": 18446744073709551615,
        "ratio": 1.0, "text": "1", "huge": 1e400}}"#;
    let message = parsed(text, &[]).unwrap().message;
    let choice = |key: &str| message.parameters[key].parameter_choice.clone().unwrap();
    assert_eq!(choice("flag"), ParameterChoice::BoolParam(true));
    assert_eq!(choice("count"), ParameterChoice::Int64Param(-3));
    assert_eq!(choice("large"), ParameterChoice::Uint64Param(u64::MAX));
    assert_eq!(choice("ratio"), ParameterChoice::DoubleParam(1.0));
    assert_eq!(choice("text"), ParameterChoice::StringParam("1".into()));
    assert_eq!(choice("huge"), ParameterChoice::DoubleParam(f64::INFINITY));
}

#[test]
fn outputs_say_how_they_are_wanted() {
    let text = r#"{"parameters": {"binary_data_output": true, "timeout": 5}, "outputs": [
        {"name": "a"}, {"name": "b", "parameters": {"binary_data": false, "classification": 3}}]}"#;
    let Parsed { message, binary } = parsed(text, &[]).unwrap();
    assert!(binary.at(0) && !binary.at(1) && binary.at(2));
    assert_eq!(message.parameters.keys().collect::<Vec<_>>(), ["timeout"]);
    assert_eq!(message.outputs[1].parameters.keys().collect::<Vec<_>>(), ["classification"]);
    assert!(!parsed("{}", &[]).unwrap().binary.at(0));
}

/// Text, bytes behind it, and a part of the refusal. `@` stands for an input `x` of one FP32.
const MISTAKES: &[(&str, &[u8], &str)] = &[
    ("", &[], "malformed request: EOF while parsing a value at line 1 column 0"),
    ("[]", &[], "malformed request: expected object but found array"),
    ("{} {}", &[], "malformed request: trailing characters"),
    (r#"{"id": 7}"#, &[], "malformed request: expected string but found int"),
    (r#"{"inputs": {}}"#, &[], "malformed request: expected array but found object"),
    (r#"{"inputs": [], "inputs": []}"#, &[], "`inputs` comes twice"),
    ("{\"id\": \"\u{1}\"}", &[], "control character"),
    ("[@]", &[], "input `x`: has neither `data` nor `binary_data_size`"),
    (r#"[@, "data": [1], "data": [1]]"#, &[], "`data` comes twice"),
    (
        r#"[@, "data": [1], "parameters": {"binary_data_size": 4}]"#,
        &[0; 4],
        "input `x`: has both `data` and `binary_data_size`",
    ),
    (
        r#"[@, "parameters": {"binary_data_size": 4}]"#,
        &[0; 3],
        "input `x`: binary_data_size is 4, 3 bytes are left",
    ),
    (
        r#"[@, "parameters": {"binary_data_size": 4}]"#,
        &[0; 5],
        "1 bytes follow the last input with binary_data_size",
    ),
    (
        r#"[@, "parameters": {"binary_data_size": "4"}]"#,
        &[0; 4],
        "input `x`: parameter `binary_data_size`: expected an integer",
    ),
    (
        r#"[@, "parameters": {"binary_data_size": -4}]"#,
        &[0; 4],
        "input `x`: parameter `binary_data_size`: expected a number of at least 0",
    ),
    (
        r#"[@, "parameters": {"shared_memory_region": "r"}]"#,
        &[],
        "input `x`: parameter `shared_memory_region` is not served",
    ),
    (
        r#"["name": "x", "shape": [1], "datatype": "FLOAT", "data": [1]]"#,
        &[],
        "input `x`: unknown datatype \"FLOAT\"; known: BOOL",
    ),
    (
        r#"["name": "x", "shape": [-1], "datatype": "FP32", "data": [1]]"#,
        &[],
        "input `x`: dimension 0 is -1",
    ),
    (r#"["name": "x", "shape": [1.5]]"#, &[], "1.5 is no dimension"),
    (r#"["name": "x", "shape": [1], "data": [1]]"#, &[], "input `x`: has no `datatype`"),
    (r#"["name": "x", "datatype": "FP32", "data": [1]]"#, &[], "input `x`: has no `shape`"),
    (r#"{"inputs": [{}]}"#, &[], "inputs[0]: has no `name`"),
    (r#"{"outputs": [{}]}"#, &[], "outputs[0]: has no `name`"),
    (
        r#"["name": "x", "data": [1], "shape": [2], "datatype": "FP32"]"#,
        &[],
        "input `x`: shape [2] needs 2 elements, got 1",
    ),
    (r#"{"parameters": {"a": null}}"#, &[], "parameter `a`: expected a bool"),
    (r#"{"parameters": {"a": [1]}}"#, &[], "got a list"),
    (
        r#"{"parameters": {"binary_data_output": 1}}"#,
        &[],
        "request: parameter `binary_data_output`: expected a bool",
    ),
    (
        r#"{"outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}"#,
        &[],
        "output `y`: parameter `binary_data`: expected a bool",
    ),
];

#[test]
fn every_mistake_has_its_sentence() {
    for (text, bytes, expected) in MISTAKES {
        let text = text.replace('@', r#""name": "x", "shape": [1], "datatype": "FP32""#);
        let text = match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            Some(input) if !input.is_empty() => format!("{{\"inputs\": [{{{input}}}]}}"),
            _ => text,
        };
        let got = refusal(&text, bytes);
        assert!(got.contains(expected), "{text}: {got}");
    }
}

#[test]
fn counts_are_bounded() {
    let list = |count: usize, entry: &str| vec![entry; count].join(",");
    let output = r#"{"name": "y"}"#;
    let outputs = |count| format!(r#"{{"outputs": [{}]}}"#, list(count, output));
    assert_eq!(parsed(&outputs(MAX_TENSORS), &[]).unwrap().message.outputs.len(), MAX_TENSORS);
    assert_eq!(refusal(&outputs(MAX_TENSORS + 1), &[]), "request has more than 1024 outputs");
    let dims = list(MAX_DIMS + 1, "1");
    let shape = format!(r#"{{"inputs": [{{"name": "x", "shape": [{dims}]}}]}}"#);
    assert_eq!(refusal(&shape, &[]), "request has more than 32 dimensions");
    let parameters: Vec<String> = (0..=MAX_PARAMETERS).map(|key| format!("\"{key}\": 1")).collect();
    let text = format!("{{\"parameters\": {{{}}}}}", parameters.join(","));
    assert_eq!(refusal(&text, &[]), "request has more than 256 parameters");
}

#[test]
fn lists_together_are_bounded_by_what_they_amount_to() {
    let input =
        r#"{"name": "x", "shape": [10], "datatype": "FP64", "data": [0,0,0,0,0,0,0,0,0,0]}"#;
    let text = format!("{{\"inputs\": [{input}, {input}]}}");
    assert!(parse(text.as_bytes(), Bytes::new(), 160).is_ok());
    let refusal = parse(text.as_bytes(), Bytes::new(), 159).unwrap_err();
    let sentence = "input `x` with those before it is larger than the limit of 159 bytes";
    assert_eq!(refusal.parts(), (413, sentence));
    let absurd = r#"{"inputs": [{"name": "x", "shape": [4611686018427387904], "datatype": "FP64",
        "data": [0]}]}"#;
    assert_eq!(parse(absurd.as_bytes(), Bytes::new(), ROOM).unwrap_err().parts().0, 413);
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        drop(parse(&bytes, Bytes::new(), ROOM));
    }

    #[test]
    fn no_cut_or_changed_request_panics(
        at in 0_usize..150,
        byte in proptest::num::u8::ANY,
        length in 0_usize..150,
    ) {
        let text = r#"{"id":"1","inputs":[{"name":"x","shape":[2,1],"datatype":"FP32","parameters":{"binary_data_size":8}}],"outputs":[{"name":"y"}]}"#;
        let mut text = text.as_bytes().to_vec();
        if let Some(place) = text.get_mut(at) {
            *place = byte;
        }
        text.truncate(length);
        drop(parse(&text, Bytes::from_static(&[0; 8]), ROOM));
    }
}
