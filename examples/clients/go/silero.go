package main

import (
	"context"
	"errors"
	"io"
	"slices"

	"google.golang.org/grpc"

	pb "example.com/onnxd/client/inference"
)

const (
	sampleRate = 16000
	overlap    = 64  // samples that a step repeats from the step before
	fresh      = 512 // new samples of a step
	stateSize  = 2 * 128
)

// silence is one step without a sound.
var silence = make([]float32, fresh)

// detector sends one recording through silero-vad. It carries what the model must hear again: the
// last samples and the state of the step before.
type detector struct {
	stream grpc.BidiStreamingClient[pb.ModelInferRequest, pb.ModelStreamInferResponse]
	window []float32
	state  []byte
}

func newDetector(ctx context.Context, client pb.GRPCInferenceServiceClient) (*detector, error) {
	stream, err := client.ModelStreamInfer(ctx)
	return &detector{
		stream: stream,
		window: make([]float32, overlap+fresh),
		state:  littleEndian(make([]float32, stateSize)),
	}, err
}

// step sends at most 512 new samples and waits for the probability of speech in them.
func (d *detector) step(samples []float32) (float32, error) {
	copy(d.window, d.window[fresh:])
	n := copy(d.window[overlap:], samples)
	clear(d.window[overlap+n:])

	if err := d.stream.Send(d.request()); err != nil {
		// Send tells only that the stream has ended; Recv tells why.
		_, err = d.stream.Recv()
		return 0, err
	}
	answer, err := d.stream.Recv()
	if err != nil {
		return 0, err
	}
	if answer.ErrorMessage != "" {
		return 0, errors.New(answer.ErrorMessage)
	}

	probability, err := float32s(answer.InferResponse, 0)
	if err != nil || len(probability) != 1 || len(answer.InferResponse.RawOutputContents) != 2 {
		return 0, errors.Join(errors.New("not the answer of silero-vad"), err)
	}
	d.state = answer.InferResponse.RawOutputContents[1]
	return probability[0], nil
}

// listen sends a whole recording and ends the stream.
func (d *detector) listen(samples []float32) ([]float32, error) {
	var probabilities []float32
	for part := range slices.Chunk(samples, fresh) {
		p, err := d.step(part)
		if err != nil {
			return nil, err
		}
		probabilities = append(probabilities, p)
	}
	if err := d.stream.CloseSend(); err != nil {
		return nil, err
	}
	switch _, err := d.stream.Recv(); err {
	case io.EOF:
		return probabilities, nil
	case nil:
		return nil, errors.New("one answer too many")
	default:
		return nil, err
	}
}

// request holds the state as it came: only the model needs to understand it.
func (d *detector) request() *pb.ModelInferRequest {
	return &pb.ModelInferRequest{
		ModelName: "silero-vad",
		Inputs: []*pb.ModelInferRequest_InferInputTensor{
			{Name: "input", Datatype: "FP32", Shape: []int64{1, overlap + fresh}},
			{Name: "state", Datatype: "FP32", Shape: []int64{2, 1, 128}},
			{Name: "sr", Datatype: "INT64"},
		},
		Outputs: []*pb.ModelInferRequest_InferRequestedOutputTensor{
			{Name: "output"}, {Name: "stateN"},
		},
		RawInputContents: [][]byte{littleEndian(d.window), d.state, littleEndian(int64(sampleRate))},
	}
}
