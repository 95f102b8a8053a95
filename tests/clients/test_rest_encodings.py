"""Compressed bodies over REST, with NVIDIA's HTTP client and with nothing but an HTTP library."""

import gzip
import http.client
import json
import zlib

import numpy as np
import pytest
import tritonclient.http as triton

import harness
from test_rest import given, wanted
from test_tritonclient import same


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.http) as client:
        yield client


class Bare:
    """HTTP without a client of the protocol in between."""

    def __init__(self, server):
        self.connection = http.client.HTTPConnection(server.http, timeout=harness.PATIENCE)

    def post(self, path, body, **headers):
        headers = {key.replace("_", "-"): value for key, value in headers.items()}
        self.connection.request("POST", path, body, headers)
        answer = self.connection.getresponse()
        return answer, answer.read()


@pytest.fixture
def bare(server):
    bare = Bare(server)
    yield bare
    bare.connection.close()


def body(values):
    tensor = {"name": "x", "shape": [1, len(values)], "datatype": "FP32", "data": values}
    return json.dumps({"inputs": [tensor]})


@pytest.mark.parametrize("goes", [None, "gzip", "deflate"])
@pytest.mark.parametrize("comes", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_bodies_may_be_compressed_both_ways(client, goes, comes, binary):
    x = np.tile(np.arange(500, dtype=np.float32), (3, 1))
    answer = client.infer(
        "identity_f32",
        [given("x", x, binary)],
        outputs=wanted("y", binary),
        request_compression_algorithm=goes,
        response_compression_algorithm=comes,
    )
    assert same(answer.as_numpy("y"), x)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_long_answers_are_compressed_and_errors_are_not(bare, encoding):
    opened = {"gzip": gzip.decompress, "deflate": zlib.decompress}[encoding]
    path = "/v2/models/identity_f32/infer"
    answer, content = bare.post(path, body([0] * 3000), Accept_Encoding=encoding)
    assert answer.headers["Content-Encoding"] == encoding and len(content) < 3000
    assert json.loads(opened(content))["outputs"][0]["data"] == [0] * 3000
    answer, content = bare.post(path, body([1]), Accept_Encoding=encoding)
    assert answer.headers["Content-Encoding"] is None and json.loads(content)["outputs"]
    path = f"/v2/models/nosuch{'x' * 100}/infer"
    answer, content = bare.post(path, body([1]), Accept_Encoding=encoding)
    assert (answer.status, answer.headers["Content-Encoding"]) == (404, None)
    assert "nosuch" in json.loads(content)["error"]


def test_what_counts_is_the_size_after_decompression(bare):
    bomb = gzip.compress(b" " * (65 << 20))
    assert len(bomb) < 1 << 20
    answer, content = bare.post("/v2/models/identity_f32/infer", bomb, Content_Encoding="gzip")
    assert answer.status == 413
    assert "larger than the limit of 67108864 bytes" in json.loads(content)["error"]


def test_an_unknown_encoding_is_refused(bare):
    answer, content = bare.post("/v2/models/identity_f32/infer", b"...", Content_Encoding="br")
    assert answer.status == 415 and "`br`" in json.loads(content)["error"]
