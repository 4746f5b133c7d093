package grpcapi

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

func set(key, value string) *sidecastv1.SetRequest {
	return &sidecastv1.SetRequest{Items: []*sidecastv1.Write{{Key: key, Value: []byte(value)}}}
}

func TestWritesExpectWhatTheirETagsSay(t *testing.T) {
	ctx, store := t.Context(), sidecastv1.NewStateClient(start(t, t.TempDir(), "shop", "shop-1").conn)
	if got, err := store.Get(ctx, &sidecastv1.GetRequest{Key: "k"}); err != nil || got.GetFound() || got.GetItem() != nil {
		t.Fatalf("an item that is not there: %v, %v", got, err)
	}
	if _, err := store.Delete(ctx, &sidecastv1.DeleteRequest{Key: "k"}); err != nil {
		t.Fatal(err)
	}
	written, err := store.Set(ctx, set("k", "1"))
	if err != nil {
		t.Fatal(err)
	}
	first, last, unspecified := sidecastv1.Concurrency_CONCURRENCY_FIRST_WRITE, sidecastv1.Concurrency_CONCURRENCY_LAST_WRITE, sidecastv1.Concurrency_CONCURRENCY_UNSPECIFIED
	old := written.GetEtags()[0]
	for _, write := range []struct {
		concurrency sidecastv1.Concurrency
		etag        string
		conflict    bool
	}{
		{first, "", true}, {first, old, false}, {first, old, true}, {unspecified, old, true}, {unspecified, "", false}, {last, old, false},
	} {
		_, err := store.Set(ctx, &sidecastv1.SetRequest{Items: []*sidecastv1.Write{
			{Key: "k", Value: []byte("2"), Etag: write.etag, Concurrency: write.concurrency}, {Key: "other", Value: []byte("x")},
		}})
		if write.conflict != (status.Code(err) == codes.Aborted) || err != nil && !write.conflict {
			t.Errorf("%v with etag %q: %v", write.concurrency, write.etag, err)
		}
	}
	_, err = store.Delete(ctx, &sidecastv1.DeleteRequest{Key: "k", Etag: old})
	wantReason(t, err, fault.ETagMismatch)

	now, err := store.Get(ctx, &sidecastv1.GetRequest{Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	done, err := store.Transact(ctx, &sidecastv1.TransactRequest{Operations: []*sidecastv1.Operation{
		{Op: &sidecastv1.Operation_Expect{Expect: &sidecastv1.Expectation{Key: "k", Etag: now.GetItem().GetEtag()}}},
		{Op: &sidecastv1.Operation_Set{Set: &sidecastv1.Write{Key: "n", Ttl: durationpb.New(time.Hour)}}},
		{Op: &sidecastv1.Operation_Delete{Delete: &sidecastv1.Removal{Key: "other"}}},
		{Op: &sidecastv1.Operation_Expect{Expect: &sidecastv1.Expectation{Key: "absent"}}},
	}})
	if etags := done.GetEtags(); err != nil || len(etags) != 4 || etags[0] != "" || etags[1] == "" || etags[2] != "" || etags[3] != "" {
		t.Errorf("%v, %v", etags, err)
	}
	got, err := store.BatchGet(ctx, &sidecastv1.BatchGetRequest{Keys: []string{"other", "n", "k"}})
	if items := got.GetItems(); err != nil || len(items) != 2 || items[0].GetKey() != "n" || items[1].GetTtl() != nil ||
		items[0].GetTtl().AsDuration() <= 0 || items[0].GetTtl().AsDuration() > time.Hour {
		t.Errorf("%v, %v", items, err)
	}
}

func TestStateRefusesWhatCannotBe(t *testing.T) {
	ctx, store := t.Context(), sidecastv1.NewStateClient(start(t, t.TempDir(), "shop", "shop-1").conn)
	negative := set("k", "v")
	negative.Items[0].Ttl = durationpb.New(-time.Second)
	_, err := store.Set(ctx, negative)
	wantReason(t, err, fault.TTLInvalid)
	_, err = store.Transact(ctx, &sidecastv1.TransactRequest{Operations: []*sidecastv1.Operation{{}}})
	wantReason(t, err, fault.BadRequest)
	_, err = store.BatchGet(ctx, &sidecastv1.BatchGetRequest{Keys: make([]string, 1001)})
	wantReason(t, err, fault.BadRequest)
	_, err = store.Get(ctx, &sidecastv1.GetRequest{StoreName: "nosuch", Key: "k"})
	wantReason(t, err, fault.ComponentNotFound)
	_, err = store.List(ctx, &sidecastv1.ListRequest{PageToken: "never given out"})
	wantReason(t, err, fault.PageInvalid)
}

func TestPagesHoldEveryItemOnce(t *testing.T) {
	ctx, store := t.Context(), sidecastv1.NewStateClient(start(t, t.TempDir(), "shop", "shop-1").conn)
	for i := range 20 {
		if _, err := store.Set(ctx, set(fmt.Sprintf("p/%02d", i), "v")); err != nil {
			t.Fatal(err)
		}
	}
	var keys []string
	for token, pages := "", 0; pages == 0 || token != ""; pages++ {
		page, err := store.List(ctx, &sidecastv1.ListRequest{Prefix: "p/", PageSize: 10, PageToken: token, KeysOnly: true})
		if err != nil || pages > 3 {
			t.Fatalf("page %d: %v", pages, err)
		}
		for _, item := range page.GetItems() {
			keys = append(keys, item.GetKey())
			if len(item.GetValue()) > 0 {
				t.Errorf("%s has a value", item.GetKey())
			}
		}
		token = page.GetNextPageToken()
	}
	if len(keys) != 20 || !slices.IsSorted(keys) {
		t.Errorf("%v", keys)
	}
}

func TestWatchTellsWhatIsThereThenCurrentThenChanges(t *testing.T) {
	s := start(t, t.TempDir(), "shop", "shop-1")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	store := sidecastv1.NewStateClient(s.conn)
	for _, key := range []string{"p/1", "q/1"} {
		if _, err := store.Set(ctx, set(key, "old")); err != nil {
			t.Fatal(err)
		}
	}
	watch, err := store.Watch(ctx, &sidecastv1.StateWatchRequest{Prefix: "p/"})
	if err != nil {
		t.Fatal(err)
	}
	next := func() *sidecastv1.StateWatchResponse {
		t.Helper()
		event, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return event
	}
	if e := next(); e.GetSet().GetKey() != "p/1" || string(e.GetSet().GetValue()) != "old" {
		t.Errorf("first: %v", e)
	}
	if e := next(); !e.GetCurrent() {
		t.Errorf("second: %v", e)
	}
	if _, err := store.Set(ctx, set("p/2", "new")); err != nil {
		t.Fatal(err)
	}
	if e := next(); e.GetSet().GetKey() != "p/2" {
		t.Errorf("third: %v", e)
	}
	if _, err := store.Delete(ctx, &sidecastv1.DeleteRequest{Key: "p/1"}); err != nil {
		t.Fatal(err)
	}
	if e := next(); e.GetDeleted() != "p/1" {
		t.Errorf("fourth: %v", e)
	}
	closing, done := context.WithTimeout(t.Context(), patience)
	defer done()
	within(t, "the stop", func() bool { s.server.Close(closing); return true })
	_, err = watch.Recv()
	wantReason(t, err, fault.Shutdown)
}
