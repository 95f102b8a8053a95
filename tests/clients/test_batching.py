"""Many callers at once share runs, and each gets its own rows."""

import asyncio

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

import harness
import reference

CALLERS = 64
# Runs for each row: well below one when callers share them.
SHARED = 0.6


@pytest.fixture(scope="module")
def batching(tmp_path_factory):
    """A server that is told to batch, whatever it measures."""
    repository = tmp_path_factory.mktemp("batching")
    harness.copy_models(repository, "magika", "silero-vad", source=harness.MODELS)
    for model in ("magika", "silero-vad"):
        settings = 'batching = "fixed"\nmax_queue_delay_us = 5000\nintra_op_threads = 1\n'
        (repository / model / "model.toml").write_text(settings)
    server = harness.Server(repository, "--strict")
    yield server
    server.stop()


def counts(server, model):
    with triton.InferenceServerClient(server.grpc) as client:
        (stats,) = client.get_inference_statistics(model).model_stats
        return np.array([stats.inference_count, stats.execution_count])


def together(server, model, caller):
    """Runs `caller(client, number)` for every caller; rows and runs that it took."""
    before = counts(server, model)

    async def everything():
        async with triton_aio.InferenceServerClient(server.grpc) as client:
            await asyncio.gather(*(caller(client, number) for number in range(CALLERS)))

    asyncio.run(asyncio.wait_for(everything(), harness.PATIENCE))
    return counts(server, model) - before


def given(name, array, datatype):
    return triton.InferInput(name, array.shape, datatype).set_data_from_numpy(array)


def test_magika(batching):
    rows = np.stack([reference.features(path) for path in reference.real_files(CALLERS * 3)])
    session = reference.session("magika")
    alone = np.concatenate([session.run(None, {"bytes": row[None]})[0] for row in rows])
    # From two rows on, neither their number nor their company changes more than the last bit.
    paired = np.concatenate(
        [session.run(None, {"bytes": rows[at : at + 2]})[0] for at in range(0, len(rows), 2)]
    )
    scores = np.empty_like(alone)

    async def caller(client, number):
        for turn in range(3):
            at = number * 3 + turn
            answer = await client.infer("magika", [given("bytes", rows[at][None], "INT32")])
            scores[at] = answer.as_numpy("target_label")[0]

    inferences, executions = together(batching, "magika", caller)
    assert inferences == len(rows)
    assert executions < SHARED * inferences, (executions, inferences)
    off = np.minimum(np.abs(scores - alone).max(1), np.abs(scores - paired).max(1))
    assert off.max() <= 1e-5, off.max()


def test_silero_with_state(batching):
    # Each caller hears another part of the recording, and carries its own state.
    steps = 12
    samples = reference.sample()
    session = reference.session("silero-vad")
    parts = [
        reference.windows(samples[start : start + steps * reference.WINDOW])
        for start in range(0, CALLERS * 1000, 1000)
    ]
    expected = [reference.listen(session, part) for part in parts]
    assert len({part[-1][1].tobytes() for part in expected}) == CALLERS, "parts are distinct"
    rate = np.array(16000, np.int64)

    async def caller(client, number):
        state = np.zeros((2, 1, 128), np.float32)
        for window, (output, after) in zip(parts[number], expected[number], strict=True):
            answer = await client.infer(
                "silero-vad",
                [
                    given("input", window, "FP32"),
                    given("state", state, "FP32"),
                    given("sr", rate, "INT64"),
                ],
            )
            state = answer.as_numpy("stateN")
            # Rows of a batch equal rows run alone, bit for bit.
            assert answer.as_numpy("output").tobytes() == output.tobytes(), number
            assert state.shape == after.shape and state.tobytes() == after.tobytes(), number

    inferences, executions = together(batching, "silero-vad", caller)
    assert inferences == CALLERS * steps
    assert executions < SHARED * inferences, (executions, inferences)


def test_requests_of_several_rows_share_runs_too(batching):
    session = reference.session("silero-vad")
    rng = np.random.default_rng(7)
    inputs = rng.normal(0, 0.1, (CALLERS, 3, 576)).astype(np.float32)
    states = rng.normal(0, 0.5, (CALLERS, 2, 3, 128)).astype(np.float32)
    rate = np.array(16000, np.int64)

    async def caller(client, number):
        tensors = {"input": inputs[number], "state": states[number]}
        answer = await client.infer(
            "silero-vad",
            [given(name, array, "FP32") for name, array in tensors.items()]
            + [given("sr", rate, "INT64")],
        )
        output, after = session.run(None, {**tensors, "sr": rate})
        assert answer.as_numpy("output").tobytes() == output.tobytes(), number
        assert answer.as_numpy("stateN").tobytes() == after.tobytes(), number

    inferences, executions = together(batching, "silero-vad", caller)
    assert inferences == CALLERS * 3
    # Less than one run a request.
    assert executions < SHARED * CALLERS, (executions, inferences)
