package badgerdb

import (
	"fmt"
	"strings"
)

// bridge carries Badger's log into the sidecar's, a level down: its infos are of interest to those who debug it.
type bridge struct{ db *DB }

// unflushed starts what Badger logs when it could not flush its value log. It goes on then, and so reports writes as
// committed that are not on the disk. It logs before it reports, in order, so whoever waits for a commit finds the
// database failed. TestAFlushThatFails sees to it that the words are still these.
const unflushed = "Error while curlf sync"

func (b bridge) Errorf(format string, args ...any) {
	text := line(format, args)
	if strings.HasPrefix(text, unflushed) {
		b.db.fail(fmt.Errorf("the value log was not flushed: %s", text))
	}
	b.db.log.Error(text)
}

func (b bridge) Warningf(format string, args ...any) { b.db.log.Warn(line(format, args)) }
func (b bridge) Infof(format string, args ...any)    { b.db.log.Debug(line(format, args)) }
func (b bridge) Debugf(string, ...any)               {} // several lines for each write

func line(format string, args []any) string { return strings.TrimSpace(fmt.Sprintf(format, args...)) }
