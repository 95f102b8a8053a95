"""`onnxd infer`, against the packages that the models come from."""

import re
import subprocess
import threading

import numpy as np
import pytest

import harness
import reference
from certificates import Authority


def infer(server, *words):
    return harness.onnxd("infer", *words, "--addr", server.grpc)


def told(server, *words):
    done = infer(server, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(server, *words, code=1):
    done = infer(server, *words)
    assert done.returncode == code and done.stdout == "", done
    return done.stderr


# --- magika --------------------------------------------------------------------------------------


def label(server, path):
    answer = told(server, "magika", "--file", path).rstrip("\n")
    start = f"{path}: "
    assert answer.startswith(start)
    found = re.fullmatch(r"(\S+) \((.*)\)", answer[len(start) :])
    assert found, answer
    return found.groups()


def test_labels_are_the_package_s(server):
    files = reference.real_files(240)[::6]
    assert len(files) == 40
    found = set()
    for path in files:
        expected = reference.package().identify_path(path).prediction
        got, words = label(server, path)
        assert got == str(expected.output.label), (path, words)
        # The package lets ONNX Runtime choose its threads.
        percent = float(re.search(r"([\d.]+) %", words).group(1))
        assert abs(percent - 100 * expected.score) < 0.2, path
        found.add(got)
    assert len(found) > 10, found


ODD = {
    "empty": b"",
    "seven": b"\xff" * 7,
    "seven of text": b"seven 7",
    "little after spaces": b" " * 7 + b"a",
    "half a character": b" " * 4095 + b"\xc3\xa4",
    "only white space": b"\n" * 9000,
    "much white space": b"\n" * 4000 + b"hello world, this is text",
    "rare white space": b" \x0b\x0c abc def ghi  \x0b\n",
    "weak json": b'{"name": "onnxd", "rows": [1, 2, 3]}\n',
    "noise": np.random.default_rng(1).bytes(20000),
    "random words": b"qwe zxc asd " * 3,
    "a block": b"x = 1\n" * 682 + b"y=22",
    "more than a block": b"x = 1\n" * 683,
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files(server, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(ODD[name])
    expected = reference.package().identify_path(path).prediction
    got, words = label(server, path)
    assert got == str(expected.output.label), words
    if expected.score == 1.0 and str(expected.dl.label) == "undefined":
        assert "model" in words
    elif str(expected.output.label) != str(expected.dl.label):
        assert words.endswith("%")


def test_a_file_that_needs_no_model_needs_no_server(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    done = harness.onnxd("infer", "magika", "--file", tmp_path / "x", "--addr", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/x: empty (the model isn't needed)\n")


# --- silero --------------------------------------------------------------------------------------


def test_speech(server):
    path = harness.MODELS / "silero-vad" / "sample.wav"
    lines = told(server, "silero-vad", "--file", path).splitlines()
    assert lines[0] == f"{path}: 6.00 s, 188 windows of 32 ms"
    segments = [re.fullmatch(r"speech  ([\d.]+) – ([\d.]+) s", line) for line in lines[1:3]]
    (one, two), (three, four) = [tuple(map(float, each.groups())) for each in segments]
    # The windows around the two sentences, as the model's page tells them, and 30 ms beside.
    second = lambda window: window * 0.032
    assert second(16) - 0.04 < one < second(18) and second(83) < two < second(86) + 0.04
    assert second(113) - 0.04 < three < second(120) and second(182) < four < second(184) + 0.04

    steps = reference.listen(
        reference.session("silero-vad"), reference.windows(reference.sample())
    )
    probabilities = [output.item() for output, _ in steps]
    columns = [
        max(probabilities[at * 188 // 80 : (at + 1) * 188 // 80]) for at in range(80)
    ]
    levels = "▁▂▃▄▅▆▇█"
    assert lines[3] == ""
    assert lines[4] == "".join(levels[min(7, int(value * 8))] for value in columns)
    assert lines[5].startswith("╵0 s") and "╵5 s" in lines[5] and len(lines[5]) <= 80


def test_a_stream_is_one_call(server):
    before = server.metric("onnxd_requests_total", model="silero-vad", outcome="ok")
    told(server, "silero-vad", "--file", harness.MODELS / "silero-vad" / "sample.wav")
    after = lambda: server.metric("onnxd_requests_total", model="silero-vad", outcome="ok")
    harness.wait_until(lambda: after() == before + 188, "188 messages")


def test_wrong_recordings(server, tmp_path):
    import wave

    path = tmp_path / "x.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 44100, 0, "NONE", ""))
        file.writeframes(bytes(400))
    text = refused(server, "silero-vad", "--file", path, code=2)
    assert "16000 Hz mono" in text and "44100 Hz stereo" in text
    path.write_text("no recording")
    assert "WAV" in refused(server, "silero-vad", "--file", path, code=2)


# --- any model -----------------------------------------------------------------------------------


def test_the_signature_and_its_example(server):
    text = told(server, "two_inputs")
    assert re.search(r"input +a +FP32 +\[-1, 4\]", text)
    assert re.search(r"output +diff +FP32 +\[-1, 4\]", text)
    example = text.rstrip().splitlines()[-1].split()
    assert example[:3] == ["onnxd", "infer", "two_inputs"]
    done = harness.onnxd(*example[1:])
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "sum FP32 [1, 4]\n  2.0 2.0 2.0 2.0\ndiff FP32 [1, 4]\n  0.0 0.0 0.0 0.0\n"
    )


def test_values(server):
    assert told(server, "add_i64", "--input", "a[2,2]=1,2,3,4", "--input", "b[2,2]=10") == (
        "y INT64 [2, 2]\n  11 12\n  13 14\n"
    )
    assert told(server, "mlp_tiny", "--input", "x=0").startswith("y FP32 [1, 10]\n")
    assert told(server, "scalar_f32", "--input", "x=2.5") == "y FP32 []\n  2.5\n"
    assert told(server, "identity_string", "--input", "x[1,2]=a,ö") == (
        'y BYTES [1, 2]\n  "a" "ö"\n'
    )
    assert told(server, "identity_bool", "--input", "x=true") == "y BOOL [1, 1]\n  true\n"
    for model, kind in [("f16", "FP16"), ("bf16", "BF16"), ("f64", "FP64")]:
        got = told(server, f"identity_{model}", "--input", "x=-0.5")
        assert got == f"y {kind} [1, 1]\n  -0.5\n"
    assert told(server, "two_versions", "--input", "x=3", "--model-version", "1").endswith(" 3.0\n")
    assert told(server, "two_versions", "--input", "x=3").endswith(" 6.0\n")


def test_mistakes(server):
    text = refused(server, "nosuch")
    assert text == "onnxd: NOT_FOUND: model `nosuch` is not in the repository\n"
    text = refused(server, "two_inputs", "--input", "a=1")
    assert "INVALID_ARGUMENT" in text and "`b` is missing" in text
    text = refused(server, "two_inputs", "--input", "a=1,2,3", code=2)
    assert "multiple of 4" in text and "3" in text
    text = refused(server, "gather_100", "--input", "indices=100")
    assert "INVALID_ARGUMENT" in text
    text = refused(server, "two_inputs", "--file", "README.md", code=2)
    assert "magika" in text
    forever = ("loop_busy", "--input", "x=1", "--input", "iterations=1000000000")
    assert "DEADLINE_EXCEEDED" in refused(server, *forever, "--timeout-ms", "200")
    done = harness.onnxd("infer", "two_inputs", "--addr", "127.0.0.1:1")
    assert done.returncode == 1 and "127.0.0.1:1" in done.stderr and "refused" in done.stderr
    done = harness.onnxd("infer", "two_inputs", "--addr", "no address")
    assert done.returncode == 2 and "HOST:PORT" in done.stderr


def test_a_reader_that_leaves_is_no_fault():
    for words in (["doctor"], ["token", "ci"]):
        process = subprocess.Popen(
            [harness.BINARY, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        process.stdout.close()
        told = process.stderr.read()
        process.stderr.close()
        assert process.wait(harness.PATIENCE) != 101 and "panicked" not in told, (words, told)


def test_a_server_that_speaks_tls(tmp_path):
    authority, stranger = Authority(), Authority()
    authority.write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(authority.pem())
    (tmp_path / "stranger.pem").write_bytes(stranger.pem())
    harness.copy_models(tmp_path / "models", "identity_f32")
    flags = ["--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem"]
    server = harness.Server(tmp_path / "models", *map(str, flags))
    try:
        words = ["identity_f32", "--input", "x[1,2]=1,2", "--tls-name", "localhost", "--tls-ca"]
        assert told(server, *words, tmp_path / "ca.pem") == "y FP32 [1, 2]\n  1.0 2.0\n"
        refused(server, *words, tmp_path / "stranger.pem")
        refused(server, *words, tmp_path / "missing.pem", code=2)
        # Without it the server takes no word.
        refused(server, "identity_f32")
    finally:
        server.stop()
