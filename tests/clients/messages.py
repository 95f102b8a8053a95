"""Requests from bare messages, for what a polite client library never sends."""

import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import np_to_triton_dtype

TYPED = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def request(model, arrays=(), **fields):
    """A raw request; `arrays` are pairs of a name and an array."""
    message = pb.ModelInferRequest(model_name=model, **fields)
    for name, array in arrays:
        add(message, name, np_to_triton_dtype(array.dtype), array.shape, array.tobytes())
    return message


def add(message, name, datatype, shape, raw):
    """Adds an input with whatever contents."""
    message.inputs.add(name=name, datatype=datatype, shape=shape)
    message.raw_input_contents.append(raw)
    return message


def typed(model, name, datatype, shape, values, **fields):
    """A request with one input in typed form."""
    message = pb.ModelInferRequest(model_name=model, **fields)
    tensor = message.inputs.add(name=name, datatype=datatype, shape=shape)
    getattr(tensor.contents, TYPED[datatype]).extend(values)
    return message


def array(response, index=0):
    """An output of a raw answer."""
    kinds = {"FP32": np.float32, "INT64": np.int64, "INT32": np.int32, "BOOL": np.bool_}
    output = response.outputs[index]
    raw = response.raw_output_contents[index]
    return np.frombuffer(raw, kinds[output.datatype]).reshape(output.shape)
