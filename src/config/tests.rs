//! Defaults resolve, mistakes are all reported, files are read strictly.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::model::{Batching, CacheScope, Provider};
use super::{Config, ModelConfig, Origin, read_file, settings};
use crate::model::axes::AxisOverride;
use crate::model::ragged::{PadRule, RaggedRules};
use crate::repository::version_policy::VersionPolicy;

fn resolve(pairs: &[(&str, &str)]) -> Result<Config, super::ConfigErrors> {
    let given: BTreeMap<_, _> = pairs.iter().copied().collect();
    Config::resolve(|key| given.get(key).map(|text| ((*text).to_owned(), Origin::Flag)))
}

#[test]
fn every_default_is_right() {
    let config = resolve(&[]).unwrap();
    assert_eq!(config.grpc_addr.to_string(), "127.0.0.1:8001");
    assert!(config.request_memory_bytes > 1 << 20);
    assert_eq!(config.model.providers, [Provider::Cpu]);
    assert_eq!(config.model.batching, Batching::Auto);
    assert_eq!((config.model.response_cache_bytes, config.model.coalesce), (0, false));
}

#[test]
fn others_than_this_host_get_no_clear_text_unless_it_is_wanted() {
    let [grpc, http] = [("grpc_addr", "0.0.0.0:1"), ("http_addr", "[::]:2")];
    let errors = resolve(&[grpc, http]).unwrap_err().to_string();
    let wanted = "is not a loopback address and would be served in clear text: \
                  give tls_cert and tls_key, or say clear_text = anywhere";
    assert_eq!(
        errors,
        format!("grpc_addr (flag): 0.0.0.0:1 {wanted}\nhttp_addr (flag): [::]:2 {wanted}")
    );
    resolve(&[grpc, http, ("clear_text", "anywhere")]).unwrap();
    resolve(&[grpc, http, ("tls_cert", "a"), ("tls_key", "b")]).unwrap();
    let admin = ("admin_addr", "0.0.0.0:3");
    resolve(&[("grpc_addr", "[::1]:1"), admin]).unwrap();
    for other in [("model_control", "explicit"), ("access_file", "a")] {
        let errors = resolve(&[admin, other]).unwrap_err().to_string();
        assert!(errors.starts_with("admin_addr (flag): 0.0.0.0:3 is not"), "{errors}");
        resolve(&[admin, other, ("clear_text", "anywhere")]).unwrap();
    }
}

#[test]
fn all_mistakes_at_once_with_their_origin() {
    let errors = resolve(&[("grpc_addr", "here"), ("instances", "0"), ("providers", "cpu,gpu")]);
    assert_eq!(
        errors.unwrap_err().to_string(),
        "instances (flag): expected a whole number of at least 1, got \"0\"\n\
         providers (flag): expected one of cpu, cuda, tensorrt, got \"gpu\"\n\
         grpc_addr (flag): expected HOST:PORT, got \"here\""
    );
}

#[test]
fn server_file_is_read_strictly() {
    let read = read_file("grpc_addr = \"0.0.0.0:9000\"\nproviders = [\"cuda\", \"cpu\"]").unwrap();
    assert_eq!(read[1], ("providers".to_owned(), "cuda,cpu".to_owned()));
    let errors = read_file("grpc_adr = 1\nlog = { a = 1 }").unwrap_err().to_string();
    assert!(errors.contains("grpc_adr: unknown setting"), "{errors}");
    assert!(errors.contains("log: expected"), "{errors}");
}

#[test]
fn model_file_lies_over_the_servers_defaults() {
    let defaults = resolve(&[("max_queue_jobs", "7")]).unwrap().model;
    let text = r#"
        batching = "fixed"
        max_batch_size = 16
        max_queue_delay_us = 250
        response_cache_bytes = 1048576
        coalesce = true
        cache_scope = "tenant"
        providers = ["cuda", "cpu"]
        version_policy = { specific = [1, 3] }
        [provider_options.cuda]
        gpu_mem_limit = 1073741824
        [inputs.state]
        batch_axis = 1
        example_shape = [2, 1, 128]
        [inputs.sr]
        shared = true
    "#;
    let config = ModelConfig::parse(text, &defaults).unwrap();
    assert_eq!(config.batching, Batching::Fixed);
    assert_eq!(config.max_queue_delay, Duration::from_micros(250));
    assert_eq!(config.max_queue_jobs, NonZeroUsize::new(7));
    assert_eq!((config.response_cache_bytes, config.coalesce), (1 << 20, true));
    assert_eq!(config.cache_scope, CacheScope::Tenant);
    assert_eq!(config.provider_options[&Provider::Cuda]["gpu_mem_limit"], "1073741824");
    assert_eq!(config.axes["state"], AxisOverride::Axis(1));
    assert_eq!(config.axes["sr"], AxisOverride::Shared);
    assert_eq!(config.examples["state"], [2, 1, 128]);
    assert!(
        matches!(config.version_policy, VersionPolicy::Specific(versions) if versions.len() == 2)
    );
}

#[test]
fn model_file_mistakes_name_their_keys() {
    let defaults = resolve(&[]).unwrap().model;
    let text = "batchin = \"auto\"\nversion_policy = 3\n[inputs.x]\nbatch_axis = -1\n";
    let errors = ModelConfig::parse(text, &defaults).unwrap_err().to_string();
    for part in
        ["batchin: unknown setting", "version_policy: expected", "inputs.x.batch_axis: expected"]
    {
        assert!(errors.contains(part), "{errors}");
    }
}

