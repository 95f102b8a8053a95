"""One allocator for the whole process."""

import harness


def test_onnx_runtime_allocates_as_the_server_does(tmp_path):
    repository = tmp_path / "models"
    harness.copy_models(repository, "magika", source=harness.MODELS)
    # The dynamic linker notes whose `malloc` each library gets.
    bindings = tmp_path / "bindings"
    environment = {"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": str(bindings)}
    server = harness.Server(repository, environment=environment)
    lines = bindings.with_suffix(f".{server.process.pid}").read_text().splitlines()
    server.stop()
    for function in ("malloc", "realloc", "posix_memalign", "free"):
        bound = [line for line in lines if f"symbol `{function}'" in line]
        of_runtime = [line for line in bound if "binding file" in line and "libonnxruntime" in line]
        assert of_runtime, f"{function} was not looked for"
        for line in of_runtime:
            _, _, provider = line.partition(" to ")
            assert provider.startswith(str(harness.BINARY)), line
