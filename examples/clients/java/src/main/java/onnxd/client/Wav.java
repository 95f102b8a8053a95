package onnxd.client;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import javax.sound.sampled.AudioFormat;
import javax.sound.sampled.AudioSystem;
import javax.sound.sampled.UnsupportedAudioFileException;

/** Reads the only form of WAV that the model knows: 16 kHz, mono, 16 bits. */
final class Wav {
  private static final AudioFormat FORMAT =
      new AudioFormat(SpeechStream.SAMPLE_RATE, 16, 1, true, false);

  private Wav() {}

  /** Gives the samples, from -1 to 1. */
  static float[] read(Path file) throws IOException, UnsupportedAudioFileException {
    try (var audio = AudioSystem.getAudioInputStream(file.toFile())) {
      if (!audio.getFormat().matches(FORMAT)) {
        throw new UnsupportedAudioFileException(file + ": not 16 kHz, mono, 16 bits");
      }
      var bytes = audio.readAllBytes();
      var shorts = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asShortBuffer();
      var samples = new float[shorts.remaining()];
      for (int i = 0; i < samples.length; i++) {
        samples[i] = shorts.get(i) / 32768f;
      }
      return samples;
    }
  }
}
