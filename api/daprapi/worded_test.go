package daprapi

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/sidecast/sidecast/components"
)

// TestStatusThatAComponentAsksFor: an error is answered as one, whatever number its component gives.
func TestStatusThatAComponentAsksFor(t *testing.T) {
	for asked, want := range map[int]int{-1: 500, 0: 500, 99: 500, 103: 500, 200: 500, 304: 500, 399: 500, 400: 400, 418: 418, 503: 503, 599: 599, 600: 500, 1000: 500} {
		err := fmt.Errorf("get: %w", &components.Worded{HTTP: asked, Tag: "ERR_OWN", Message: "no"})
		for way, p := range map[string]*problem{"alone": inWords(&components.Worded{HTTP: asked}), "within": basic(500, codes.Internal, "ERR_STATE_GET", "failed: %s", err).as(err, "failed: %s")} {
			if p.http != want {
				t.Errorf("%d %s is answered with %d, want %d", asked, way, p.http, want)
			}
		}
	}
}