#[test]
fn model_file_says_how_rows_of_different_length_are_padded() {
    let defaults = resolve(&[]).unwrap().model;
    let text = r#"
        [inputs.ids]
        pad = { axis = 1, value = 101 }
        example_shape = [1, 64]
        [inputs.mask]
        pad = { axis = 1 }
        example_value = 1
        [inputs.bias.pad]
        axis = 2
        value = -inf
        [outputs.scores]
        cut = { axis = 1 }
        labels = "labels.txt"
    "#;
    let config = ModelConfig::parse(text, &defaults).unwrap();
    let pad = |name: &str, axis, value: Option<&str>| {
        (name.to_owned(), PadRule { axis, value: value.map(str::to_owned) })
    };
    let pads = [pad("ids", 1, Some("101")), pad("mask", 1, None), pad("bias", 2, Some("-inf"))];
    let rules = RaggedRules { pads: pads.into(), cuts: [("scores".to_owned(), 1)].into() };
    assert_eq!(config.ragged, rules);
    assert_eq!(config.example_values["mask"], "1");
    assert_eq!(defaults.ragged, RaggedRules::default());
}

#[test]
fn padding_mistakes_name_their_keys() {
    let defaults = resolve(&[]).unwrap().model;
    let text = r#"
        [inputs.a]
        pad = 1
        [inputs.b]
        pad = { axis = -1 }
        [inputs.c]
        pad = { value = 0 }
        [inputs.d]
        pad = { axis = 1, values = 0 }
        [inputs.e]
        pad = { axis = 1, value = [0] }
        example_value = [1]
        [inputs.f]
        cut = { axis = 1 }
        [outputs.g]
        pad = { axis = 1 }
        [outputs.h]
        cut = { axis = 1, value = 0 }
        [outputs.i]
        cut = { axis = "1" }
        example_value = 1
    "#;
    let errors = ModelConfig::parse(text, &defaults).unwrap_err().to_string();
    let mut keys: Vec<&str> =
        errors.lines().map(|line| line.split(": expected").next().unwrap()).collect();
    keys.sort_unstable();
    let expected = [
        "inputs.a.pad",
        "inputs.b.pad",
        "inputs.c.pad",
        "inputs.d.pad",
        "inputs.e.example_value",
        "inputs.e.pad",
        "inputs.f.cut",
        "outputs.g.pad",
        "outputs.h.cut",
        "outputs.i.cut",
        "outputs.i.example_value",
    ];
    assert_eq!(keys, expected, "{errors}");
}

#[test]
fn settings_have_distinct_keys() {
    let mut keys: Vec<_> =
        settings::SERVER.iter().chain(settings::MODEL).map(|setting| setting.key).collect();
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count);
}

#[test]
fn tls_is_whole_or_not_there_and_never_less_than_was_asked_for() {
    let (cert, key, ca) = (("tls_cert", "c"), ("tls_key", "k"), ("tls_client_ca", "a"));
    let required = ("tls_client_auth", "required");
    let optional = ("tls_client_auth", "optional");
    let cases: [(&[(&str, &str)], &str); 7] = [
        (&[cert], "tls_cert (flag): has a meaning only with tls_key"),
        (&[key], "tls_key (flag): has a meaning only with tls_cert"),
        (&[ca], "tls_client_ca (flag): has a meaning only with tls_cert"),
        (&[required], "tls_client_auth (flag): has a meaning only with tls_cert"),
        (&[optional], "tls_client_auth (flag): has a meaning only with tls_cert"),
        (&[cert, key, required], "tls_client_auth (flag): has a meaning only with tls_client_ca"),
        (&[cert, key, optional], "tls_client_auth (flag): has a meaning only with tls_client_ca"),
    ];
    for (given, wanted) in cases {
        assert_eq!(resolve(given).unwrap_err().to_string(), wanted, "{given:?}");
    }
    assert!(resolve(&[("tls_client_auth", "off")]).unwrap().tls.is_none());
    let auth = |given: &[(&str, &str)]| resolve(given).unwrap().tls.unwrap().client_auth;
    assert_eq!(auth(&[cert, key]), super::ClientAuth::Off);
    assert_eq!(auth(&[cert, key, ca]), super::ClientAuth::Required);
    assert_eq!(auth(&[cert, key, ca, optional]), super::ClientAuth::Optional);
}

#[test]
fn traces_go_to_a_collector_or_nowhere() {
    assert_eq!(resolve(&[("trace_sample_ratio", "0.25")]).unwrap().traces, None);
    let collector = ("otlp_endpoint", "http://collector:4317");
    let traces = resolve(&[collector, ("trace_sample_ratio", "0.25")]).unwrap().traces.unwrap();
    assert_eq!((traces.endpoint.as_str(), traces.queue_spans), ("http://collector:4317", 8192));
    assert!((traces.sample_ratio - 0.25).abs() < f64::EPSILON);
    for wrong in ["collector:4317", "https://collector:4317", "http://c:1/v1/traces", "http://"] {
        let errors = resolve(&[("otlp_endpoint", wrong)]).unwrap_err().to_string();
        assert!(errors.contains("otlp_endpoint (flag): expected http://HOST:PORT"), "{errors}");
    }
    for wrong in ["-0.1", "1.1", "NaN", "all"] {
        let errors = resolve(&[collector, ("trace_sample_ratio", wrong)]).unwrap_err().to_string();
        assert!(errors.contains("expected a number from 0 to 1"), "{errors}");
    }
}

#[test]
fn metrics_have_other_names_only_where_they_are_wanted() {
    let names = |settings: &[_]| resolve(settings).unwrap().metrics_compat;
    assert_eq!(names(&[]), []);
    assert_eq!(names(&[("metrics_compat", "triton")]), [super::OtherNames::Triton]);
    assert!(resolve(&[("metrics_compat", "nvidia")]).is_err());
}
