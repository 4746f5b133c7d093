package compat

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/tests/machine"
)

// trailing is an app that tells what followed the request, and has fields follow its answer: one that it announces and one that
// it does not.
func trailing(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "X-Sum")
	if r.URL.Path == "/large" {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	} else {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	}
	w.Header().Set("X-Sum", "sum of "+r.Trailer.Get("Check"))
	w.Header().Set(http.TrailerPrefix+"X-More", strings.Join(r.Trailer.Values("Check"), "+"))
}

// afterwards is a request's body, whose trailer gets its values at the end.
type afterwards struct {
	io.Reader
	trailer http.Header
}

func (a *afterwards) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if err == io.EOF {
		a.trailer["Check"] = []string{"one", "two"}
	}
	return n, err
}

func TestTrailersOfHTTP(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	app := serve(t, http.HandlerFunc(trailing))
	start(t, m, "server", "--app-port", app).await("/v1.0/healthz")
	d := startWith(t, m, endpoint("ext", `spec: {baseUrl: "http://127.0.0.1:`+app+`"}`), "client", "--max-body-size", "16Mi")
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	defer h2.CloseIdleConnections()
	for _, target := range []string{"server", "ext"} {
		for proto, transport := range map[string]http.RoundTripper{"HTTP/1.1": http.DefaultTransport, "HTTP/2.0": h2} {
			for path, size := range map[string]int{"small": 10, "large": 3 << 20} {
				body := strings.Repeat("x", size)
				trailer := http.Header{"Check": nil}
				r, _ := http.NewRequest("POST", "http://"+d.http+"/v1.0/invoke/"+target+"/method/"+path, &afterwards{strings.NewReader(body), trailer})
				r.Trailer = trailer
				response, err := transport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(response.Body)
				response.Body.Close()
				what := fmt.Sprintf("%s to %s of %d bytes", proto, target, size)
				if err != nil || response.StatusCode != 200 || string(got) != body || response.Proto != proto {
					t.Errorf("%s: %s, %d bytes back, %v", what, response.Status, len(got), err)
				}
				if response.Trailer.Get("X-Sum") != "sum of one" || response.Trailer.Get("X-More") != "one+two" || response.Header.Get("X-Sum") != "" {
					t.Errorf("%s: the trailer is %v", what, response.Trailer)
				}
			}
			// A whole call, whose answer alone is followed by fields.
			r, _ := http.NewRequest("GET", "http://"+d.http+"/v1.0/invoke/"+target+"/method/whole", nil)
			response, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.ReadAll(response.Body)
			response.Body.Close()
			if response.Trailer.Get("X-Sum") != "sum of" {
				t.Errorf("%s to %s, whole: the trailer is %v", proto, target, response.Trailer)
			}
		}
	}
	if got := d.do("GET", "/v1.0/invoke/server/method/x", ""); got.header.Get("X-Sum") != "" {
		t.Errorf("the trailer is in the header: %v", got.header)
	}
}

func TestTrailersOfGRPC(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	start(t, m, "grpc-app", "--app-port", grpcApp(t), "--app-protocol", "grpc").await("/v1.0/healthz")
	d := start(t, m, "client")
	client := d.client()
	for method, code := range map[string]codes.Code{"m": codes.OK, "fail": codes.AlreadyExists} {
		var head, trailer metadata.MD
		_, err := client.InvokeService(t.Context(), &runtimev1.InvokeServiceRequest{Id: "grpc-app", Message: &commonv1.InvokeRequest{
			Method: method, HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_POST},
		}}, grpc.Header(&head), grpc.Trailer(&trailer))
		if status.Code(err) != code || fmt.Sprint(head["x-app"]) != "[here]" || fmt.Sprint(trailer["x-tail"]) != "[end]" || fmt.Sprint(trailer["x-raw-bin"]) != fmt.Sprint([]string{"\x00\xff"}) {
			t.Errorf("%s: %v, header %v, trailer %v", method, err, head, trailer)
		}
		if head["x-tail"] != nil {
			t.Errorf("%s: the trailer is in the header", method)
		}
	}
	// Over HTTP they are HTTP's.
	response, err := http.Post("http://"+d.http+"/v1.0/invoke/grpc-app/method/m", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(response.Body)
	response.Body.Close()
	if response.Trailer.Get("X-Tail") != "end" {
		t.Errorf("the trailer is %v", response.Trailer)
	}
}
