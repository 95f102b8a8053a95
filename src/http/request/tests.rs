//! Requests as clients write them, and each way in which they can be wrong.

use super::*;

fn parsed(json: &str) -> (ModelInferRequest, Wanted) {
    parse(json.as_bytes(), Bytes::new()).unwrap()
}

fn refusal(json: &str) -> String {
    parse(json.as_bytes(), Bytes::from_static(b"abcd")).unwrap_err().message
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// One input with that data.
fn input(datatype: &str, shape: &str, data: &str) -> String {
    format!(
        r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}"#
    )
}

#[test]
fn flat_or_nested_before_or_after_the_shape() {
    let all = [
        r#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2.5,-3e1,0.1]}]}"#,
        r#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2.5],[-3e1,0.1]]}]}"#,
        r#"{"inputs":[{"data":[[1,2.5],[-3e1,0.1]],"datatype":"FP32","shape":[2,2],"name":"x"}]}"#,
    ];
    for json in all {
        let (message, wanted) = parsed(json);
        assert_eq!(message.raw_input_contents[0], floats(&[1.0, 2.5, -30.0, 0.1]));
        assert_eq!(
            (message.inputs[0].name.as_str(), &message.inputs[0].shape[..]),
            ("x", &[2, 2][..])
        );
        assert_eq!(wanted, Wanted::default());
    }
}

#[test]
fn a_scalar_needs_no_list() {
    for data in ["16000", "[16000]", "[[16000]]"] {
        let (message, _) = parsed(&input("INT64", "[]", data));
        assert_eq!(message.raw_input_contents[0], 16000_i64.to_le_bytes()[..]);
    }
}

#[test]
fn what_is_no_number_has_the_words_of_python() {
    let (message, _) = parsed(&input("FP32", "[3]", "[NaN, Infinity, -Infinity]"));
    let raw = &message.raw_input_contents[0];
    assert!(f32::from_le_bytes(raw[..4].try_into().unwrap()).is_nan());
    assert_eq!(raw[4..], floats(&[f32::INFINITY, f32::NEG_INFINITY]));
}

#[test]
fn every_number_keeps_its_value() {
    let (message, _) = parsed(&input("UINT64", "[2]", "[18446744073709551615, 0]"));
    assert_eq!(message.raw_input_contents[0][..8], u64::MAX.to_le_bytes());
    let (message, _) = parsed(&input("INT64", "[1]", "[-9223372036854775808]"));
    assert_eq!(message.raw_input_contents[0], i64::MIN.to_le_bytes()[..]);
    let (message, _) = parsed(&input("BOOL", "[2]", "[true,false]"));
    assert_eq!(message.raw_input_contents[0][..], [1, 0]);
    let (message, _) = parsed(&input("BYTES", "[2]", r#"["", "\u00e4\n"]"#));
    assert_eq!(message.raw_input_contents[0][..], *b"\0\0\0\0\x03\0\0\0\xc3\xa4\n");
}

#[test]
fn binary_tensors_are_slices_of_the_body() {
    static BODY: [u8; 8] = [1, 0, 0, 0, 2, 0, 0, 0];
    let json = r#"{"id":"7","parameters":{"binary_data_output":true,"timeout":5},"inputs":[
        {"name":"a","datatype":"INT32","shape":[1],"parameters":{"binary_data_size":4}},
        {"name":"b","datatype":"INT32","shape":[1],"data":[9]},
        {"name":"c","datatype":"INT32","shape":[1],"parameters":{"binary_data_size":4}}],
        "outputs":[{"name":"y","parameters":{"binary_data":false,"classification":2}},{"name":"z"}]}"#;
    let (message, wanted) = parse(json.as_bytes(), Bytes::from_static(&BODY)).unwrap();
    assert_eq!(message.id, "7");
    assert_eq!(message.raw_input_contents[0].as_ptr(), BODY.as_ptr());
    assert_eq!(message.raw_input_contents[1][..], [9, 0, 0, 0]);
    assert_eq!(message.raw_input_contents[2].as_ptr(), BODY[4..].as_ptr());
    assert!(!wanted.is_binary("y") && wanted.is_binary("z"));
    let keys = |parameters: &Parameters| parameters.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&message.parameters), ["timeout"]);
    assert_eq!(keys(&message.outputs[0].parameters), ["classification"]);
    assert!(message.inputs.iter().all(|input| input.parameters.is_empty()));
}

