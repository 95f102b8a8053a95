package onnxd.client;

import inference.GRPCInferenceServiceGrpc;
import inference.GRPCInferenceServiceGrpc.GRPCInferenceServiceBlockingV2Stub;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Locale;
import java.util.concurrent.TimeUnit;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.RunLast;

/**
 * Calls an onnxd server in five ways: one request, a stream with state, a deadline, a cancelled
 * call, and a request that the server refuses.
 */
@Command(name = "client", synopsisSubcommandLabel = "COMMAND")
final class Client {
  @Option(
      names = "--addr",
      defaultValue = "127.0.0.1:8001",
      description = "gRPC address of the server")
  private String addr;

  @Option(
      names = "--models",
      defaultValue = "models",
      description = "folder of the models, which has their labels")
  private Path models;

  /** One step without a sound. */
  private static final float[] SILENCE = new float[SpeechStream.STEP];

  private GRPCInferenceServiceBlockingV2Stub server;

  public static void main(String... args) {
    var client = new Client();
    var exitCode =
        new CommandLine(client)
            .setExecutionStrategy(client::runConnected)
            .setExecutionExceptionHandler((failure, command, parsed) -> {
              System.err.println(explain(failure));
              return 1;
            })
            .execute(args);
    System.exit(exitCode);
  }

  private int runConnected(ParseResult parsed) {
    ManagedChannel channel =
        Grpc.newChannelBuilder(addr, InsecureChannelCredentials.create()).build();
    try {
      server = GRPCInferenceServiceGrpc.newBlockingV2Stub(channel);
      return new RunLast().execute(parsed);
    } finally {
      channel.shutdownNow();
    }
  }

  @Command(description = "tell the type of a file")
  void classify(@Parameters(paramLabel = "FILE") Path file) throws Exception {
    var labels = Files.readAllLines(models.resolve("magika/labels.txt"));
    var request = Magika.request(Magika.row(Files.readAllBytes(file)));

    var answer = server.withDeadlineAfter(5, TimeUnit.SECONDS).modelInfer(request);

    var best = Magika.best(answer, labels);
    System.out.printf(Locale.ROOT, "classify: %s %.4f%n", best.label(), best.score());
  }

  @Command(description = "tell where a WAV file has speech")
  void speech(@Parameters(paramLabel = "FILE") Path file) throws Exception {
    var samples = Wav.read(file);
    var probabilities = new float[(samples.length + SpeechStream.STEP - 1) / SpeechStream.STEP];

    var stream = new SpeechStream(server);
    for (int i = 0; i < probabilities.length; i++) {
      var start = i * SpeechStream.STEP;
      // copyOfRange fills up with zeros behind the end of the recording.
      probabilities[i] = stream.step(Arrays.copyOfRange(samples, start, start + SpeechStream.STEP));
    }
    stream.finish();
    print(probabilities);
  }

  private static void print(float[] probabilities) {
    var voiced = 0;
    var lines = new StringBuilder();
    for (int i = 0; i < probabilities.length; i++) {
      if (probabilities[i] >= 0.5) {
        voiced++;
      }
      var end = i % 10 == 9 || i == probabilities.length - 1 ? "%n" : " ";
      lines.append(String.format(Locale.ROOT, "%.3f" + end, probabilities[i]));
    }
    System.out.printf("speech: %d steps, %d with speech%n", probabilities.length, voiced);
    System.out.print(lines);
  }

  @Command(description = "let the deadline of a stream pass")
  void deadline() throws Exception {
    // The first stream of a JVM connects and loads classes for about as long as the deadline, so
    // one without a deadline goes first.
    var first = new SpeechStream(server);
    first.step(SILENCE);
    first.finish();

    var stream = new SpeechStream(server.withDeadlineAfter(300, TimeUnit.MILLISECONDS));
    stream.step(SILENCE);
    System.out.printf("deadline: %s after 1 answer%n", codeAtEnd(stream));
  }

  @Command(description = "cancel a stream")
  void cancel() throws Exception {
    var stream = new SpeechStream(server);
    for (int i = 0; i < 3; i++) {
      stream.step(SILENCE);
    }
    stream.cancel();
    System.out.printf("cancel: %s after 3 answers%n", codeAtEnd(stream));
  }

  private static Status.Code codeAtEnd(SpeechStream stream) throws InterruptedException {
    try {
      stream.awaitEnd();
      return Status.Code.OK;
    } catch (StatusException end) {
      return end.getStatus().getCode();
    }
  }

  @Command(description = "send a request that the server refuses")
  void error() throws Exception {
    try {
      server.withDeadlineAfter(5, TimeUnit.SECONDS).modelInfer(Magika.request(1, 2, 3));
    } catch (StatusException refusal) {
      if (refusal.getStatus().getCode() != Status.Code.INVALID_ARGUMENT) {
        throw refusal;
      }
      System.out.println("error: " + explain(refusal));
      return;
    }
    throw new IllegalStateException("the server took a row of three values");
  }

  /** The code's name and the message of a failed call, or the text of another failure. */
  private static String explain(Exception failure) {
    if (failure instanceof StatusException call) {
      var status = call.getStatus();
      return status.getCode() + ": " + status.getDescription();
    }
    return failure.toString();
  }
}
