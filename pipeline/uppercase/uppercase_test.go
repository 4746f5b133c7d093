package uppercase

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/pipeline"
)

func middlewareOf(t *testing.T, direction string) pipeline.Middleware {
	t.Helper()
	b, err := Component.Open(t.Context(), components.Host{}, map[string]string{"direction": direction})
	if err != nil {
		t.Fatal(err)
	}
	return b.(pipeline.Middleware)
}

func TestDirections(t *testing.T) {
	for direction, want := range map[string]string{"request": "ASKED answered", "response": "ASKED ANSWERED", "both": "ASKED ANSWERED"} {
		w := httptest.NewRecorder()
		middlewareOf(t, direction).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "14")
			_, _ = io.Copy(w, r.Body)
			_, _ = io.WriteString(w, " answered")
		})).ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader("asked")))
		if got := w.Body.String(); got != want || (w.Header().Get("Content-Length") == "") != (direction != "request") {
			t.Errorf("%s: %q %v", direction, got, w.Header())
		}
	}
	if _, err := Component.Open(t.Context(), components.Host{}, map[string]string{"direction": "sideways"}); err == nil {
		t.Error("a direction that is none is taken")
	}
}

// However a text is cut into pieces, letters are whole; what is no text stays as it is.
func TestLettersCutInTwo(t *testing.T) {
	for _, text := range []string{"", "über straße", "😀ciao👩‍👩‍👦‍👦", "a\xff\xc3", "\xe2\x82"} {
		got, err := io.ReadAll(&reader{from: io.NopCloser(iotest.OneByteReader(strings.NewReader(text)))})
		if err != nil || string(got) != capitals([]byte(text)) {
			t.Errorf("%q became %q %v", text, got, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOf(rapid.Byte()).Draw(t, "text")
		cut := rapid.IntRange(0, len(text)).Draw(t, "cut")
		var l letters
		if got := l.take(text[:cut], false) + l.take(text[cut:], false) + l.take(nil, true); got != capitals(text) {
			t.Fatalf("%q, cut at %d, became %q", text, cut, got)
		}
	})
	if got := capitals([]byte("straße é\xff")); got != "STRAßE É\xff" {
		t.Errorf("got %q", got)
	}
}
