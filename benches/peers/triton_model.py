"""A model in Triton's Python back end: requests of a batch share one run of ONNX Runtime."""

import pathlib

import numpy as np
import triton_python_backend_utils as pb_utils
from session import session


class TritonPythonModel:
    def initialize(self, args):
        folder = pathlib.Path(args["model_repository"]) / args["model_version"]
        self.session = session(folder / "model.onnx")
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name

    def execute(self, requests):
        parts = [
            pb_utils.get_input_tensor_by_name(request, self.input).as_numpy()
            for request in requests
        ]
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        (answers,) = self.session.run([self.output], {self.input: rows})
        responses, begin = [], 0
        for part in parts:
            tensor = pb_utils.Tensor(self.output, answers[begin : begin + len(part)])
            responses.append(pb_utils.InferenceResponse([tensor]))
            begin += len(part)
        return responses
