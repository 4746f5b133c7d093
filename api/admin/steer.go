package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"

	"github.com/sidecast/sidecast/actors"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/fault"
)

// tokenHeader carries the API token of whoever gives orders, as the metadata of the same name does for the gRPC API.
const tokenHeader = "sidecast-api-token"

// maxOrder bounds the body of an order.
const maxOrder = 64 << 10

// steering takes orders for lanes: POST /lanes with a blocks.Order as JSON.
type steering struct {
	runtime *blocks.Runtime
	token   []byte // SHA-256 of it; nil asks for none
}

func newSteering(o Options) *steering {
	s := &steering{runtime: o.Runtime}
	if o.Token != "" {
		sum := sha256.Sum256([]byte(o.Token))
		s.token = sum[:]
	}
	return s
}

// ServeHTTP obeys one order and answers what it changed.
func (s *steering) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	order, err := s.admit(w, r)
	if err != nil {
		refuse(w, err)
		return
	}
	changes, err := s.runtime.Steer(blocks.Operator{Door: "admin", Peer: r.RemoteAddr, Token: s.token != nil}, order)
	if err != nil {
		refuse(w, err)
		return
	}
	answer(w, http.StatusOK, struct {
		Lane    string          `json:"lane"`
		Changes []actors.Change `json:"changes"`
	}{order.Lane, changes})
}

// admit reads an order from somebody who may give one. Pages in a browser may not, whatever they know: nobody who opens a
// page means to steer a lane by it.
func (s *steering) admit(w http.ResponseWriter, r *http.Request) (order blocks.Order, err error) {
	const op = "steer lane"
	if r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
		return order, fault.E(op, fault.Denied, fault.BadRequest, errors.New("orders are not taken from pages in a browser"))
	}
	given := sha256.Sum256([]byte(r.Header.Get(tokenHeader)))
	if s.token != nil && subtle.ConstantTimeCompare(s.token, given[:]) != 1 {
		return order, fault.New(op, fault.TokenRejected, "the header %q is missing or not the sidecar's API token", tokenHeader)
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return order, fault.New(op, fault.BadRequest, "the content type is %q; an order is application/json", r.Header.Get("Content-Type"))
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOrder))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&order); err != nil {
		return order, fault.New(op, fault.BadRequest, `the body is no order such as {"lane": "app/pricing", "breaker": "open"}: %w`, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return order, fault.New(op, fault.BadRequest, "something follows the order; a request holds one")
	}
	return order, nil
}

// refuse answers an error: the kind as the status, the rest in the body.
func refuse(w http.ResponseWriter, err error) {
	var f *fault.Error
	if !errors.As(err, &f) {
		f = fault.E("", fault.Internal, fault.Defect, err)
	}
	type problem struct {
		Message string       `json:"message"`
		Kind    string       `json:"kind"`
		Reason  fault.Reason `json:"reason"`
	}
	answer(w, f.Kind.HTTP(), map[string]problem{"error": {err.Error(), f.Kind.String(), f.Reason}})
}
