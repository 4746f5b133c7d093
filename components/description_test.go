package components

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

func TestReference(t *testing.T) {
	var b strings.Builder
	must(t, Reference(&b, testComponents))
	golden(t, "testdata/reference.md", b.String())
}

func TestExamplesAreValid(t *testing.T) {
	for _, c := range testComponents {
		file := filepath.Join(t.TempDir(), "example.yaml")
		must(t, os.WriteFile(file, []byte(c.Describe().Example()), 0o644))
		findings, _ := Lint([]string{file}, testComponents)
		for _, f := range findings {
			t.Error(f)
		}
	}
}

func TestOpenChecksItsMetadata(t *testing.T) {
	_, err := testStore.Open(context.Background(), Host{}, map[string]string{"shard": "3", "PIN": "hunter2"})
	if fault.ReasonOf(err) != fault.BadManifest {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"spec.metadata.dir: state.test needs this string", `did you mean "shards"?`, "the secret value is not"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	b, err := testStore.Open(context.Background(), Host{}, map[string]string{"DIR": "/x", "mode": "SAFE"})
	if err != nil || b.(*fakeStore).config.Mode != "safe" || b.(*fakeStore).config.Shards != 4 {
		t.Errorf("got %+v, %v", b, err)
	}
}

func TestEntriesNeverShowTheirValues(t *testing.T) {
	m := cart(Entry{Key: "password", Value: "hunter2"})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, m) + fmt.Sprintf(verb, &m) + fmt.Sprintf(verb, docs(m)); strings.Contains(text, "hunter2") {
			t.Errorf("%s shows %s", verb, text)
		}
	}
}

func TestWrongTagsPanic(t *testing.T) {
	type open[C any] = func(context.Context, Host, C) (state.Store, error)
	for name, build := range map[string]func(){
		"a type": func() {
			State("x", "", open[struct {
				A []string `meta:"a"`
			}](nil))
		},
		"a default": func() {
			State("x", "", open[struct {
				A int `meta:"a" default:"many"`
			}](nil))
		},
		"a bound": func() {
			State("x", "", open[struct {
				A int `meta:"a" default:"1" min:"2"`
			}](nil))
		},
		"an order": func() {
			State("x", "", open[struct {
				A string `meta:"a" min:"2"`
			}](nil))
		},
		"an option": func() {
			State("x", "", open[struct {
				A string `meta:"a,optional"`
			}](nil))
		},
		"a twin": func() {
			State("x", "", open[struct {
				A, B string `meta:"a"`
			}](nil))
		},
		"unexported": func() {
			State("x", "", open[struct {
				a string `meta:"a"`
			}](nil))
		},
		"common": func() {
			State("x", "", open[struct {
				A string `meta:"keyprefix"`
			}](nil))
		},
		"no struct": func() { State("x", "", open[int](nil)) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("a wrong tag passed")
				}
			}()
			build()
		})
	}
}
