"""The wire contract: our own rules hold, and no published number, name or type has changed."""

import pytest
from google.protobuf import descriptor_pb2

import harness

PROTO = harness.ROOT / "proto"
PUBLISHED = harness.ROOT / "tests" / "clients" / "published_numbers.txt"
# Name, request, response, and which of them are streams.
CALLS = {
    "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer",
    "ModelStreamInfer", "ModelConfig", "ModelStatistics", "RepositoryIndex",
    "RepositoryModelLoad", "RepositoryModelUnload", "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister", "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister", "TraceSetting", "LogSettings",
}  # fmt: skip


def buf(*words):
    return harness.run(harness.TOOLS / "buf", *words)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    image = tmp_path_factory.mktemp("proto") / "image.binpb"
    built = buf("build", PROTO, "-o", image, "--as-file-descriptor-set")
    assert built.returncode == 0, built.stderr
    return descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes()).file


def lines(files):
    """Our own fields in the form of the published list, and the reserved numbers by message."""
    found, reserved = set(), {}
    for file in files:
        if file.package != "inference":
            continue
        for message in file.message_type:
            walk(message, message.name, found, reserved)
        for enum in file.enum_type:
            found |= {f"{enum.name} {each.number} {each.name} enum" for each in enum.value}
    return found, reserved


def walk(message, name, found, reserved):
    taken = {number for span in message.reserved_range for number in range(span.start, span.end)}
    reserved[name] = taken
    maps = {each.name: each for each in message.nested_type if each.options.map_entry}
    if not message.field and not taken:
        found.add(f"{name} - - empty")
    for field in message.field:
        line = f"{name} {field.number} {field.name} {kind(field, maps)}"
        if field.HasField("oneof_index"):
            line += f" {message.oneof_decl[field.oneof_index].name}"
        found.add(line)
    for enum in message.enum_type:
        found |= {f"{name}.{enum.name} {each.number} {each.name} enum" for each in enum.value}
    for nested in message.nested_type:
        if nested.name not in maps:
            walk(nested, f"{name}.{nested.name}", found, reserved)


def kind(field, maps):
    short = field.type_name.rpartition(".")[2]
    if short in maps:
        key, value = maps[short].field
        return f"map<{kind(key, {})},{kind(value, {})}>"
    names = descriptor_pb2.FieldDescriptorProto.Type
    word = short or names.Name(field.type).removeprefix("TYPE_").lower()
    repeated = field.label == descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    return f"repeated_{word}" if repeated else word


def test_our_own_rules():
    linted = buf("lint", PROTO)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_published_numbers_names_and_types_are_ours(files):
    found, reserved = lines(files)
    published = {line for line in PUBLISHED.read_text().splitlines() if not line.startswith("#")}
    assert len(published) > 300
    missing = set()
    for line in published - found:
        message, number, *_ = line.split()
        # A field that is not carried keeps its number.
        if number == "-" or int(number) not in reserved.get(message, ()):
            missing.add(line)
    assert not missing
    assert not found - published, "nothing of our own in the protocol's messages"


def test_every_call_is_there(files):
    services = [service for file in files for service in file.service if file.package == "inference"]
    (service,) = services
    assert service.name == "GRPCInferenceService"
    assert {method.name for method in service.method} == CALLS
    streams = [each.name for each in service.method if each.client_streaming]
    assert streams == ["ModelStreamInfer"]


def test_a_change_would_be_seen(tmp_path):
    """The breaking-change check fails on a renumbered field, a renamed one, another type."""
    text = (PROTO / "inference.proto").read_text()
    (tmp_path / "model_config.proto").write_text((PROTO / "model_config.proto").read_text())
    (tmp_path / "buf.yaml").write_text((PROTO / "buf.yaml").read_text())
    assert buf("breaking", PROTO, "--against", PROTO).returncode == 0
    for old, new in (
        ("string model_name = 1;", "string model_name = 99;"),
        ("string model_name = 1;", "string name_of_model = 1;"),
        ("bool live = 1;", "int32 live = 1;"),
    ):
        assert old in text
        (tmp_path / "inference.proto").write_text(text.replace(old, new))
        assert buf("breaking", tmp_path, "--against", PROTO).returncode != 0, new
