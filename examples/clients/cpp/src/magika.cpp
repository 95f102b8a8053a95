// Single calls of ModelInfer: the type of a file, and a request that the server refuses.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <sstream>
#include <string_view>

#include "commands.h"
#include "file.h"

namespace {

constexpr std::size_t kBlock = 4096;  // bytes that count at each end of a file
constexpr std::size_t kSide = 1024;   // values of the row from the start, and as many from the end
constexpr std::int32_t kPadding = 256;  // stands for no byte
constexpr std::string_view kSpace = " \t\n\v\f\r";

// The start of a file without its leading white space, and the end without its trailing one.
std::vector<std::int32_t> Row(std::string_view bytes) {
  std::string_view head = bytes.substr(0, kBlock);
  head.remove_prefix(std::min(head.find_first_not_of(kSpace), head.size()));
  head = head.substr(0, kSide);
  std::string_view tail = bytes.substr(bytes.size() - std::min(bytes.size(), kBlock));
  tail = tail.substr(0, tail.find_last_not_of(kSpace) + 1);
  tail.remove_prefix(tail.size() - std::min(tail.size(), kSide));

  std::vector<std::int32_t> row(2 * kSide, kPadding);
  const auto value = [](char byte) { return static_cast<unsigned char>(byte); };
  std::transform(head.begin(), head.end(), row.begin(), value);
  std::transform(tail.rbegin(), tail.rend(), row.rbegin(), value);
  return row;
}

}  // namespace

void Classify(Stub& stub, const std::filesystem::path& models, const std::filesystem::path& file) {
  std::istringstream labels(ReadFile(models / "magika" / "labels.txt"));
  const std::vector<std::int32_t> row = Row(ReadFile(file));

  inference::ModelInferRequest request;
  request.set_model_name("magika");
  AddInput(request, "bytes", "INT32", {1, 2048}, row);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  inference::ModelInferResponse answer;
  const grpc::Status status = stub.ModelInfer(&context, request, &answer);
  if (!status.ok()) throw CallFailed(status);

  const std::vector<float> scores = Floats(answer, "target_label");
  if (scores.empty()) throw std::runtime_error("the answer has no scores");
  const auto best = std::max_element(scores.begin(), scores.end());  // the first of equals
  std::string label;
  for (auto score = scores.begin(); score <= best; ++score) std::getline(labels, label);
  std::printf("classify: %s %.4f\n", label.c_str(), *best);
}

void Error(Stub& stub) {
  inference::ModelInferRequest request;
  request.set_model_name("magika");
  AddInput<std::int32_t>(request, "bytes", "INT32", {1, 3}, {1, 2, 3});  // should be [1, 2048]
  grpc::ClientContext context;
  inference::ModelInferResponse answer;
  const grpc::Status status = stub.ModelInfer(&context, request, &answer);
  if (status.ok()) throw std::runtime_error("the server took a row of three values");
  if (status.error_code() != grpc::StatusCode::INVALID_ARGUMENT) throw CallFailed(status);
  std::printf("error: %s: %s\n", CodeName(status.error_code()).c_str(),
              status.error_message().c_str());
}
