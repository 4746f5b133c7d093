package grpcapi

import (
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// uncopied is the size in bytes from which a body is worth the trouble of not copying it.
const uncopied = 64 << 10

// codec is gRPC's own for Protobuf, but for large bodies: the body of a request stays where the message was put together,
// and that of an answer goes out from where it is, instead of being copied once more.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(protocodec.Name)} }

// Marshal implements encoding.CodecV2. The body must not be changed before the message is sent; nobody does.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	answer, ok := v.(*sidecastv1.InvokeResponse)
	if !ok || len(answer.GetData()) < uncopied {
		return c.CodecV2.Marshal(v)
	}
	head, err := proto.Marshal(&sidecastv1.InvokeResponse{
		ContentType: answer.GetContentType(), Metadata: answer.GetMetadata(), HttpStatus: answer.GetHttpStatus(),
	})
	if err != nil {
		return nil, err
	}
	head = protowire.AppendTag(head, dataOf(answer), protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(len(answer.GetData())))
	return mem.BufferSlice{mem.SliceBuffer(head), mem.SliceBuffer(answer.GetData())}, nil
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if data.Len() < uncopied {
		return c.CodecV2.Unmarshal(data, v)
	}
	switch m := v.(type) {
	case *sidecastv1.InvokeRequest:
		return unmarshalAround(data.Materialize(), m, &m.Data)
	case *sidecastv1.PublishRequest:
		return unmarshalAround(data.Materialize(), m, &m.Data)
	}
	return c.CodecV2.Unmarshal(data, v)
}

// unmarshalAround reads m from b, but for its field `data`, which becomes a part of b.
func unmarshalAround(b []byte, m proto.Message, data *[]byte) error {
	field := dataOf(m)
	var body, rest []byte
	for left := b; len(left) > 0; {
		number, kind, n := protowire.ConsumeField(left)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if number == field && kind == protowire.BytesType {
			_, _, tag := protowire.ConsumeTag(left)
			body, _ = protowire.ConsumeBytes(left[tag:]) // the last one counts, as everywhere in Protobuf
		} else {
			rest = append(rest, left[:n]...)
		}
		left = left[n:]
	}
	if err := proto.Unmarshal(rest, m); err != nil {
		return err
	}
	*data = body
	return nil
}

func dataOf(m proto.Message) protowire.Number {
	return m.ProtoReflect().Descriptor().Fields().ByName("data").Number()
}
