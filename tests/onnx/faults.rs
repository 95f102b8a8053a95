//! Values that make a real run fail, grow without end, or give other rows than went in: they harm
//! nobody who rides beside them.

use onnxd::pb::grpc_inference_service_client::GrpcInferenceServiceClient;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::harness::{End, RealServer, floats, generated, output, repository, request};
use crate::process::Process;

/// Eight requests meet in one run.
const TOGETHER: &str = "batching = \"fixed\"\nmax_batch_size = 8\nmax_queue_delay_us = 60000000\n";

/// Status of the guilty request; every other end is an answer.
fn guilty(ends: &[End], caller: usize) -> (Code, String) {
    for (other, end) in ends.iter().enumerate() {
        assert_eq!(end.is_err(), other == caller, "{other}: {end:?}");
    }
    let status = ends[caller].as_ref().unwrap_err();
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn an_index_out_of_range_fails_its_own_request_only() {
    let server = RealServer::of("gather_100", TOGETHER).await;
    let ask = |index: i64| {
        let bytes = index.to_le_bytes().to_vec();
        request("gather_100", vec![("indices", "INT64", &[1, 1], bytes)])
    };
    for place in [0, 5, 7] {
        let indices: Vec<i64> = (0..8).map(|i| if i == place { 100 } else { 90 + i }).collect();
        let place = usize::try_from(place).unwrap();
        let ends = server.together(indices.iter().map(|index| ask(*index)).collect()).await;
        let (code, words) = guilty(&ends, place);
        assert_eq!(code, Code::InvalidArgument);
        // The runtime's own words stay in the log.
        assert_eq!(words, "the model refused the values of this request");
        for (index, end) in indices.iter().zip(&ends).filter(|(_, end)| end.is_ok()) {
            // Row i of the table begins with 10 i.
            let first = f32::from(u16::try_from(*index).unwrap()) * 10.0;
            let row = [first, first + 1.0, first + 2.0, first + 3.0];
            assert_eq!(output(end.as_ref().unwrap(), 0), row);
        }
    }
    // All riders failed in the same way: each is told so by itself.
    for end in server.together((0..8).map(|caller| ask(1000 + caller)).collect()).await {
        assert!(end.is_err());
    }
    // The server is as good as before. A negative index counts from the end.
    for end in server.together((1..=8).map(|back| ask(-back)).collect()).await {
        assert!(output(&end.unwrap(), 0)[0] >= 920.0);
    }
    server.finish().await;
}

#[tokio::test]
async fn a_division_by_zero_fails_its_own_request_only() {
    let server = RealServer::of("int_divide", TOGETHER).await;
    let ask = |a: i32, b: i32| {
        let (a, b) = (a.to_le_bytes().to_vec(), b.to_le_bytes().to_vec());
        request("int_divide", vec![("a", "INT32", &[1, 1], a), ("b", "INT32", &[1, 1], b)])
    };
    let divisors = [1, 2, -3, 4, 0, 6, -7, 8];
    let ends = server.together(divisors.iter().map(|b| ask(840, *b)).collect()).await;
    let (code, words) = guilty(&ends, 4);
    // The runtime has no code of its own for this fault, so it counts as the server's.
    assert_eq!(code, Code::Internal);
    assert!(!words.contains("zero"), "{words}");
    for (b, end) in divisors.iter().zip(&ends).filter(|(_, end)| end.is_ok()) {
        let raw = &end.as_ref().unwrap().raw_output_contents[0];
        assert_eq!(raw[..], (840 / b).to_le_bytes());
    }
    server.finish().await;
}

#[tokio::test]
async fn rows_that_depend_on_values_are_never_cut_wrongly() {
    let mut server = RealServer::of("value_rows", TOGETHER).await;
    // A row whose first value is -1 or less is dropped by the model.
    let ask = |heads: &[f32]| {
        let rows: Vec<f32> = heads.iter().flat_map(|head| [*head, 1.0, 2.0, 3.0]).collect();
        let shape = [i64::try_from(heads.len()).unwrap(), 4];
        request("value_rows", vec![("x", "FP32", &shape, floats(&rows))])
    };
    let check = |heads: &[f32], end: &End| {
        let answer = end.as_ref().unwrap();
        let kept = heads.iter().filter(|head| **head > -1.0);
        let rows: Vec<f32> = kept.flat_map(|head| [*head, 1.0, 2.0, 3.0]).collect();
        assert_eq!(output(answer, 0), rows);
        assert_eq!(answer.outputs[0].shape, [i64::try_from(rows.len() / 4).unwrap(), 4]);
    };
    assert_eq!(server.served("value_rows").batcher.policy().max_rows, 8);
    // While every row is kept, requests share runs.
    let kept = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]];
    let ends = server.together(kept.iter().map(|heads| ask(heads)).collect()).await;
    kept.iter().zip(&ends).for_each(|(heads, end)| check(heads, end));
    assert_eq!(server.statistics("value_rows").await.execution_count, 1);

    let mixed: [&[f32]; 5] = [&[1.0, 2.0], &[-5.0, 4.0], &[-6.0], &[7.0], &[-1.0, -2.0]];
    let ends = server.together(mixed.iter().map(|heads| ask(heads)).collect()).await;
    mixed.iter().zip(&ends).for_each(|(heads, end)| check(heads, end));
    let before = server.statistics("value_rows").await.execution_count;

    // From then on nobody shares a run, whatever the values.
    assert_eq!(server.served("value_rows").batcher.policy().max_rows, 1);
    let ends = server.together(kept.iter().map(|heads| ask(heads)).collect()).await;
    kept.iter().zip(&ends).for_each(|(heads, end)| check(heads, end));
    assert_eq!(server.statistics("value_rows").await.execution_count, before + 4);
    server.finish().await;
}

