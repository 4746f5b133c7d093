//go:build all_components

package contrib

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/pipeline"
)

// heavy opens one of the middleware of builds with the tag.
func heavy(ctx context.Context, log *slog.Logger, kind string, settings map[string]string) (pipeline.Middleware, error) {
	for _, c := range heavyMiddleware {
		if c.Type() == "middleware.http."+kind {
			b, err := c.Open(ctx, components.Host{Component: kind, Log: log}, settings)
			if err != nil {
				return nil, err
			}
			return b.(pipeline.Middleware), nil
		}
	}
	panic(kind)
}

// piped is next behind a pipeline of one middleware, as a server has it.
func piped(t *testing.T, m pipeline.Middleware, next http.HandlerFunc) http.Handler {
	source := func(context.Context, pipeline.Handler) (pipeline.Link, error) {
		return pipeline.Link{Middleware: m, Release: func() {}}, nil
	}
	p := pipeline.New("httpPipeline", source, next, discard)
	p.Set([]pipeline.Handler{{Name: "m"}})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := p.Serve(w, r); err != nil {
			t.Error(err)
		}
	})
}

func openGuest(t *testing.T, log *slog.Logger, file string, more map[string]string) *guests {
	t.Helper()
	settings := map[string]string{"url": "file://" + file}
	maps.Copy(settings, more)
	m, err := heavy(t.Context(), log, "wasm", settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m.(*guests)
}

// example is one of the modules that the library comes with, compiled.
func example(t *testing.T, module, path string) string {
	t.Helper()
	folder, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(folder)), filepath.FromSlash(path))
}

const httpWASM = "github.com/http-wasm/http-wasm-host-go"

// retold answers with what it was asked.
func retold(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	_, _ = io.WriteString(w, r.Method+" "+r.URL.RequestURI()+" "+string(body))
}

func got(handler http.Handler, method, target, body string, header ...string) *httptest.ResponseRecorder {
	w, r := httptest.NewRecorder(), httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	handler.ServeHTTP(w, r)
	return w
}

func TestWASMChangesARequest(t *testing.T) {
	rewrite := piped(t, openGuest(t, discard, example(t, "github.com/dapr/components-contrib", "middleware/http/wasm/internal/testdata/rewrite.wasm"), nil), retold)
	router := piped(t, openGuest(t, discard, example(t, httpWASM, "examples/router.wasm"), nil), retold)
	for target, want := range map[string]string{"/v1.0/hi?name=panda": "POST /v1.0/hello?name=teddy body", "/v1.0/other": "POST /v1.0/other body"} {
		if w := got(rewrite, "POST", target, "body"); w.Code != 200 || w.Body.String() != want {
			t.Errorf("%s: %d %q", target, w.Code, w.Body)
		}
	}
	if w := got(router, "PUT", "/host/a?b=c", "body"); w.Body.String() != "PUT /a?b=c body" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}

func TestWASMAnswersARequest(t *testing.T) {
	never := func(http.ResponseWriter, *http.Request) { t.Error("the request went on") }
	router := piped(t, openGuest(t, discard, example(t, httpWASM, "examples/router.wasm"), nil), never)
	if w := got(router, "GET", "/", ""); w.Code != 200 || w.Body.String() != "hello world" || w.Header().Get("Content-Type") != "text/plain" {
		t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
	}
	file := example(t, httpWASM, "examples/auth.wasm")
	if w := got(piped(t, openGuest(t, discard, file, nil), never), "GET", "/", ""); w.Code != 401 || w.Header().Get("WWW-Authenticate") == "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if w := got(piped(t, openGuest(t, discard, file, nil), retold), "GET", "/in", "", "Authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="); w.Body.String() != "GET /in " {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}

// A guest reads both bodies; what follows has the request's all the same.
func TestWASMReadsBodies(t *testing.T) {
	h := piped(t, openGuest(t, discard, example(t, httpWASM, "examples/redact.wasm"), map[string]string{"guestConfig": "secret"}), retold)
	for _, body := range []string{"", "body", strings.Repeat("long ", 9000)} {
		if w := got(h, "POST", "/", body); w.Body.String() != "POST / "+body {
			t.Errorf("%d bytes: %d %.50q", len(body), w.Code, w.Body)
		}
	}
	if w := got(h, "POST", "/", strings.Repeat("more than it can", 1<<13)); w.Code != 500 {
		t.Errorf("got %d", w.Code)
	}
	// A guest that is made for a request, because all others are at work, loses nothing of it.
	var together sync.WaitGroup
	together.Add(4)
	h = piped(t, openGuest(t, discard, example(t, httpWASM, "examples/redact.wasm"), map[string]string{"guestConfig": "secret"}), func(w http.ResponseWriter, r *http.Request) {
		together.Done()
		together.Wait()
		retold(w, r)
	})
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			if w := got(h, "POST", "/", "body"); w.Body.String() != "POST / body" {
				t.Errorf("of four at once: %d %q", w.Code, w.Body)
			}
		})
	}
	running.Wait()
}

