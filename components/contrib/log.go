package contrib

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/dapr/kit/logger"
)

// logs lets the library write to the runtime's log. What it calls information is about its own steps: that is for
// debugging. What it calls fatal would end the process: here it is an error like others.
type logs struct {
	log *slog.Logger
	// seen, if set, is told every error before it is written.
	seen  func(text string)
	lines *lines // nil writes all there is
}

// unheard is for what a component says that is made to be asked about itself.
var unheard = slog.New(slog.DiscardHandler)

// newLogs writes to log. A line that the library repeats, as it does while its server is away, is written once a minute.
func newLogs(log *slog.Logger, seen func(text string)) logs {
	return logs{log: log, seen: seen, lines: &lines{}}
}

var _ logger.Logger = logs{}

func (l logs) write(level slog.Level, text string) {
	if level >= slog.LevelWarn {
		// Who reads from a connection that this program has closed is stopping.
		if strings.Contains(text, errGivenBack.Error()) || strings.Contains(text, net.ErrClosed.Error()) || l.lines.repeat(text, time.Now()) {
			level = slog.LevelDebug
		}
	}
	l.log.Log(context.Background(), level, text)
}

// lines remembers what was written lately.
type lines struct {
	mu   sync.Mutex
	last map[string]time.Time
}

const (
	silent     = time.Minute // between two times that one line is written
	mostRecent = 64          // lines that are remembered
)

// repeat says whether text was written less than a minute before now. If not, it is now.
func (l *lines) repeat(text string, now time.Time) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, known := l.last[text]; known && now.Sub(at) < silent {
		return true
	}
	if l.last == nil || len(l.last) >= mostRecent {
		l.last = make(map[string]time.Time)
	}
	l.last[text] = now
	return false
}

func (l logs) print(level slog.Level, args []any) {
	if l.log.Enabled(context.Background(), level) {
		l.write(level, fmt.Sprint(args...))
	}
}

func (l logs) printf(level slog.Level, format string, args []any) {
	if l.log.Enabled(context.Background(), level) {
		l.write(level, fmt.Sprintf(format, args...))
	}
}

// fail writes an error. The library goes on, one way or another: to the runtime it is a warning.
func (l logs) fail(level slog.Level, text string) {
	l.write(level, text)
	if l.seen != nil {
		l.seen(text)
	}
}

func (l logs) Debug(args ...any)                 { l.print(slog.LevelDebug, args) }
func (l logs) Debugf(format string, args ...any) { l.printf(slog.LevelDebug, format, args) }
func (l logs) Info(args ...any)                  { l.print(slog.LevelDebug, args) }
func (l logs) Infof(format string, args ...any)  { l.printf(slog.LevelDebug, format, args) }
func (l logs) Warn(args ...any)                  { l.print(slog.LevelWarn, args) }
func (l logs) Warnf(format string, args ...any)  { l.printf(slog.LevelWarn, format, args) }
func (l logs) Error(args ...any)                 { l.fail(slog.LevelWarn, fmt.Sprint(args...)) }
func (l logs) Errorf(format string, args ...any) {
	l.fail(slog.LevelWarn, fmt.Sprintf(format, args...))
}
func (l logs) Fatal(args ...any) { l.fail(slog.LevelError, fmt.Sprint(args...)) }
func (l logs) Fatalf(format string, args ...any) {
	l.fail(slog.LevelError, fmt.Sprintf(format, args...))
}

// WithFields returns a logger that writes the fields too.
func (l logs) WithFields(fields map[string]any) logger.Logger {
	for key, value := range fields {
		l.log = l.log.With(key, value)
	}
	return l
}

// The rest of the interface sets up the library's own log, which is not used.

func (l logs) WithLogType(string) logger.Logger                { return l }
func (logs) EnableJSONOutput(bool)                             {}
func (logs) SetAppID(string)                                   {}
func (logs) SetOutputLevel(logger.LogLevel)                    {}
func (logs) SetOutput(io.Writer)                               {}
func (l logs) IsOutputLevelEnabled(level logger.LogLevel) bool { return level != logger.DebugLevel }
