"""Real files through a real model: what the server answers is what ONNX Runtime answers."""

import asyncio
import threading

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

import harness
import reference

FILES = 240
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def rows():
    rows = np.stack([reference.features(path) for path in reference.real_files(FILES)])
    assert rows.shape == (FILES, 2048)
    return rows


@pytest.fixture(scope="module")
def alone(rows):
    """Scores of every row in a run of its own."""
    session = reference.session("magika")
    return np.concatenate([session.run(None, {"bytes": row[None]})[0] for row in rows])


@pytest.fixture(scope="module")
def in_eights(rows):
    """Scores of every row in runs of eight. They differ from those of a run alone in the fourth
    digit, which is the model's doing."""
    session = reference.session("magika")
    runs = [session.run(None, {"bytes": rows[at : at + 8]})[0] for at in range(0, FILES, 8)]
    return np.concatenate(runs)


@pytest.fixture
def unbatched(tmp_path):
    """Runs every request alone, whatever a busy machine makes the usual server think of batches."""
    harness.copy_models(tmp_path, "magika", source=harness.MODELS)
    server = harness.Server(tmp_path, "--batching", "off", "--intra-op-threads", "1")
    yield server
    server.stop()


def given(rows):
    return [triton.InferInput("bytes", rows.shape, "INT32").set_data_from_numpy(rows)]


def compare(scores, expected):
    assert scores.shape == expected.shape == (FILES, 214)
    names = np.array(reference.labels())
    assert (names[scores.argmax(1)] == names[expected.argmax(1)]).all()
    assert np.abs(scores - expected).max() <= TOLERANCE


def test_the_files_are_a_mixture(alone):
    found = {reference.labels()[index] for index in alone.argmax(1)}
    assert len(found) >= 15, found
    assert (alone.max(1) > 0.9).mean() > 0.5


def test_one_by_one(client, rows, alone):
    answers = [client.infer("magika", given(row[None])) for row in rows]
    compare(np.concatenate([each.as_numpy("target_label") for each in answers]), alone)


def test_eight_rows_a_request(client, rows, in_eights):
    answers = [client.infer("magika", given(rows[at : at + 8])) for at in range(0, FILES, 8)]
    compare(np.concatenate([each.as_numpy("target_label") for each in answers]), in_eights)


def test_sixty_four_callers(unbatched, rows, alone):
    async def everything():
        turn = asyncio.Semaphore(64)
        async with triton_aio.InferenceServerClient(unbatched.grpc) as client:

            async def one(row):
                async with turn:
                    answer = await client.infer("magika", given(row[None]))
                return answer.as_numpy("target_label")

            return np.concatenate(await asyncio.gather(*(one(row) for row in rows)))

    compare(asyncio.run(asyncio.wait_for(everything(), harness.PATIENCE)), alone)


@pytest.mark.parametrize("size, expected", [(1, "alone"), (8, "in_eights")])
def test_streamed(unbatched, rows, size, expected, request):
    count = FILES // size
    answers, done = [], threading.Event()

    def collect(result, error):
        answers.append((result, error))
        if len(answers) == count:
            done.set()

    with triton.InferenceServerClient(unbatched.grpc) as client:
        client.start_stream(collect)
        for at in range(0, FILES, size):
            client.async_stream_infer("magika", given(rows[at : at + size]))
        assert done.wait(harness.PATIENCE), f"{len(answers)} answers"
        client.stop_stream()
    assert [error for _, error in answers if error] == []
    scores = np.concatenate([result.as_numpy("target_label") for result, _ in answers])
    compare(scores, request.getfixturevalue(expected))
