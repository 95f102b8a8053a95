"""Calls an onnxd server in five ways, with blocking calls or with asyncio."""

import argparse
import sys
from pathlib import Path

import grpc

# The generated modules import each other by their bare names.
sys.path.append(str(Path(__file__).parent / "generated"))

import asynchronous  # noqa: E402
import blocking  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--addr", default="127.0.0.1:8001", help="gRPC address of the server")
    parser.add_argument("--models", default="models", help="folder of the models, for labels")
    parser.add_argument("--asyncio", action="store_true", help="use grpcio's asyncio API")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("classify", help="tell the type of a file").add_argument("file")
    commands.add_parser("speech", help="tell where a WAV file has speech").add_argument("file")
    commands.add_parser("deadline", help="let the deadline of a stream pass")
    commands.add_parser("cancel", help="cancel a stream")
    commands.add_parser("error", help="send a request that the server refuses")
    return parser.parse_args()


def main():
    given = arguments()
    calls = asynchronous if given.asyncio else blocking
    try:
        calls.run(given.command, getattr(given, "file", None), given.addr, given.models)
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    except (OSError, RuntimeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
