package contrib

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"golang.org/x/oauth2"
)

// The library asks for a token with a client that does not wait for ever, and nobody else does.
func TestTokensAreNotWaitedForForEver(t *testing.T) {
	var asking *http.Client
	library := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asking, _ = r.Context().Value(oauth2.HTTPClient).(*http.Client)
			if r.URL.Path != "/none" {
				next.ServeHTTP(w, r)
			}
		})
	}
	handler := answered502(library)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Value(oauth2.HTTPClient) != nil {
			t.Error("what follows asks with the client of the middleware")
		}
		w.WriteHeader(http.StatusTeapot)
	}))
	for path, want := range map[string]int{"/": http.StatusTeapot, "/none": http.StatusBadGateway} {
		asking = nil
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want || asking == nil || asking.Timeout <= 0 {
			t.Errorf("%s: %d, and the client is %+v", path, w.Code, asking)
		}
	}
}
