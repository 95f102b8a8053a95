"""Serves a model with mosec: the bytes of a row come in, the bytes of its answer go out.

Set by environment variables, as mosec is itself: its workers are processes that see no arguments.
"""

import os

import numpy as np
from mosec import Server, Worker

from session import session

FILE = os.environ["MODEL_FILE"]
MAX_BATCH_SIZE, WAIT_MS = (int(os.environ[key]) for key in ("MAX_BATCH_SIZE", "MAX_WAIT_MS"))
DTYPES = {"tensor(float)": np.float32, "tensor(int32)": np.int32}


class Onnx(Worker):
    def __init__(self):
        self.session = session(FILE)
        first = self.session.get_inputs()[0]
        self.input, self.dtype = first.name, DTYPES[first.type]

    def deserialize(self, data):
        return np.frombuffer(data, self.dtype)

    def serialize(self, data):
        return data.tobytes()

    def forward(self, data):
        rows = data if MAX_BATCH_SIZE > 1 else [data]
        (answers,) = self.session.run(None, {self.input: np.stack(rows)})
        return list(answers) if MAX_BATCH_SIZE > 1 else answers[0]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Onnx, max_batch_size=MAX_BATCH_SIZE, max_wait_time=WAIT_MS)
    server.run()
