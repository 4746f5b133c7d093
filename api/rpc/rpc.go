// Package rpc is what the gRPC front doors have in common: calls are below the traces that their metadata name, and a
// server that closes waits for its calls, but not for ever.
package rpc

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/call"
)

// Context is that of an RPC, below the span that its metadata name. Without a collector it is ctx.
func Context(b *blocks.Blocks, ctx context.Context) context.Context {
	if !b.Traced() { // asked first: what follows allocates
		return ctx
	}
	return b.Under(ctx, Lookup(ctx))
}

// Lookup finds fields of W3C's trace context in the metadata of an RPC, in which a grpc-trace-bin counts before a traceparent.
// Several values are one list.
func Lookup(ctx context.Context) func(key string) string {
	return func(key string) string {
		if key == "traceparent" {
			if parent := binaryParent(ctx); parent != "" {
				return parent
			}
		}
		switch values := metadata.ValueFromIncomingContext(ctx, key); len(values) {
		case 0:
			return ""
		case 1:
			return values[0]
		default:
			return strings.Join(values, ",")
		}
	}
}

func binaryParent(ctx context.Context) string {
	if values := metadata.ValueFromIncomingContext(ctx, call.TraceBin); len(values) > 0 {
		parent, _ := call.TraceParent(values[0])
		return parent
	}
	return ""
}

// Stream is one whose context is Context.
func Stream(b *blocks.Blocks, stream grpc.ServerStream) grpc.ServerStream {
	ctx := stream.Context()
	if under := Context(b, ctx); under != ctx {
		return Within(stream, under)
	}
	return stream
}

// Within is stream with ctx in the place of its own context.
func Within(stream grpc.ServerStream, ctx context.Context) grpc.ServerStream {
	return &within{stream, ctx}
}

type within struct {
	grpc.ServerStream
	ctx context.Context
}

func (w *within) Context() context.Context { return w.ctx }

// Close lets the running calls of a server end until ctx does, and then cuts those that are left.
func Close(ctx context.Context, server *grpc.Server) {
	done := make(chan struct{})
	go func() {
		server.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		server.Stop()
		<-done
	}
}
