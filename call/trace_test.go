package call

import (
	"encoding/hex"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestTraceContextHasTwoForms(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	const binary = "00000af7651916cd43dd8448eb211c80319c01b7ad6b71692033310201"
	if got, ok := TraceBinary(parent); !ok || hex.EncodeToString([]byte(got)) != binary {
		t.Errorf("%x", got)
	}
	if got, ok := TraceBinary("cc" + parent[2:] + "-later"); !ok || hex.EncodeToString([]byte(got)) != binary { // a version that may have more
		t.Errorf("%x", got)
	}
	plain, _ := hex.DecodeString(binary)
	if got, ok := TraceParent(string(plain[:27])); !ok || got != parent[:53]+"00" {
		t.Errorf("without flags it is %q", got)
	}
	for _, wrong := range []string{
		"", "x", parent[:54], parent + "-x", parent + "x", "ff" + parent[2:], strings.Replace(parent, "0af7", "0xf7", 1), strings.ReplaceAll(parent, "-", "_"),
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
	} {
		if got, ok := TraceBinary(wrong); ok || got != "" {
			t.Errorf("%q is taken as %x", wrong, got)
		}
	}
	for _, wrong := range []string{"", string(plain[:26]), "\x01" + string(plain[1:]), "\x00\x01" + string(plain[2:]), string(make([]byte, 29)), string(plain[:18]) + "\x02" + string(plain[19:])} {
		if got, ok := TraceParent(wrong); ok || got != "" {
			t.Errorf("%x is taken as %q", wrong, got)
		}
	}
}

func TestEveryTraceComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 25, 25).Draw(t, "ids and flags")
		parent := Traceparent(b[:16], b[16:24], b[24])
		binary, ok := TraceBinary(parent)
		if !ok {
			t.Skip("zeros are no trace")
		}
		if back, ok := TraceParent(binary); !ok || back != parent {
			t.Fatalf("%s became %s", parent, back)
		}
	})
}

func FuzzTraceParent(f *testing.F) {
	f.Add("\x00\x00\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c\x01\xb7\xad\x6b\x71\x69\x20\x33\x31\x02\x01")
	f.Fuzz(func(t *testing.T, binary string) {
		parent, ok := TraceParent(binary)
		if _, valid := TraceBinary(parent); ok != valid {
			t.Errorf("%x is %q", binary, parent)
		}
	})
}
