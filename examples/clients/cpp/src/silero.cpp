// Streams of ModelStreamInfer: speech in a recording, a deadline, a cancellation.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <span>

#include "commands.h"
#include "file.h"

namespace {

constexpr std::size_t kStep = 512;    // new samples in a step: 32 ms
constexpr std::size_t kContext = 64;  // samples that a step repeats from the one before
constexpr std::int64_t kRate = 16000;
const std::vector<float> kSilence(kStep);

// A stream, with what each step needs from the one before.
class Steps {
 public:
  explicit Steps(Stub& stub, std::optional<std::chrono::milliseconds> limit = {}) {
    if (limit) context_.set_deadline(std::chrono::system_clock::now() + *limit);
    stream_ = stub.ModelStreamInfer(&context_);
  }

  // Sends up to 512 samples, zeros after them, and waits for their probability of speech.
  float Step(std::span<const float> samples) {
    std::vector<float> input(kContext + kStep);
    std::copy(last_.begin(), last_.end(), input.begin());
    std::copy(samples.begin(), samples.end(), input.begin() + kContext);
    last_.assign(input.end() - kContext, input.end());

    inference::ModelInferRequest request;
    request.set_model_name("silero-vad");
    AddInput(request, "input", "FP32", {1, kContext + kStep}, input);
    AddInput(request, "state", "FP32", {2, 1, 128}, state_);
    AddInput<std::int64_t>(request, "sr", "INT64", {}, {kRate});
    inference::ModelStreamInferResponse answer;
    if (!stream_->Write(request) || !stream_->Read(&answer)) {
      const grpc::Status status = End();
      if (status.ok()) throw std::runtime_error("the stream ended early");
      throw CallFailed(status);
    }
    if (!answer.error_message().empty()) {
      throw CallFailed({grpc::StatusCode::UNKNOWN, answer.error_message()});
    }
    state_ = Floats(answer.infer_response(), "stateN");
    return Floats(answer.infer_response(), "output").at(0);
  }

  // Tells the server that no more steps come, and waits for its status.
  void Close() {
    stream_->WritesDone();
    const grpc::Status status = End();
    if (!status.ok()) throw CallFailed(status);
  }

  grpc::Status Cancel() {
    context_.TryCancel();
    return End();
  }

  // Waits until the call is over. gRPC wants every answer read before.
  grpc::Status End() {
    inference::ModelStreamInferResponse unwanted;
    while (stream_->Read(&unwanted)) {
    }
    return stream_->Finish();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<inference::ModelInferRequest,
                                           inference::ModelStreamInferResponse>>
      stream_;
  std::vector<float> last_ = std::vector<float>(kContext);
  std::vector<float> state_ = std::vector<float>(2 * 128);
};

}  // namespace

void Speech(Stub& stub, const std::filesystem::path& file) {
  const std::vector<float> samples = ReadWav(file);
  Steps steps(stub);
  std::vector<float> probabilities;
  for (std::span<const float> rest = samples; !rest.empty();) {
    const std::size_t count = std::min(rest.size(), kStep);
    probabilities.push_back(steps.Step(rest.first(count)));
    rest = rest.subspan(count);
  }
  steps.Close();

  const auto speech = std::count_if(probabilities.begin(), probabilities.end(),
                                    [](float probability) { return probability >= 0.5F; });
  std::printf("speech: %zu steps, %td with speech\n", probabilities.size(), speech);
  for (std::size_t i = 0; i < probabilities.size(); ++i) {
    const bool is_last = i % 10 == 9 || i + 1 == probabilities.size();
    std::printf("%.3f%c", probabilities[i], is_last ? '\n' : ' ');
  }
}

void Deadline(Stub& stub) {
  Steps steps(stub, std::chrono::milliseconds(300));
  steps.Step(kSilence);
  // Nothing more is sent, so that only the deadline ends the call.
  const grpc::Status status = steps.End();
  std::printf("deadline: %s after 1 answer\n", CodeName(status.error_code()).c_str());
}

void Cancel(Stub& stub) {
  Steps steps(stub);
  for (int i = 0; i < 3; ++i) steps.Step(kSilence);
  const grpc::Status status = steps.Cancel();
  std::printf("cancel: %s after 3 answers\n", CodeName(status.error_code()).c_str());
}
