// Command client calls an onnxd server in five ways: one request, a stream with state, a deadline,
// a cancelled call, and a request that the server refuses.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "example.com/onnxd/client/inference"
)

//go:generate go tool -modfile=tools.mod buf generate ../../../proto

const usage = `usage: client [--addr HOST:PORT] [--models FOLDER] COMMAND

  classify FILE   tell the type of a file
  speech FILE     tell where a WAV file has speech
  deadline        let the deadline of a stream pass
  cancel          cancel a stream
  error           send a request that the server refuses

`

var errUsage = errors.New("wrong arguments")

func main() {
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	addr := flag.String("addr", "127.0.0.1:8001", "gRPC address of the server")
	models := flag.String("models", "models", "folder of the models, which has their labels")
	flag.Parse()

	switch err := run(context.Background(), *addr, *models, flag.Args()); {
	case errors.Is(err, errUsage):
		flag.Usage()
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, explain(err))
		os.Exit(1)
	}
}

func run(ctx context.Context, addr, models string, args []string) error {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := pb.NewGRPCInferenceServiceClient(conn)

	switch {
	case len(args) == 2 && args[0] == "classify":
		return classify(ctx, client, models, args[1])
	case len(args) == 2 && args[0] == "speech":
		return speech(ctx, client, args[1])
	case len(args) == 1 && args[0] == "deadline":
		return passDeadline(ctx, client)
	case len(args) == 1 && args[0] == "cancel":
		return cancelStream(ctx, client)
	case len(args) == 1 && args[0] == "error":
		return sendMistake(ctx, client)
	}
	return errUsage
}

func classify(ctx context.Context, client pb.GRPCInferenceServiceClient, models, file string) error {
	labels, err := readLabels(models)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	answer, err := client.ModelInfer(ctx, magikaRequest(magikaRow(content)))
	if err != nil {
		return err
	}

	label, score, err := bestLabel(answer, labels)
	if err != nil {
		return err
	}
	fmt.Printf("classify: %s %.4f\n", label, score)
	return nil
}

func speech(ctx context.Context, client pb.GRPCInferenceServiceClient, file string) error {
	samples, err := readWAV(file)
	if err != nil {
		return err
	}

	// Ends the stream wherever this function returns.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	detector, err := newDetector(ctx, client)
	if err != nil {
		return err
	}
	probabilities, err := detector.listen(samples)
	if err != nil {
		return err
	}

	voiced := 0
	for _, p := range probabilities {
		if p >= 0.5 {
			voiced++
		}
	}
	fmt.Printf("speech: %d steps, %d with speech\n", len(probabilities), voiced)
	for i, p := range probabilities {
		end := " "
		if i%10 == 9 || i == len(probabilities)-1 {
			end = "\n"
		}
		fmt.Printf("%.3f%s", p, end)
	}
	return nil
}

func passDeadline(ctx context.Context, client pb.GRPCInferenceServiceClient) error {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	detector, err := newDetector(ctx, client)
	if err != nil {
		return err
	}
	if _, err := detector.step(silence); err != nil {
		return err
	}
	_, err = detector.stream.Recv()
	fmt.Printf("deadline: %s after 1 answer\n", codeName(err))
	return nil
}

func cancelStream(ctx context.Context, client pb.GRPCInferenceServiceClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	detector, err := newDetector(ctx, client)
	if err != nil {
		return err
	}
	for range 3 {
		if _, err := detector.step(silence); err != nil {
			return err
		}
	}
	cancel()
	_, err = detector.stream.Recv()
	fmt.Printf("cancel: %s after 3 answers\n", codeName(err))
	return nil
}

func sendMistake(ctx context.Context, client pb.GRPCInferenceServiceClient) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := client.ModelInfer(ctx, magikaRequest([]int32{1, 2, 3}))
	switch status.Code(err) {
	case codes.OK:
		return errors.New("the server took a row of three values")
	case codes.InvalidArgument:
		fmt.Println("error:", explain(err))
		return nil
	}
	return err
}

// explain gives the code's name and the message of a failed call, or the text of another error.
func explain(err error) string {
	if s, ok := status.FromError(err); ok {
		return fmt.Sprintf("%s: %s", codeName(err), s.Message())
	}
	return err.Error()
}

// codeName spells a code as the protocol does: grpc-go itself says "InvalidArgument".
func codeName(err error) string {
	return code.Code(status.Code(err)).String()
}
