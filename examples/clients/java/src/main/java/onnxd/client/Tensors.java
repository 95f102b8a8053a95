package onnxd.client;

import com.google.protobuf.ByteString;
import inference.Inference.ModelInferRequest.InferInputTensor;
import inference.Inference.ModelInferResponse;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;

/** Tensors in raw form: little-endian, one number after the other. */
final class Tensors {
  private Tensors() {}

  static InferInputTensor input(String name, String datatype, Long... shape) {
    return InferInputTensor.newBuilder()
        .setName(name)
        .setDatatype(datatype)
        .addAllShape(List.of(shape))
        .build();
  }

  static ByteString raw(int... numbers) {
    var bytes = littleEndian(numbers.length * Integer.BYTES);
    bytes.asIntBuffer().put(numbers);
    return ByteString.copyFrom(bytes);
  }

  static ByteString raw(float... numbers) {
    var bytes = littleEndian(numbers.length * Float.BYTES);
    bytes.asFloatBuffer().put(numbers);
    return ByteString.copyFrom(bytes);
  }

  static ByteString raw(long number) {
    return ByteString.copyFrom(littleEndian(Long.BYTES).putLong(0, number));
  }

  static float[] floats(ModelInferResponse answer, int output) {
    var bytes = answer.getRawOutputContents(output);
    var numbers = new float[bytes.size() / Float.BYTES];
    bytes.asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(numbers);
    return numbers;
  }

  private static ByteBuffer littleEndian(int size) {
    return ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN);
  }
}
