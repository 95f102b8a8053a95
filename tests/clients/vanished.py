"""A peer whose link goes down in the middle of its calls: nothing says goodbye for it.

Run by `test_vanished_peer.py` in namespaces of its own, where it may make networks:

    unshare --map-root-user --net --mount python vanished.py REPOSITORY

Prints as JSON how long the server took to let go, in seconds, and how many calls it counts as cancelled.
"""

import json
import subprocess
import sys
import time

import harness

# Both ends of the link; documentation only, since nothing else is in this network.
SERVER, PEER = "192.0.2.1", "192.0.2.2"
KEEPALIVE_MS = KEEPALIVE_TIMEOUT_MS = 500
CLIENT = """
import sys, frames, test_deadlines
connection = frames.Connection(sys.argv[1])
for more in (0, 1):
    # Other iterations cannot ride with the first, so the second call waits.
    request = test_deadlines.busy(test_deadlines.FOREVER - more)
    connection.call(frames.message(request.SerializeToString()))
print("called", flush=True)
sys.stdin.read()
"""


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def link():
    """A network with a peer in it, as on another machine."""
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    ip("link", "set", "lo", "up")
    ip("netns", "add", "peer")
    ip("link", "add", "here", "type", "veth", "peer", "name", "there", "netns", "peer")
    ip("address", "add", f"{SERVER}/30", "dev", "here")
    ip("link", "set", "here", "up")
    ip("-n", "peer", "address", "add", f"{PEER}/30", "dev", "there")
    ip("-n", "peer", "link", "set", "there", "up")


def main():
    link()
    flags = ["--keepalive-ms", KEEPALIVE_MS, "--keepalive-timeout-ms", KEEPALIVE_TIMEOUT_MS]
    flags += ["--clear-text", "anywhere"]
    server = harness.Server(sys.argv[1], *map(str, flags), grpc=f"{SERVER}:0")
    command = ["ip", "netns", "exec", "peer", sys.executable, "-c", CLIENT, server.grpc]
    peer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert peer.stdout.readline() == b"called\n"
        state = lambda: (
            server.metric("onnxd_running", model="loop_busy"),
            server.metric("onnxd_queue_jobs", model="loop_busy"),
            server.metric("onnxd_connections", port="grpc"),
        )
        harness.wait_until(lambda: state() == (1, 1, 1), "one call runs and one waits")
        ip("-n", "peer", "link", "set", "there", "down")
        began = time.monotonic()
        harness.wait_until(lambda: state() == (0, 0, 0), "the peer is let go")
        took = time.monotonic() - began
        cancelled = server.metric(
            "onnxd_requests_total", model="loop_busy", outcome="cancelled"
        )
        print(json.dumps({"seconds": took, "cancelled": cancelled}))
    finally:
        peer.kill()
        peer.wait()
        server.kill()


if __name__ == "__main__":
    main()
