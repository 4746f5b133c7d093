// Package rpc is what the gRPC front doors have in common: calls are below the traces that their metadata name, and a
// server that closes waits for its calls, but not for ever.
package rpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	blocks "github.com/sidecast/sidecast/building_blocks"
)

// Context is that of an RPC, below the span that its metadata name. Without a collector it is ctx.
func Context(b *blocks.Blocks, ctx context.Context) context.Context {
	if !b.Traced() { // asked first: what follows allocates
		return ctx
	}
	return b.Under(ctx, func(key string) string {
		if values := metadata.ValueFromIncomingContext(ctx, key); len(values) > 0 {
			return values[0]
		}
		return ""
	})
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
