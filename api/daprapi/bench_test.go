package daprapi

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/api/bodies"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/call/grpcweb"
)

// benched is a server of which only the door itself is used.
func benched() *Server {
	return New(Options{
		Blocks: &blocks.Blocks{}, AppID: "caller", Log: slog.New(slog.DiscardHandler), MaxBody: 4 << 20, Bodies: bodies.NewBudget(4 << 20),
		Ready: func() error { return nil }, Usable: func() error { return nil },
	})
}

// nowhere is an answer that nobody reads.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) WriteHeader(int)             {}
func (n nowhere) Write(p []byte) (int, error) { return len(p), nil }

// The way of a request to the handler of its route; an invocation passes all of them.
func BenchmarkDispatch(b *testing.B) {
	handler := benched().http[0].Handler
	r := httptest.NewRequest("GET", "/v1.0/healthz/outbound", nil)
	b.ReportAllocs()
	for b.Loop() {
		handler.ServeHTTP(nowhere{http.Header{}}, r)
	}
}

// What an invocation takes over from its request, and its answer from the app's.
func BenchmarkHeads(b *testing.B) {
	s := benched()
	system := actors.NewSystem(actors.Options{Log: slog.New(slog.DiscardHandler)})
	defer func() { _ = system.Close(context.Background()) }()
	s.o.Blocks = blocks.New(blocks.Deps{System: system})
	r := httptest.NewRequest("POST", "/v1.0/invoke/app/method/x", nil)
	r.Header = http.Header{"User-Agent": {"sdk"}, "Accept-Encoding": {"gzip"}, "Content-Length": {"1024"}, "Content-Type": {"text/plain"}, "Traceparent": {"00-1-2-01"}, "X-Request-Id": {"1"}}
	answer := &call.Response{ContentType: "text/plain", Header: call.Header{{Key: "date", Value: "now"}, {Key: "content-length", Value: "1024"}, {Key: "x-request-id", Value: "1"}}}
	b.ReportAllocs()
	for b.Loop() {
		s.forwarded(r.Header, "app", "")
		writeHead(nowhere{http.Header{}}, answer)
	}
}

func BenchmarkWhole(b *testing.B) {
	s := benched()
	body := strings.Repeat("x", 1<<10)
	b.ReportAllocs()
	for b.Loop() {
		r := &http.Request{Body: io.NopCloser(strings.NewReader(body)), ContentLength: 1 << 10}
		share := s.o.Bodies.Open()
		if got, err := s.whole(r.WithContext(share.Context(context.Background()))); err != nil || len(got) != 1<<10 {
			b.Fatal(len(got), err)
		}
		share.Close()
	}
}

// silent is a stream whose messages nobody reads.
type silent struct {
	grpc.ServerStream
	ctx context.Context
}

func (s silent) Context() context.Context { return s.ctx }
func (s silent) SendMsg(any) error        { return nil }

// An answer of one message, as its frames come off the fabric, and the metadata of the request.
func BenchmarkProxied(b *testing.B) {
	ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs("dapr-app-id", "app", "user-agent", "sdk", "content-type", "application/grpc", ":authority", "x"))
	message, end := grpcweb.Message(make([]byte, 1<<10)), grpcweb.Trailers{}.Frame()
	b.ReportAllocs()
	for b.Loop() {
		p := proxied{stream: silent{ctx: ctx}, most: 64 << 20}
		incomingHeader(ctx)
		if p.chunk(message) != nil || p.chunk(end) != nil || p.trailers == nil {
			b.Fatal("no end")
		}
	}
}

// What a publication makes of its payload.
func BenchmarkEnvelope(b *testing.B) {
	s := benched()
	header := call.Header{{Key: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	for name, data := range map[string]string{"text/plain": strings.Repeat("x", 1<<10), "application/json": `{"order":"` + strings.Repeat("x", 1<<10) + `","lines":[1,2,3]}`} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := s.envelope("pubsub", "orders", name, []byte(data), nil, header); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
