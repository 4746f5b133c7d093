package actors

import (
	"context"
	"log/slog"
)

// library is a handler for the actor library's own log: what it calls information is of use only to who debugs it.
type library struct{ slog.Handler }

func (h library) Enabled(ctx context.Context, level slog.Level) bool {
	return h.Handler.Enabled(ctx, demoted(level))
}

func (h library) Handle(ctx context.Context, r slog.Record) error {
	r.Level = demoted(r.Level)
	return h.Handler.Handle(ctx, r)
}

func (h library) WithAttrs(attrs []slog.Attr) slog.Handler {
	return library{h.Handler.WithAttrs(attrs)}
}
func (h library) WithGroup(name string) slog.Handler { return library{h.Handler.WithGroup(name)} }

func demoted(level slog.Level) slog.Level {
	if level == slog.LevelInfo {
		return slog.LevelDebug
	}
	return level
}
