"""grpcurl and grpc-health-probe, with nothing but the server's address."""

import json
import subprocess
import threading

import pytest

import harness

SERVICE = "inference.GRPCInferenceService"


def grpcurl(server, *words, body=None):
    data = [] if body is None else ["-d", json.dumps(body)]
    return harness.run(harness.TOOLS / "grpcurl", "-plaintext", *data, server.grpc, *words)


def answer(server, method, body):
    """grpcurl has its flags before the address and the method after it."""
    done = grpcurl(server, method, body=body)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def probe(server, *words):
    return harness.run(harness.TOOLS / "grpc-health-probe", f"-addr={server.grpc}", *words)


def test_list_and_describe(server):
    listed = grpcurl(server, "list").stdout.split()
    assert {SERVICE, "grpc.health.v1.Health"} <= set(listed)
    methods = grpcurl(server, "list", SERVICE).stdout.split()
    assert f"{SERVICE}.ModelInfer" in methods and f"{SERVICE}.ModelStreamInfer" in methods
    described = grpcurl(server, "describe", f"{SERVICE}.ModelInfer").stdout
    assert ".inference.ModelInferRequest" in described
    described = grpcurl(server, "describe", "inference.ModelInferRequest").stdout
    assert "raw_input_contents" in described


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_both_versions_of_reflection(channel, version):
    method = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    list_services, by_symbol = b"\x3a\x01*", b"\x22" + bytes([len(SERVICE)]) + SERVICE.encode()
    call = channel.stream_stream(method)
    first, second = call(iter([list_services, by_symbol]), timeout=harness.PATIENCE)
    assert SERVICE.encode() in first and b"grpc.health.v1.Health" in first
    assert b"ModelStreamInfer" in second


def test_numbers_in_numbers_out(server):
    body = {
        "model_name": "identity_f32",
        "id": "by hand",
        "inputs": [
            {
                "name": "x",
                "datatype": "FP32",
                "shape": [1, 3],
                "contents": {"fp32_contents": [1.5, -2, 1e10]},
            }
        ],
    }
    got = answer(server, f"{SERVICE}/ModelInfer", body)
    assert got["id"] == "by hand" and got["modelName"] == "identity_f32"
    (output,) = got["outputs"]
    assert output["contents"]["fp32Contents"] == [1.5, -2, 1e10]
    assert output["shape"] == ["1", "3"] and "rawOutputContents" not in got


def test_a_stream_by_hand(server):
    def body(model):
        contents = {"fp32_contents": [7]}
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "contents": contents}
        return json.dumps({"model_name": model, "inputs": [tensor]})

    messages = body("identity_f32") + body("nosuch") + body("two_versions")
    done = harness.run(
        harness.TOOLS / "grpcurl",
        *("-plaintext", "-d", messages, server.grpc, f"{SERVICE}/ModelStreamInfer"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("inferResponse") == 3
    assert done.stdout.count("errorMessage") == 1 and "nosuch" in done.stdout


def test_errors_are_told(server):
    done = grpcurl(server, f"{SERVICE}/ModelMetadata", body={"name": "nosuch"})
    assert done.returncode != 0
    assert "NotFound" in done.stderr and "`nosuch`" in done.stderr
    assert grpcurl(server, "describe", "no.such.Thing").returncode != 0
    assert grpcurl(server, f"{SERVICE}/Nothing", body={}).returncode != 0


def test_health_by_hand(server):
    method = "grpc.health.v1.Health/Check"
    for service in ("", "magika", SERVICE):
        assert answer(server, method, {"service": service}) == {"status": "SERVING"}
    done = grpcurl(server, method, body={"service": "nosuch"})
    assert done.returncode != 0 and "NotFound" in done.stderr


@pytest.mark.parametrize("service, status", [("", "SERVING"), ("nosuch", "SERVICE_UNKNOWN")])
def test_health_is_watched(server, service, status):
    command = [harness.TOOLS / "grpcurl", "-plaintext", "-d", json.dumps({"service": service})]
    watching = subprocess.Popen(
        [*map(str, command), server.grpc, "grpc.health.v1.Health/Watch"],
        stdout=subprocess.PIPE,
        text=True,
    )
    killer = threading.Timer(harness.PATIENCE, watching.kill)
    killer.start()
    try:
        lines = [watching.stdout.readline() for _ in range(3)]
        assert json.loads("".join(lines)) == {"status": status}
        # It stays open for what comes.
        assert watching.poll() is None
    finally:
        killer.cancel()
        watching.kill()
        watching.communicate()


def test_health_probe(server):
    for service in ("", "magika", "silero-vad"):
        done = probe(server, f"-service={service}")
        assert done.returncode == 0, done.stderr
        assert "SERVING" in done.stdout + done.stderr
    assert probe(server, "-service=nosuch").returncode != 0


def test_ghz_loads_the_server_without_an_error(server):
    body = {
        "model_name": "identity_f32",
        "inputs": [
            {
                "name": "x",
                "datatype": "FP32",
                "shape": [1, 3],
                "contents": {"fp32_contents": [1.5, -2, 1e10]},
            }
        ],
    }
    call = ["--insecure", "--call", f"{SERVICE}/ModelInfer", "--data", json.dumps(body)]
    load = ["--total", "500", "--concurrency", "8", "--connections", "2", "--format", "json"]
    done = harness.run(harness.TOOLS / "ghz", *call, *load, server.grpc)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["statusCodeDistribution"] == {"OK": 500}
