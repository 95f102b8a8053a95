#include "message.h"

#include <algorithm>
#include <cstring>

#include <absl/status/status.h>

std::string CodeName(grpc::StatusCode code) {
  // gRPC's codes have names in Abseil only; the numbers are the same.
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
}

std::vector<float> Floats(const inference::ModelInferResponse& answer, const std::string& name) {
  const auto& outputs = answer.outputs();
  const auto found = std::find_if(outputs.begin(), outputs.end(),
                                  [&](const auto& output) { return output.name() == name; });
  const auto index = found - outputs.begin();
  if (index >= answer.raw_output_contents_size()) {
    throw std::runtime_error("the answer has no output `" + name + "`");
  }
  const std::string& raw = answer.raw_output_contents(index);
  std::vector<float> floats(raw.size() / sizeof(float));
  std::memcpy(floats.data(), raw.data(), floats.size() * sizeof(float));
  return floats;
}
