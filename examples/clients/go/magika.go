package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"

	pb "example.com/onnxd/client/inference"
)

const (
	block   = 4096 // bytes that are looked at, at each end of a file
	side    = 1024 // values of the row that come from each end
	padding = 256  // stands for no byte
	spaces  = " \t\n\v\f\r"
)

// magikaRow makes the model's input: both ends of a file without the white space around it.
func magikaRow(content []byte) []int32 {
	n := min(block, len(content))
	head := bytes.TrimLeft(content[:n], spaces)
	head = head[:min(side, len(head))]
	tail := bytes.TrimRight(content[len(content)-n:], spaces)
	tail = tail[max(0, len(tail)-side):]

	row := make([]int32, 2*side)
	for i := range row {
		row[i] = padding
	}
	for i, b := range head {
		row[i] = int32(b)
	}
	for i, b := range tail {
		row[len(row)-len(tail)+i] = int32(b)
	}
	return row
}

func magikaRequest(row []int32) *pb.ModelInferRequest {
	return &pb.ModelInferRequest{
		ModelName: "magika",
		Inputs: []*pb.ModelInferRequest_InferInputTensor{
			{Name: "bytes", Datatype: "INT32", Shape: []int64{1, int64(len(row))}},
		},
		RawInputContents: [][]byte{littleEndian(row)},
	}
}

// readLabels reads the types in the order of the model's scores.
func readLabels(models string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(models, "magika", "labels.txt"))
	return strings.Fields(string(text)), err
}

// bestLabel gives the label with the largest score; the first one wins a tie.
func bestLabel(answer *pb.ModelInferResponse, labels []string) (string, float32, error) {
	scores, err := float32s(answer, 0)
	if err != nil {
		return "", 0, err
	}
	if len(scores) == 0 || len(scores) != len(labels) {
		return "", 0, errors.New("labels.txt belongs to another version of the model")
	}
	best := 0
	for i, score := range scores {
		if score > scores[best] {
			best = i
		}
	}
	return labels[best], scores[best], nil
}

// littleEndian gives numbers their form in raw_input_contents.
func littleEndian(numbers any) []byte {
	raw, err := binary.Append(nil, binary.LittleEndian, numbers)
	if err != nil {
		panic(err) // only for a type without a fixed size
	}
	return raw
}

// float32s reads the numbers of one output.
func float32s(answer *pb.ModelInferResponse, output int) ([]float32, error) {
	if output >= len(answer.RawOutputContents) {
		return nil, errors.New("the answer lacks an output")
	}
	raw := answer.RawOutputContents[output]
	numbers := make([]float32, len(raw)/4)
	_, err := binary.Decode(raw, binary.LittleEndian, numbers)
	return numbers, err
}
