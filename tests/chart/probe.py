"""Asks once as a kubelet does: `probe.py PROBE`, the probe as JSON. Ends with 0 where it succeeds."""

import http.client
import json
import sys

probe = json.loads(sys.argv[1])
timeout = probe["timeoutSeconds"]
if "httpGet" in probe:
    connection = http.client.HTTPConnection("127.0.0.1", probe["httpGet"]["port"], timeout=timeout)
    try:
        connection.request("GET", probe["httpGet"]["path"], headers={"User-Agent": "kube-probe/1.37"})
        answer = connection.getresponse()
    except OSError as error:
        sys.exit(str(error))
    print(answer.status, answer.read().decode())
    sys.exit(0 if 200 <= answer.status < 400 else 1)

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

with grpc.insecure_channel(f"127.0.0.1:{probe['grpc']['port']}") as channel:
    request = health_pb2.HealthCheckRequest(service=probe["grpc"].get("service", ""))
    try:
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)
    except grpc.RpcError as error:
        sys.exit(str(error))
print(answer)
sys.exit(0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1)
