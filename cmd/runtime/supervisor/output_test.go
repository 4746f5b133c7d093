package supervisor

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestLinesAreNeverMixed(t *testing.T) {
	var b bytes.Buffer
	o := newOutput(Plan{Out: &b, Apps: []App{{ID: "a"}, {ID: "long-name"}}})
	var writers sync.WaitGroup
	for i := range 8 {
		writers.Go(func() {
			text := strings.Repeat(fmt.Sprintf("%d", i), 100) + "\n"
			o.follow(o.source("a", kindApp, i), "stdout", strings.NewReader(strings.Repeat(text, 200)))
		})
	}
	writers.Wait()
	lines := 0
	for line := range strings.Lines(b.String()) {
		lines++
		text := strings.TrimPrefix(strings.TrimSuffix(line, "\n"), "a                 | ")
		if len(text) != 100 || strings.Trim(text, text[:1]) != "" {
			t.Fatalf("a mixed line: %q", line)
		}
	}
	if lines != 1600 {
		t.Errorf("%d lines, want 1600", lines)
	}
}

func TestVoiceSpeaksInLinesOfTheRun(t *testing.T) {
	var b bytes.Buffer
	var v Voice
	v.out.Store(newOutput(Plan{Out: &b, NoSidecars: true, Apps: []App{{ID: "a"}}}))
	text := "level=WARN msg=\"100%\"\nand more\n"
	if n, err := v.Write([]byte(text)); n != len(text) || err != nil {
		t.Errorf("wrote %d, %v", n, err)
	}
	if want := "sidecast | level=WARN msg=\"100%\"\nsidecast | and more\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestColors(t *testing.T) {
	var b bytes.Buffer
	o := newOutput(Plan{Out: &b, Color: true, NoSidecars: true, Apps: []App{{ID: "a"}}})
	o.follow(o.source("a", kindApp, 0), "stdout", strings.NewReader("\x1b[1;31mred\x1b[0m \x1b[2Jgone\n"))
	if want := "\x1b[36ma        |\x1b[0m \x1b[1;31mred\x1b[0m \ufffd[2Jgone\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func FuzzClean(f *testing.F) {
	f.Add([]byte("a\rb\x1b[31mc\x1b[0m\xff\n"), true)
	f.Fuzz(func(t *testing.T, text []byte, color bool) {
		o := &output{color: color, format: Text}
		got := o.clean(text)
		if !utf8.ValidString(got) {
			t.Errorf("%q is not UTF-8", got)
		}
		for _, r := range got {
			if unicode.IsControl(r) && r != '\t' && (r != '\x1b' || !color) {
				t.Errorf("%q holds %q", got, r)
			}
		}
	})
}
