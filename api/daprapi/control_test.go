package daprapi

import (
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestMetadataOfTheAppIsBounded(t *testing.T) {
	s := &Server{extended: map[string]string{}}
	refused := func(err error) {
		t.Helper()
		var p *problem
		if !errors.As(err, &p) || p.http != 413 || p.tag != "ERR_METADATA_SET" || status.Code(err) != codes.ResourceExhausted {
			t.Fatalf("not refused as it should be: %v", err)
		}
	}
	large := strings.Repeat("x", maxExtendedBytes/2)
	for _, c := range [][2]string{{"", "ignored"}, {"a", large}, {"a", large + "y"}, {"bytes\xff", "v\xff"}} {
		if err := s.setMetadata(c[0], c[1]); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.extended) != 2 || s.extended["bytes\uFFFD"] != "v\uFFFD" {
		t.Errorf("kept %d entries", len(s.extended))
	}
	refused(s.setMetadata("b", large))
	if err := s.setMetadata("a", "small"); err != nil { // what makes room is always taken
		t.Fatal(err)
	}
	for i := len(s.extended); i < maxExtended; i++ {
		if err := s.setMetadata(strconv.Itoa(i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	refused(s.setMetadata("one more", "v"))
	if err := s.setMetadata("a", "again"); err != nil {
		t.Fatal(err)
	}
	size := 0
	for key, value := range s.extended {
		size += len(key) + len(value)
	}
	if size != s.extendedBytes {
		t.Errorf("%d bytes are counted as %d", size, s.extendedBytes)
	}
}

func TestForcedShutdownAsksItsProcessToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{})
		s := &Server{o: Options{Abort: func() { close(ended) }, Log: slog.New(slog.DiscardHandler)}}
		s.end(true)
		select {
		case <-ended:
			t.Error("the process ends before the answer is sent")
		default:
		}
		<-ended
	})
}
