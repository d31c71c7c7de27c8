"""The same model behind KServe's own Python server: kserve_server.py MODEL [--http_port 8080].

Speaks the protocol that Triton speaks, so `client.py` can be tried without Triton, and is a
starting point for a KServe predictor of one's own.
"""

import os
import sys
import uuid

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server


class InpaintingModel(Model):
    """Runs an exported file.

    Args:
        name: What clients call it.
        path: The ONNX file.
    """

    def __init__(self, name: str, path: str):
        super().__init__(name)
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.ready = True

    def predict(
        self,
        payload: InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> InferResponse:
        """Answers one request; its inputs and output are those of the ONNX file."""
        feed = {tensor.name: tensor.as_numpy() for tensor in payload.inputs}
        (inpainted,) = self.session.run(["inpainted"], feed)
        output = InferOutput("inpainted", list(inpainted.shape), "UINT8")
        output.set_data_from_numpy(inpainted, binary_data=True)
        return InferResponse(payload.id or str(uuid.uuid4()), self.name, [output])


if __name__ == "__main__":
    model_server.parser.add_argument("model", help="the ONNX file")
    arguments = model_server.parser.parse_args(sys.argv[1:])
    ModelServer().start([InpaintingModel("musical_inpaint", arguments.model)])
