"""A runtime of MLServer for ONNX models. The batcher of MLServer stands before it."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

from session import session


class Onnx(MLModel):
    async def load(self):
        self.session = session(self.settings.parameters.uri)
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name
        return True

    async def predict(self, payload):
        rows = NumpyCodec.decode_input(payload.inputs[0])
        (answers,) = self.session.run([self.output], {self.input: rows})
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output(self.output, answers)],
        )
