// What a client wants to do with requests, answers and statuses.
#pragma once

#include <bit>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "inference.grpc.pb.h"

using Stub = inference::GRPCInferenceService::Stub;

// The name that the gRPC specification has for a code.
std::string CodeName(grpc::StatusCode code);

// A call that failed where it should not.
class CallFailed : public std::runtime_error {
 public:
  explicit CallFailed(const grpc::Status& status)
      : runtime_error(CodeName(status.error_code()) + ": " + status.error_message()) {}
};

// Adds an input in raw form.
template <typename T>
void AddInput(inference::ModelInferRequest& request, const std::string& name,
              const std::string& datatype, const std::vector<std::int64_t>& shape,
              const std::vector<T>& elements) {
  static_assert(std::endian::native == std::endian::little, "raw tensors are little-endian");
  auto& input = *request.add_inputs();
  input.set_name(name);
  input.set_datatype(datatype);
  input.mutable_shape()->Add(shape.begin(), shape.end());
  request.add_raw_input_contents(elements.data(), elements.size() * sizeof(T));
}

// The elements of an FP32 output.
std::vector<float> Floats(const inference::ModelInferResponse& answer, const std::string& name);