/// Memory that this process holds, in KiB.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_size_beyond_memory_fails_its_own_request_only() {
    let server = RealServer::of("expand", TOGETHER).await;
    let ask = |size: i64| {
        request("expand", vec![("size", "INT64", &[1, 1], size.to_le_bytes().to_vec())])
    };
    let before = resident_kib();
    // Petabytes, and more bytes than 64 bits can count.
    for huge in [1 << 50, 1 << 62] {
        let sizes = [3, 3, 3, huge, 3, 3, 3, 3];
        let ends = server.together(sizes.iter().map(|size| ask(*size)).collect()).await;
        let (code, words) = guilty(&ends, 3);
        assert_eq!(code, Code::Internal, "{words}");
        for end in ends.iter().filter_map(|end| end.as_ref().ok()) {
            assert_eq!((&end.outputs[0].shape[..], output(end, 0)), (&[1, 3][..], vec![1.0; 3]));
        }
    }
    // Other tests run in this process; none holds this much.
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 256 << 10, "{grown} KiB more than before");
    server.finish().await;
}

/// The runtime's words on an index name the index, which is a value of the request.
#[tokio::test(flavor = "multi_thread")]
async fn values_that_fail_do_not_reach_the_log() {
    let models = repository(&[(generated().join("gather_100").as_path(), "")]);
    let process = Process::start(models.path(), &["--log", "debug"]);
    let endpoint = Endpoint::from_shared(format!("http://{}", process.grpc)).unwrap();
    let mut client = GrpcInferenceServiceClient::new(endpoint.connect().await.unwrap());
    let bytes = 987_654_321_i64.to_le_bytes().to_vec();
    let message = request("gather_100", vec![("indices", "INT64", &[1, 1], bytes)]);
    let status = client.model_infer(message).await.unwrap_err();
    assert!(!status.message().contains("987654321"), "{}", status.message());
    drop(client);
    process.terminate();
    let (code, log) = process.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("run failed") && log.contains("Gather"), "{log}");
    assert!(!log.contains("987654321"), "{log}");
}

/// A first signal waits for what was accepted, a second does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_server_at_once_and_a_short_grace_is_told() {
    for (grace, signals, wanted) in [("60000", 2, 5), ("50", 1, 4)] {
        let models = repository(&[(generated().join("loop_busy").as_path(), "")]);
        let process = Process::start(models.path(), &["--drain-grace-ms", grace]);
        let endpoint = Endpoint::from_shared(format!("http://{}", process.grpc)).unwrap();
        let mut client = GrpcInferenceServiceClient::new(endpoint.connect().await.unwrap());
        let forever = 1_000_000_000_i64.to_le_bytes().to_vec();
        let inputs = vec![
            ("x", "FP32", &[1, 1][..], floats(&[1.0])),
            ("iterations", "INT64", &[][..], forever),
        ];
        let call = tokio::spawn(async move {
            client.model_infer(request("loop_busy", inputs)).await.map(drop)
        });
        process.until("/metrics", "onnxd_running{model=\"loop_busy\",version=\"1\"} 1");
        process.terminate();
        if signals == 2 {
            process.until("/readyz", "HTTP/1.1 503");
            process.terminate();
        }
        let (code, log) = process.ended();
        assert_eq!(code, Some(wanted), "{log}");
        assert!(call.await.unwrap().is_err());
    }
}