#[test]
fn parameters_keep_their_types() {
    let json = r#"{"parameters":{"a":true,"b":-1,"c":18446744073709551615,"d":0.5,"e":"x"}}"#;
    let (message, _) = parsed(json);
    let choice = |key: &str| message.parameters[key].parameter_choice.clone().unwrap();
    assert_eq!(choice("a"), ParameterChoice::BoolParam(true));
    assert_eq!(choice("b"), ParameterChoice::Int64Param(-1));
    assert_eq!(choice("c"), ParameterChoice::Uint64Param(u64::MAX));
    assert_eq!(choice("d"), ParameterChoice::DoubleParam(0.5));
    assert_eq!(choice("e"), ParameterChoice::StringParam("x".into()));
}

#[test]
fn what_is_wrong_is_named() {
    let table = [
        ("", "not the JSON that is expected"),
        ("[]", "body: expected an object"),
        (r#"{"inputs":{}}"#, "inputs: expected a list"),
        (r#"{"inputs":[7]}"#, "inputs[0]: expected an object"),
        (r#"{"id":7}"#, "id: expected a text"),
        (r#"{"parameters":{"a":[1]}}"#, "parameters.a: expected true, false, a number or a text"),
        (r#"{"inputs":[{"name":"x","shape":["a"]}]}"#, "inputs[0].shape: expected whole numbers"),
        (r#"{"inputs":[{"name":"x"}]}"#, "input `x`: has neither data nor binary_data_size"),
        (
            r#"{"inputs":[{"name":"x","parameters":{"binary_data_size":5}}]}"#,
            "input `x`: binary_data_size is 5, 4 bytes are left",
        ),
        (r#"{"inputs":[]}"#, "4 bytes follow the last binary tensor"),
        (r#"{"id":"a"} tail"#, "not the JSON that is expected"),
    ];
    for (json, expected) in table {
        let got = refusal(json);
        assert!(got.starts_with(expected), "{json}: {got}");
    }
    let data = [
        ("FP32", "[2]", "[1]", "shape [2] has 2 elements, data has 1"),
        ("FP32", "[2]", "[1,2,3]", "data has more than the 2 elements of the shape"),
        ("INT8", "[1]", "[128]", "element 0: 128 is no INT8"),
        ("UINT8", "[1]", "[-1]", "element 0: -1 is no UINT8"),
        ("INT32", "[1]", "[1.5]", "element 0: 1.5 is no INT32"),
        ("INT32", "[1]", "[\"1\"]", "element 0: expected a number"),
        ("FP32", "[1]", "[null]", "element 0: expected a number"),
        ("BOOL", "[1]", "[1]", "element 0: expected true or false"),
        ("BYTES", "[1]", "[1]", "element 0: expected a text"),
        ("FP16", "[1]", "[1]", "FP16 is not read from JSON; send a binary tensor"),
        ("FP31", "[1]", "[1]", "unknown datatype \"FP31\""),
    ];
    for (datatype, shape, data, expected) in data {
        let got = refusal(&input(datatype, shape, data));
        assert_eq!(got, format!("input `x`: {expected}"));
    }
}

#[test]
fn nothing_that_is_nested_ends_the_server() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(refusal(&input("FP32", "[1]", &deep)).contains("nested deeper than 32"));
    for json in [format!(r#"{{"other":{deep}}}"#), format!(r#"{{"inputs":[{{"data":{deep}}}]}}"#)] {
        refusal(&json);
    }
}
