package onnxd.client;

import inference.Inference.ModelInferRequest;
import inference.Inference.ModelInferResponse;
import java.util.Arrays;
import java.util.List;

/** The type of a file: its row for the model, and what the scores mean. */
final class Magika {
  /** Bytes that are looked at, at each end of a file. */
  private static final int BLOCK = 4096;

  /** Values of the row that come from each end. */
  private static final int SIDE = 1024;

  /** Stands for no byte. */
  private static final int PADDING = 256;

  record Guess(String label, float score) {}

  private Magika() {}

  /** Both ends of a file without the white space around it. */
  static int[] row(byte[] content) {
    var row = new int[2 * SIDE];
    Arrays.fill(row, PADDING);

    var blockEnd = Math.min(BLOCK, content.length);
    var start = 0;
    while (start < blockEnd && isSpace(content[start])) {
      start++;
    }
    for (int i = 0; i < SIDE && start + i < blockEnd; i++) {
      row[i] = Byte.toUnsignedInt(content[start + i]);
    }

    var blockStart = Math.max(0, content.length - BLOCK);
    var end = content.length;
    while (end > blockStart && isSpace(content[end - 1])) {
      end--;
    }
    for (int i = 1; i <= SIDE && end - i >= blockStart; i++) {
      row[row.length - i] = Byte.toUnsignedInt(content[end - i]);
    }
    return row;
  }

  static ModelInferRequest request(int... row) {
    return ModelInferRequest.newBuilder()
        .setModelName("magika")
        .addInputs(Tensors.input("bytes", "INT32", 1L, (long) row.length))
        .addRawInputContents(Tensors.raw(row))
        .build();
  }

  /** The label with the largest score; the first one wins a tie. */
  static Guess best(ModelInferResponse answer, List<String> labels) {
    var scores = Tensors.floats(answer, 0);
    if (scores.length != labels.size()) {
      throw new IllegalStateException("labels.txt belongs to another version of the model");
    }
    var best = 0;
    for (int i = 1; i < scores.length; i++) {
      if (scores[i] > scores[best]) {
        best = i;
      }
    }
    return new Guess(labels.get(best), scores[best]);
  }

  /** Space, tab, line feed, vertical tab, form feed, carriage return. */
  private static boolean isSpace(byte b) {
    return b == ' ' || (b >= '\t' && b <= '\r');
  }
}
