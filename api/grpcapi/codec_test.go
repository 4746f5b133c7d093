package grpcapi

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// What the codec writes and reads is what Protobuf does, whatever the size of the body and the order of the fields.
func TestCodecIsProtobufs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String()
		body := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, rapid.SampledFrom([]int{0, 1, uncopied - 1, uncopied, 3 * uncopied}).Draw(t, "size"))
		metadata := rapid.MapOfN(text, text, 0, 3).Draw(t, "metadata")
		answer := &sidecastv1.InvokeResponse{Data: body, ContentType: text.Draw(t, "type"), Metadata: metadata, HttpStatus: rapid.Int32().Draw(t, "status")}
		written, err := newCodec().Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		var read sidecastv1.InvokeResponse
		if err := proto.Unmarshal(written.Materialize(), &read); err != nil || !proto.Equal(&read, answer) {
			t.Fatalf("read back %v", err)
		}
		for _, request := range []proto.Message{
			&sidecastv1.InvokeRequest{AppId: text.Draw(t, "app"), Method: text.Draw(t, "method"), Data: body, Metadata: metadata, Idempotent: true},
			&sidecastv1.PublishRequest{Topic: text.Draw(t, "topic"), Data: body, Metadata: metadata},
		} {
			b, err := proto.Marshal(request)
			if err != nil {
				t.Fatal(err)
			}
			cut := rapid.IntRange(0, len(b)).Draw(t, "cut")
			got := request.ProtoReflect().New().Interface()
			if err := newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(b[:cut]), mem.SliceBuffer(b[cut:])}, got); err != nil || !proto.Equal(got, request) {
				t.Fatalf("%T came back changed: %v", request, err)
			}
		}
	})
}

func FuzzCodec(f *testing.F) {
	large, _ := proto.Marshal(&sidecastv1.InvokeRequest{AppId: "a", Data: make([]byte, 32)})
	f.Add(large)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var ours, theirs sidecastv1.InvokeRequest
		err := unmarshalAround(b, &ours, &ours.Data)
		want := proto.Unmarshal(b, &theirs)
		if (err == nil) != (want == nil) {
			t.Fatalf("%v, Protobuf says %v", err, want)
		}
		if err == nil && !proto.Equal(&ours, &theirs) {
			t.Fatalf("%v\nProtobuf reads %v", &ours, &theirs)
		}
	})
}
