package supervisor

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFollowParent(t *testing.T) {
	for text := range map[string]bool{
		"":                               true,
		"app 0\ndrain\ndrain\n":          true,
		"noise\napp\napp x\napp -5\n":    true,
		"app 1\n":                        true, // never the group of init
		"drain\n" + "half a line at end": true,
	} {
		var got []string
		FollowParent(strings.NewReader(text), time.Second,
			func() { got = append(got, "drain") }, func() { got = append(got, "gone") })
		if strings.Join(got, " ") != "drain gone" {
			t.Errorf("%.20q: %v, want drain and then gone, each once", text, got)
		}
	}
}

func TestPipeTellsEachStartOfTheSidecar(t *testing.T) {
	var p parentPipe
	read := func() string {
		r, err := p.open()
		if err != nil {
			t.Fatal(err)
		}
		p.tellDrain()
		p.close()
		p.tellDrain() // nobody is there: no matter
		text, err := io.ReadAll(r)
		_ = r.Close()
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	got := []string{read()}
	p.tellApp(42)
	got = append(got, read())
	if want := []string{"app 0\ndrain\n", "app 42\ndrain\n"}; !slices.Equal(got, want) {
		t.Errorf("the sidecar read %q, want %q", got, want)
	}
}