// What guests print and log is in the runtime's log, whichever request it is of.
func TestWASMLogs(t *testing.T) {
	var log bytes.Buffer
	lines := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	h := piped(t, openGuest(t, lines, example(t, httpWASM, "examples/log.wasm"), nil), retold)
	if w := got(h, "GET", "/", ""); w.Code != 200 || !strings.Contains(log.String(), `level=INFO msg="hello world"`) {
		t.Errorf("%d, and the log is %q", w.Code, log.String())
	}
	log.Reset()
	lines = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	h = piped(t, openGuest(t, lines, example(t, httpWASM, "internal/test/testdata/error/panic_on_handle_request.wasm"), nil), retold)
	if w := got(h, "GET", "/", ""); w.Code != 500 || !strings.Contains(log.String(), `level=DEBUG msg="wasm stdout: panic!"`) {
		t.Errorf("%d, and the log is %q", w.Code, log.String())
	}
}

// unruly is a module that does with a request what the length of its path says. A guest that has not come to the end of a
// request is spoilt: it traps at the next one.
//
//	(import "http_handler" "get_uri" (func $get_uri (param i32 i32) (result i32)))
//	(import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
//	(memory (export "memory") 1 1)
//	(global $spoilt (mut i32) (i32.const 0))
//	(func (export "handle_request") (result i64) (local $n i32)
//	  (if (global.get $spoilt) (then unreachable))
//	  (global.set $spoilt (i32.const 1))
//	  (local.set $n (call $get_uri (i32.const 0) (i32.const 64)))
//	  (if (i32.eq (local.get $n) (i32.const 5)) (then (loop (br 0))))     ;; /loop
//	  (if (i32.eq (local.get $n) (i32.const 6)) (then unreachable))       ;; /traps
//	  (if (i32.eq (local.get $n) (i32.const 7))                           ;; /change
//	    (then (call $write_body (i32.const 0) (i32.const 0) (local.get $n))))
//	  (if (i32.eq (local.get $n) (i32.const 8)) (then (call $down)))      ;; /descend
//	  (global.set $spoilt (i32.const 0))
//	  (i64.const 1))
//	(func (export "handle_response") (param i32 i32)
//	  (if (i32.eq (call $get_uri (i32.const 0) (i32.const 64)) (i32.const 9)) (then unreachable))) ;; /answered
//	(func $down (call $down))
func unruly(t *testing.T) string {
	section := func(id byte, parts ...string) string {
		all := strings.Join(parts, "")
		if len(all) > 127 {
			t.Fatal("its length takes two bytes")
		}
		return string([]byte{id, byte(len(all))}) + all
	}
	name := func(s string) string { return string([]byte{byte(len(s))}) + s }
	function := func(code string) string { return name(code) }
	length := "\x41\x00\x41\xc0\x00\x10\x00"
	file := filepath.Join(t.TempDir(), "unruly.wasm")
	module := "\x00asm\x01\x00\x00\x00" +
		section(1, "\x05", "\x60\x00\x01\x7e", "\x60\x02\x7f\x7f\x00", "\x60\x02\x7f\x7f\x01\x7f", "\x60\x00\x00", "\x60\x03\x7f\x7f\x7f\x00") +
		section(2, "\x02", name("http_handler"), name("get_uri"), "\x00\x02", name("http_handler"), name("write_body"), "\x00\x04") +
		section(3, "\x03\x00\x01\x03") +
		section(5, "\x01\x01\x01\x01") +
		section(6, "\x01\x7f\x01\x41\x00\x0b") +
		section(7, "\x03", name("memory"), "\x02\x00", name("handle_request"), "\x00\x02", name("handle_response"), "\x00\x03") +
		section(10, "\x03",
			function("\x01\x01\x7f"+"\x23\x00\x04\x40\x00\x0b"+"\x41\x01\x24\x00"+length+"\x21\x00"+
				"\x20\x00\x41\x05\x46\x04\x40\x03\x40\x0c\x00\x0b\x0b"+
				"\x20\x00\x41\x06\x46\x04\x40\x00\x0b"+
				"\x20\x00\x41\x07\x46\x04\x40\x41\x00\x41\x00\x20\x00\x10\x01\x0b"+
				"\x20\x00\x41\x08\x46\x04\x40\x10\x04\x0b"+
				"\x41\x00\x24\x00\x42\x01\x0b"),
			function("\x00"+length+"\x41\x09\x46\x04\x40\x00\x0b\x0b"),
			function("\x00\x10\x04\x0b"))
	if err := os.WriteFile(file, []byte(module), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A guest that traps or never returns fails its own request, and no other; neither shows what happened inside.
func TestWASMOutlivesItsGuests(t *testing.T) {
	g := openGuest(t, discard, unruly(t), nil)
	h := piped(t, g, retold)
	for _, path := range []string{"/loop", "/traps", "/descend"} {
		g.limit = guestTime
		if path == "/loop" {
			g.limit = 20 * time.Millisecond
		}
		if w := got(h, "GET", path, ""); w.Code != 500 || path != "/descend" && w.Body.String() != "the WebAssembly module failed" {
			t.Errorf("%s: %d %q", path, w.Code, w.Body)
		}
		g.limit = guestTime
		if w := got(h, "GET", "/ok", ""); w.Code != 200 || w.Body.String() != "GET /ok " {
			t.Errorf("after %s: %d %q", path, w.Code, w.Body)
		}
	}
	if w := got(h, "GET", "/answered", ""); w.Code != 200 || w.Body.String() != "GET /answered " {
		t.Errorf("an answer that was given: %d %q", w.Code, w.Body)
	}
	if w := got(h, "POST", "/change", "body"); w.Body.String() != "POST /change /change" {
		t.Errorf("a body that was changed: %d %q", w.Code, w.Body)
	}
	g.limit = time.Second
	var all sync.WaitGroup
	for _, path := range strings.Fields("/loop " + strings.Repeat("/ok /traps ", 20)) {
		all.Go(func() {
			if code := got(h, "GET", path, "").Code; (path == "/ok") != (code == 200) {
				t.Errorf("%s beside others: %d", path, code)
			}
		})
	}
	all.Wait()
}

// What follows is not under the guest's clock, and ends with its client; the guest does not swallow its panic.
func TestWASMLeavesWhatFollowsAlone(t *testing.T) {
	file := unruly(t)
	synctest.Test(t, func(t *testing.T) {
		g := openGuest(t, discard, file, nil)
		client, gone := context.WithCancel(t.Context())
		h := piped(t, g, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/panic/panic":
				panic(http.ErrAbortHandler)
			case "/gone/gone/gone":
				gone()
				<-r.Context().Done()
			default:
				time.Sleep(10 * g.limit)
				w.WriteHeader(http.StatusAccepted)
				_ = http.NewResponseController(w).Flush()
			}
			if r.Context().Err() == nil != (r.URL.Path != "/gone/gone/gone") {
				t.Errorf("%s: %v", r.URL.Path, r.Context().Err())
			}
		})
		if w := got(h, "GET", "/slow/slow/slow", ""); w.Code != http.StatusAccepted || !w.Flushed {
			t.Errorf("got %d", w.Code)
		}
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/gone/gone/gone", nil).WithContext(client))
		func() {
			defer func() {
				if v := recover(); v != http.ErrAbortHandler {
					t.Errorf("got %v", v)
				}
			}()
			got(h, "GET", "/panic/panic", "")
		}()
		if g.current == nil {
			t.Error("guests that did not fail were let go of")
		}
	})
}

func TestWASMSaysWhyItDoesNotOpen(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other.wasm")
	if err := os.WriteFile(other, []byte("\x00asm\x01\x00\x00\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{"file:///nowhere.wasm": "nowhere.wasm", "file://" + other: "handle_request", "oci://x/y": "oci"} {
		if _, err := heavy(t.Context(), discard, "wasm", map[string]string{"url": url}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", url, err)
		}
	}
	g := openGuest(t, discard, unruly(t), nil)
	if err := g.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if w := got(piped(t, g, retold), "GET", "/", ""); w.Code != 500 {
		t.Errorf("after its end: %d", w.Code)
	}
}
