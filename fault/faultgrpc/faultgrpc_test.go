package faultgrpc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
)

// crossings are the two ways a fault crosses a process.
var crossings = map[string]func(error) error{
	"status":  func(err error) error { return faultgrpc.From(faultgrpc.Err(err)) },
	"failure": func(err error) error { return faultgrpc.FromProto(faultgrpc.ToProto(err)) },
}

func TestCrossing(t *testing.T) {
	for way, cross := range crossings {
		for _, kind := range fault.Kinds() {
			t.Run(way+"/"+kind.String(), func(t *testing.T) {
				sent := fault.E("invoke pricing/price", kind, "SOLD_OUT", errors.New("nothing left")).With("app", "pricing").After(3 * time.Second)
				var got *fault.Error
				if !errors.As(cross(sent), &got) {
					t.Fatal("no fault arrived")
				}
				if got.Kind != kind || got.Reason != "SOLD_OUT" || got.RetryAfter != 3*time.Second || got.Error() != sent.Error() {
					t.Errorf("sent %+v, got %+v", sent, got)
				}
				if len(got.Meta) != 1 || got.Meta["app"] != "pricing" {
					t.Errorf("facts: %v", got.Meta)
				}
			})
		}
		t.Run(way+"/every reason", func(t *testing.T) {
			for _, entry := range fault.Reasons() {
				got := cross(fault.New("op", entry.Reason, "text"))
				if fault.KindOf(got) != entry.Kind || fault.ReasonOf(got) != entry.Reason || fault.NotSent(got) != entry.NotSent {
					t.Errorf("%s arrived as %v", entry.Reason, got)
				}
			}
		})
		t.Run(way+"/no fault", func(t *testing.T) {
			if cross(nil) != nil {
				t.Error("nil became an error")
			}
			for err, want := range map[error]fault.Reason{
				errors.New("boom"):       fault.Defect,
				context.DeadlineExceeded: fault.DeadlineExceeded,
				context.Canceled:         fault.CallCanceled,
			} {
				got := cross(fmt.Errorf("trying: %w", err))
				if fault.ReasonOf(got) != want || fault.KindOf(got) != want.Kind() || !strings.Contains(got.Error(), err.Error()) {
					t.Errorf("%v arrived as %v", err, got)
				}
			}
		})
		t.Run(way+"/wrapped", func(t *testing.T) {
			got := cross(fmt.Errorf("order 7: %w", fault.New("get", fault.ETagMismatch, "someone was faster")))
			if got.Error() != "order 7: get: someone was faster [ETAG_MISMATCH]" || fault.KindOf(got) != fault.Conflict {
				t.Error(got)
			}
		})
	}
}

func TestForeignStatus(t *testing.T) {
	for code, kind := range map[codes.Code]fault.Kind{
		codes.AlreadyExists: fault.Conflict, codes.FailedPrecondition: fault.Invalid, codes.OutOfRange: fault.Invalid,
		codes.Unauthenticated: fault.Denied, codes.Unknown: fault.Internal, codes.DataLoss: fault.Internal,
		codes.Unavailable: fault.Unavailable, codes.NotFound: fault.NotFound,
	} {
		got := faultgrpc.From(status.Error(code, "theirs"))
		if fault.KindOf(got) != kind || fault.ReasonOf(got) != "" || got.Error() != "theirs" {
			t.Errorf("%s: %v", code, got)
		}
		if back := faultgrpc.Status(status.Error(code, "theirs")); back.Code() != code {
			t.Errorf("%s left as %s", code, back.Code())
		}
	}
	if got := faultgrpc.From(status.Error(codes.DeadlineExceeded, "late")); fault.ReasonOf(got) != fault.DeadlineExceeded {
		t.Error(got)
	}
}

func TestFromLeavesOthersAlone(t *testing.T) {
	own, other := fault.New("op", fault.LockHeld, "x"), errors.New("x")
	if faultgrpc.From(own) != error(own) || faultgrpc.From(other) != other {
		t.Error("changed")
	}
}

// TestBounded holds whatever texts an error has: its status fits into trailers and is valid protobuf.
func TestBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bytes := rapid.SliceOfN(rapid.Byte(), 0, 20_000)
		e := fault.New("op", fault.Defect, "%s", bytes.Draw(t, "text"))
		e.Meta = map[string]string{string(bytes.Draw(t, "key")): string(bytes.Draw(t, "value")), "k": "v"}
		wire, err := proto.Marshal(faultgrpc.Status(e).Proto())
		if err != nil || len(wire) > 6<<10 {
			t.Fatalf("%d bytes: %v", len(wire), err)
		}
		if _, err := proto.Marshal(faultgrpc.ToProto(e)); err != nil {
			t.Fatal(err)
		}
	})
}
