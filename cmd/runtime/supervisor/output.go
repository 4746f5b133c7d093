package supervisor

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

// Format is how the merged output is written.
type Format string

// The formats.
const (
	// Text is `name | line`.
	Text Format = "text"
	// JSON is one object a line with time, app, source (`app`, `sidecar` or `supervisor`), stream and message.
	JSON Format = "json"
)

// longestLine bounds the memory that one stream can hold. A longer line goes on in the next one.
const longestLine = 16 << 10

const (
	kindApp     = "app"
	kindSidecar = "sidecar"
	kindSelf    = "supervisor"
)

// source is where lines come from.
type source struct {
	app, kind string
	prefix    string // in text
}

// output merges the lines of all children into one writer. A line is written at once and whole.
type output struct {
	mu     sync.Mutex
	w      io.Writer
	format Format
	color  bool
	width  int // of the longest name
}

func newOutput(plan Plan) *output {
	o := &output{w: plan.Out, format: plan.Format, color: plan.Color, width: len("sidecast")}
	for i := range plan.Apps {
		width := len(plan.label(i))
		if !plan.NoSidecars {
			width += len(sidecarMark)
		}
		o.width = max(o.width, width)
	}
	return o
}

// sidecarMark follows the name of an app in the lines of its sidecar.
const sidecarMark = "/sidecar"

// colors are those that read well on light and dark; red and yellow are left to warnings.
var colors = [...]string{"36", "35", "32", "34", "96", "95", "92", "94"}

// source is where the lines of the nth app or of its sidecar come from.
func (o *output) source(label, kind string, nth int) source {
	name := label
	if kind == kindSidecar {
		name += sidecarMark
	}
	prefix := fmt.Sprintf("%-*s |", o.width, name)
	if o.color {
		faint := ""
		if kind == kindSidecar {
			faint = "2;"
		}
		prefix = "\x1b[" + faint + colors[nth%len(colors)] + "m" + prefix + "\x1b[0m"
	}
	return source{app: label, kind: kind, prefix: prefix}
}

// say writes a line of the supervisor itself.
func (o *output) say(format string, args ...any) {
	prefix := fmt.Sprintf("%-*s |", o.width, "sidecast")
	if o.color {
		prefix = "\x1b[1m" + prefix + "\x1b[0m"
	}
	o.line(source{kind: kindSelf, prefix: prefix}, "", []byte(fmt.Sprintf(format, args...)), false)
}

// Voice is what the process of the supervisor logs by itself, as lines of the run. Before and without a run they go to
// standard error. The zero Voice is ready; it may be written to concurrently, whole lines at a time.
type Voice struct{ out atomic.Pointer[output] }

// Write implements io.Writer.
func (v *Voice) Write(p []byte) (int, error) {
	o := v.out.Load()
	if o == nil {
		return os.Stderr.Write(p)
	}
	for line := range bytes.Lines(p) {
		o.say("%s", line)
	}
	return len(p), nil
}

// follow passes on the lines of r until its end.
func (o *output) follow(src source, stream string, r io.Reader) {
	lines := bufio.NewReaderSize(r, longestLine)
	for {
		piece, err := lines.ReadSlice('\n')
		if len(piece) > 0 {
			o.line(src, stream, piece, errors.Is(err, bufio.ErrBufferFull))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// line writes one line, or a piece of one that goes on.
func (o *output) line(src source, stream string, text []byte, goesOn bool) {
	message := o.clean(text)
	var line []byte
	if o.format == JSON {
		line, _ = json.Marshal(struct {
			Time    time.Time `json:"time"`
			App     string    `json:"app,omitempty"`
			Source  string    `json:"source"`
			Stream  string    `json:"stream,omitempty"`
			Message string    `json:"message"`
			GoesOn  bool      `json:"goesOn,omitempty"`
		}{time.Now().UTC(), src.app, src.kind, stream, message, goesOn})
	} else {
		line = append(append([]byte(src.prefix), ' '), message...)
		if goesOn {
			line = append(line, " …"...)
		}
	}
	line = append(line, '\n')
	o.mu.Lock()
	defer o.mu.Unlock()
	_, _ = o.w.Write(line)
}

// clean makes any bytes fit to stand on one line of a terminal: of a line that redraws itself the last state counts,
// colours stay where they can be shown, other control characters and bytes that are not UTF-8 are replaced.
func (o *output) clean(text []byte) string {
	text = bytes.TrimRight(text, "\r\n")
	if at := bytes.LastIndexByte(text, '\r'); at >= 0 {
		text = text[at+1:]
	}
	var b strings.Builder
	for len(text) > 0 {
		if n := styling(text); n > 0 {
			if o.color && o.format != JSON {
				b.Write(text[:n])
			}
			text = text[n:]
			continue
		}
		r, n := utf8.DecodeRune(text)
		if r != '\t' && unicode.IsControl(r) {
			r = utf8.RuneError
		}
		b.WriteRune(r)
		text = text[n:]
	}
	return b.String()
}

// styling is the length of the SGR sequence (ESC [ digits and semicolons m) that text begins with, or 0.
func styling(text []byte) int {
	if !bytes.HasPrefix(text, []byte("\x1b[")) {
		return 0
	}
	for i, c := range text[2:] {
		switch {
		case c == 'm':
			return i + 3
		case (c < '0' || c > '9') && c != ';':
			return 0
		}
	}
	return 0
}

// WantsColor reports whether f is a terminal whose user has not asked for plain text (NO_COLOR, TERM=dumb).
func WantsColor(f *os.File) bool {
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	return isTerminal(f)
}

// isTerminal takes every character device for one: the null device cannot tell the difference.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
