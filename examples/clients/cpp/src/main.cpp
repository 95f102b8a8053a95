// Example client of onnxd. examples/clients/README.md says what it does and prints.
#include <array>
#include <cstdio>
#include <exception>
#include <optional>

#include <getopt.h>

#include "commands.h"

namespace {

constexpr char kUsage[] =
    "Usage: client [--addr HOST:PORT] [--models FOLDER] COMMAND\n"
    "\n"
    "  classify FILE  Ask magika for the type of a file\n"
    "  speech FILE    Stream a WAV file (16 kHz, mono, 16 bits) through silero-vad\n"
    "  deadline       Open a stream with a deadline and let it pass\n"
    "  cancel         Open a stream and cancel it\n"
    "  error          Send a request that the server refuses\n"
    "\n"
    "  --addr    address of the server's gRPC port [127.0.0.1:8001]\n"
    "  --models  folder of the models, for their labels [models]\n";

struct Arguments {
  std::string addr = "127.0.0.1:8001";
  std::filesystem::path models = "models";
  std::string command;
  std::filesystem::path file;
};

// Nothing if they are wrong.
std::optional<Arguments> Parse(int argc, char** argv) {
  constexpr std::array<option, 3> kOptions = {{
      {"addr", required_argument, nullptr, 'a'},
      {"models", required_argument, nullptr, 'm'},
      {},
  }};
  Arguments arguments;
  for (int found; (found = getopt_long(argc, argv, "", kOptions.data(), nullptr)) != -1;) {
    if (found == 'a') {
      arguments.addr = optarg;
    } else if (found == 'm') {
      arguments.models = optarg;
    } else {
      return {};
    }
  }
  if (optind == argc) return {};
  arguments.command = argv[optind++];
  if (arguments.command == "classify" || arguments.command == "speech") {
    if (optind == argc) return {};
    arguments.file = argv[optind++];
  } else if (arguments.command != "deadline" && arguments.command != "cancel" &&
             arguments.command != "error") {
    return {};
  }
  if (optind != argc) return {};
  return arguments;
}

void Run(const Arguments& arguments) {
  const auto channel = grpc::CreateChannel(arguments.addr, grpc::InsecureChannelCredentials());
  const auto stub = inference::GRPCInferenceService::NewStub(channel);
  if (arguments.command == "classify") Classify(*stub, arguments.models, arguments.file);
  if (arguments.command == "speech") Speech(*stub, arguments.file);
  if (arguments.command == "deadline") Deadline(*stub);
  if (arguments.command == "cancel") Cancel(*stub);
  if (arguments.command == "error") Error(*stub);
}

}  // namespace

int main(int argc, char** argv) {
  const std::optional<Arguments> arguments = Parse(argc, argv);
  if (!arguments) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  try {
    Run(*arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
