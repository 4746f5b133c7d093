package blocks

import (
	"testing"

	"github.com/sidecast/sidecast/call"
)

// Lanes count as failures of an app what Dapr does: all but 2xx and 3xx.
func TestFailedStatus(t *testing.T) {
	for status, failed := range map[int]bool{0: false, 101: true, 199: true, 200: false, 204: false, 304: false, 399: false, 400: true, 404: true, 500: true, 599: true} {
		if err := failedStatus("invoke", &call.Response{Status: status}); (err != nil) != failed {
			t.Errorf("%d: %v", status, err)
		}
	}
}
