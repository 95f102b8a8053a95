package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

type wavFormat struct {
	Encoding, Channels       uint16
	SampleRate, BytesASecond uint32
	BytesAFrame, BitsASample uint16
}

// speechFormat is the only one that the model knows: PCM, mono, 16 kHz, 16 bits.
var speechFormat = wavFormat{1, 1, sampleRate, 2 * sampleRate, 2, 16}

// readWAV gives the samples of a WAV file, from -1 to 1.
func readWAV(file string) ([]float32, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	samples, err := decodeWAV(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return samples, nil
}

func decodeWAV(content []byte) ([]float32, error) {
	if len(content) < 12 || string(content[:4]) != "RIFF" || string(content[8:12]) != "WAVE" {
		return nil, errors.New("not a WAV file")
	}
	var format wavFormat
	for rest := content[12:]; len(rest) >= 8; {
		name, size := string(rest[:4]), int(binary.LittleEndian.Uint32(rest[4:]))
		rest = rest[8:]
		if size > len(rest) {
			return nil, errors.New("the file is cut off")
		}
		switch name {
		case "fmt ":
			if _, err := binary.Decode(rest[:size], binary.LittleEndian, &format); err != nil {
				return nil, err
			}
		case "data":
			if format != speechFormat {
				return nil, errors.New("not 16 kHz, mono, 16 bits")
			}
			return decodePCM(rest[:size]), nil
		}
		rest = rest[min(size+size%2, len(rest)):] // an odd chunk has one byte more behind it
	}
	return nil, errors.New("the file has no samples")
}

func decodePCM(data []byte) []float32 {
	samples := make([]float32, len(data)/2)
	for i := range samples {
		samples[i] = float32(int16(binary.LittleEndian.Uint16(data[2*i:]))) / 32768
	}
	return samples
}
