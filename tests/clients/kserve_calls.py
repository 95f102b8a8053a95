"""KServe's clients on a server: what they are told, as one JSON object. Run by test_kserve.py."""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

VALUES = np.array([[1.5, -2.0, 3.25]], np.float32)


def request(binary=True):
    tensor = InferInput("x", list(VALUES.shape), "FP32")
    tensor.set_data_from_numpy(VALUES, binary_data=binary)
    return InferRequest(model_name="identity_f32", infer_inputs=[tensor], request_id="seven")


def told(answer):
    output = answer.outputs[0]
    return {"id": answer.id, "name": output.name, "values": output.as_numpy().tolist()}


async def grpc(address):
    seen = {}
    async with InferenceGRPCClient(address, retries=0) as client:
        seen["live"] = await client.is_server_live()
        seen["ready"] = await client.is_server_ready()
        seen["model"] = await client.is_model_ready("identity_f32")
        seen["absent"] = await client.is_model_ready("nosuch")
        seen["raw"] = told(await client.infer(request()))
        seen["typed"] = told(await client.infer(request(binary=False)))
        wrong = request()
        wrong.model_name = "nosuch"
        try:
            await client.infer(wrong)
        except Exception as error:
            seen["error"] = str(error)
    return seen


async def rest(address):
    seen, url = {}, f"http://{address}"
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    seen["live"] = await client.is_server_live(url)
    seen["ready"] = await client.is_server_ready(url)
    seen["model"] = await client.is_model_ready(url, "identity_f32")
    seen["absent"] = await client.is_model_ready(url, "nosuch")
    seen["raw"] = told(await client.infer(url, request(), model_name="identity_f32"))
    seen["typed"] = told(await client.infer(url, request(binary=False), model_name="identity_f32"))
    try:
        await client.infer(url, request(), model_name="nosuch")
    except Exception as error:
        seen["error"] = str(error)
    await client.close()
    return seen


async def main(grpc_address, http_address):
    return {"grpc": await grpc(grpc_address), "rest": await rest(http_address)}


print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
