package commands

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecast/sidecast/cmd/runtime/supervisor"
)

const outputFlag = "output"

// outputFormat is the value of -o.
type outputFormat string

const (
	textOutput outputFormat = "text"
	jsonOutput outputFormat = "json"
)

// String, Set and Type make it a flag.
func (f *outputFormat) String() string {
	if *f == "" {
		return string(textOutput)
	}
	return string(*f)
}

// Set takes one of the formats.
func (f *outputFormat) Set(text string) error {
	if text != string(textOutput) && text != string(jsonOutput) {
		return fmt.Errorf("must be text or json")
	}
	*f = outputFormat(text)
	return nil
}

// Type names the values in help.
func (f *outputFormat) Type() string { return "format" }

func (o *options) json() bool { return o.output == jsonOutput }

// printJSON writes one value on one line, for a stream of them.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table writes aligned columns.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, columns ...string) *table {
	t := &table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	t.row(columns...)
	return t
}

func (t *table) row(cells ...string) {
	for i, cell := range cells {
		if cells[i] = cell; cell == "" {
			cells[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t *table) flush() error { return t.w.Flush() }

// terminal is the terminal that the command prints on, or nil.
func terminal(cmd *cobra.Command) *os.File {
	f, ok := cmd.OutOrStdout().(*os.File)
	if !ok {
		return nil
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return f
}

// paint colours text where the user can see and wants it.
func paint(cmd *cobra.Command, code, text string) string {
	if f := terminal(cmd); f == nil || !supervisor.WantsColor(f) {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

const (
	green  = "32"
	yellow = "33"
	red    = "31"
	faint  = "2"
	bold   = "1"
)

// printRaw writes bytes as they are, so that they can be piped; a terminal gets the line ended.
func printRaw(cmd *cobra.Command, data []byte) error {
	if _, err := cmd.OutOrStdout().Write(data); err != nil {
		return err
	}
	if len(data) > 0 && data[len(data)-1] != '\n' && terminal(cmd) != nil {
		fmt.Fprintln(cmd.OutOrStdout())
	}
	return nil
}

// content is bytes in JSON: as they are when they are JSON themselves, as a string when they are text, else in base64
// under another name.
type content struct {
	JSON   json.RawMessage
	Base64 []byte
}

func contentOf(data []byte) content {
	switch {
	case json.Valid(data):
		return content{JSON: data}
	case utf8.Valid(data):
		text, _ := json.Marshal(string(data))
		return content{JSON: text}
	default:
		return content{Base64: data}
	}
}

// preview is the beginning of a value on one line of a table.
func preview(data []byte) string {
	const widest = 60
	if !utf8.Valid(data) {
		return fmt.Sprintf("(%s, binary)", humanize.IBytes(uint64(len(data))))
	}
	text := strings.Map(printable, strings.Join(strings.Fields(string(data)), " "))
	if utf8.RuneCountInString(text) > widest {
		text = string([]rune(text)[:widest-1]) + "…"
	}
	return text
}

// printable keeps what a terminal would obey out of what it is to show.
func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return '·'
}

// ttl is a duration for people; "" when there is none.
func ttl(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	return d.AsDuration().Round(time.Millisecond).String()
}

func age(started time.Time) string {
	if started.IsZero() {
		return ""
	}
	return time.Since(started).Round(time.Second).String()
}

// optional is a duration for the wire; nil for none.
func optional(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
