package chaos

import (
	"bufio"
	"bytes"
	"context"
	_ "embed" // the programs
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Other clients read the same topics by their own code: what they make of
// aborted transactions is what most consumers see.

//go:embed JavaReader.java
var javaReader []byte

//go:embed librdkafka_reader.py
var librdkafkaReader []byte

// Client is another client, as a program that reads and tells.
type Client struct {
	name    string
	command []string // before the program's file
	environ []string // beside that of this process
	program []byte
	file    string
}

// JavaClient reads with the Java client from classPath; command is the java of a
// JDK, since it compiles the program.
func JavaClient(command, classPath string) *Client {
	return &Client{name: "java", command: []string{command, "-Xmx256m", "-cp", classPath}, program: javaReader, file: "JavaReader.java"}
}

// LibrdkafkaClient reads with librdkafka through Python; see package librdkafka
// for what it is given.
func LibrdkafkaClient(python, path string) *Client {
	return &Client{name: "librdkafka", command: []string{python}, environ: []string{"PYTHONPATH=" + path}, program: librdkafkaReader, file: "librdkafka_reader.py"}
}

// runOther reads until ctx has ended.
func (r *Reader) runOther(ctx context.Context, c *Client) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("reader %s: %w", c.name, err)
		}
	}()
	folder, err := os.MkdirTemp("", "outrider-reader-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	source := filepath.Join(folder, c.file)
	if err := os.WriteFile(source, c.program, 0o644); err != nil {
		return err
	}
	isolation := "read_uncommitted"
	if r.cfg.ReadCommitted {
		isolation = "read_committed"
	}
	args := slices.Concat(c.command[1:], []string{source, strings.Join(r.cfg.Brokers, ","), isolation}, r.cfg.Topics)
	cmd := exec.CommandContext(ctx, c.command[0], args...)
	cmd.Env = append(os.Environ(), c.environ...)
	var said bytes.Buffer
	cmd.Stderr = &said
	input, err := cmd.StdinPipe() // held open: its end is the reader's, also when this process dies
	if err != nil {
		return err
	}
	defer func() { _ = input.Close() }()
	output, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	failed := r.takeLines(bufio.NewReaderSize(output, 1<<20))
	ended := cmd.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("%w: %s", errors.Join(failed, ended), said.String())
}

func (r *Reader) takeLines(lines *bufio.Reader) error {
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err
		}
		fields := strings.Fields(line)
		if len(fields) < 4 {
			return fmt.Errorf("line %q", line)
		}
		var numbers [3]int64
		for i := range min(len(numbers), len(fields)-2) {
			if numbers[i], err = strconv.ParseInt(fields[2+i], 10, 64); err != nil {
				return fmt.Errorf("line %.200q: %w", line, err)
			}
		}
		at := Partition{fields[1], int32(numbers[0])}
		switch {
		case fields[0] == "P":
			r.take(nil, map[Partition]int64{at: numbers[1]})
		case fields[0] == "R" && len(fields) >= 7 && len(fields)%2 == 1:
			record := &kgo.Record{Topic: at.Topic, Partition: at.Index, Offset: numbers[1], Timestamp: time.UnixMilli(numbers[2])}
			texts := fields[5:]
			values := make([][]byte, len(texts))
			for i, text := range texts {
				if values[i], err = unText(text); err != nil {
					return fmt.Errorf("line %.200q: %w", line, err)
				}
			}
			record.Key, record.Value = values[0], values[1]
			for i := 2; i < len(values); i += 2 {
				record.Headers = append(record.Headers, kgo.RecordHeader{Key: string(values[i]), Value: values[i+1]})
			}
			r.take([]*kgo.Record{record}, nil)
		default:
			return fmt.Errorf("line %.200q", line)
		}
	}
}

// unText is the inverse of text in JavaReader.java.
func unText(s string) ([]byte, error) {
	switch s {
	case "-":
		return nil, nil
	case "=":
		return []byte{}, nil
	}
	return base64.StdEncoding.DecodeString(s)
}
