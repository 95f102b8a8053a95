package onnxd.client;

import com.google.protobuf.ByteString;
import inference.GRPCInferenceServiceGrpc.GRPCInferenceServiceBlockingV2Stub;
import inference.Inference.ModelInferRequest;
import inference.Inference.ModelInferRequest.InferRequestedOutputTensor;
import inference.Inference.ModelStreamInferResponse;
import io.grpc.StatusException;
import io.grpc.stub.BlockingClientCall;

/**
 * One recording on its way through silero-vad. It carries what the model must hear again: the last
 * samples and the state of the step before.
 */
final class SpeechStream {
  static final int SAMPLE_RATE = 16_000;

  /** New samples of a step. */
  static final int STEP = 512;

  /** Samples that a step repeats from the step before. */
  private static final int OVERLAP = 64;

  private final BlockingClientCall<ModelInferRequest, ModelStreamInferResponse> call;
  private final float[] window = new float[OVERLAP + STEP];

  /** Kept as it came: only the model needs to understand it. */
  private ByteString state = Tensors.raw(new float[2 * 128]);

  SpeechStream(GRPCInferenceServiceBlockingV2Stub server) {
    call = server.modelStreamInfer();
  }

  /** Sends 512 new samples and waits for the probability of speech in them. */
  float step(float... samples) throws StatusException, InterruptedException {
    System.arraycopy(window, STEP, window, 0, OVERLAP);
    System.arraycopy(samples, 0, window, OVERLAP, STEP);

    call.write(request());
    var answer = call.read();
    if (answer == null) {
      throw new IllegalStateException("the stream ended without an answer");
    }
    if (!answer.getErrorMessage().isEmpty()) {
      throw new IllegalStateException(answer.getErrorMessage());
    }
    state = answer.getInferResponse().getRawOutputContents(1);
    return Tensors.floats(answer.getInferResponse(), 0)[0];
  }

  void cancel() {
    call.cancel("heard enough", null);
  }

  /** Says that there is no more to come, and waits for the server to agree. */
  void finish() throws StatusException, InterruptedException {
    call.halfClose();
    awaitEnd();
  }

  /** Waits until the call has ended; throws unless it has ended well. */
  void awaitEnd() throws StatusException, InterruptedException {
    if (call.read() != null) {
      throw new IllegalStateException("one answer too many");
    }
  }

  private ModelInferRequest request() {
    return ModelInferRequest.newBuilder()
        .setModelName("silero-vad")
        .addInputs(Tensors.input("input", "FP32", 1L, (long) window.length))
        .addInputs(Tensors.input("state", "FP32", 2L, 1L, 128L))
        .addInputs(Tensors.input("sr", "INT64"))
        .addOutputs(InferRequestedOutputTensor.newBuilder().setName("output"))
        .addOutputs(InferRequestedOutputTensor.newBuilder().setName("stateN"))
        .addRawInputContents(Tensors.raw(window))
        .addRawInputContents(state)
        .addRawInputContents(Tensors.raw((long) SAMPLE_RATE))
        .build();
  }
}
