"""Serves a model with KServe's Python SDK: kserve_server.py NAME FILE, and flags of the SDK."""

import sys

from kserve import InferOutput, InferResponse, Model, ModelServer, logging, model_server

from session import session

NAME, FILE = sys.argv[1:3]
DTYPES = {"tensor(float)": "FP32", "tensor(int32)": "INT32"}


def described(tensors):
    """As the protocol's metadata has it; what is open is -1."""
    return [
        {
            "name": tensor.name,
            "datatype": DTYPES[tensor.type],
            "shape": [size if isinstance(size, int) else -1 for size in tensor.shape],
        }
        for tensor in tensors
    ]


class Onnx(Model):
    def __init__(self):
        super().__init__(NAME)
        self.session = session(FILE)
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name
        self.ready = True

    def get_input_types(self):
        return described(self.session.get_inputs())

    def get_output_types(self):
        return described(self.session.get_outputs())

    def predict(self, payload, headers=None, response_headers=None):
        rows = payload.inputs[0].as_numpy()
        (answers,) = self.session.run([self.output], {self.input: rows})
        output = InferOutput(self.output, list(answers.shape), "FP32")
        output.set_data_from_numpy(answers, binary_data=True)
        return InferResponse(payload.id, self.name, [output])


if __name__ == "__main__":
    options = model_server.parser.parse_args(sys.argv[3:])
    server = ModelServer(
        http_port=options.http_port,
        grpc_port=options.grpc_port,
        workers=1,
        enable_docs_url=False,
        enable_latency_logging=False,
        access_log_format=None,
    )
    logging.logger.setLevel("WARNING")
    server.start([Onnx()])
