package badgerstore

import (
	"encoding/binary"
	"errors"

	"github.com/sidecast/sidecast/state/etag"
)

// layout is the version of what is described here; Badger keeps it in its manifest and refuses to open another.
//
//	'd' key                → envelope: 1, ETag (8 bytes), expiry in Unix ms or 0 (8 bytes), value
//	'x' expiry (8) key     → ETag (8 bytes); for each item that expires, until an hour later
//	'p' zeros n            → nothing; see ballast.go
//
// Numbers are big endian, so that 'x' entries are in the order of time. Badger's own expiry, which has whole seconds, is
// set a little late on both and only clears up.
const layout = 1

// inline is the length from which Badger keeps an envelope in the value log.
const inline = 256 + envelopeHead + 1

// memtable is the size of Badger's memtables. It bounds a transaction too: Badger takes 15 % of it at once.
const memtable = 4 << 20

const envelopeHead = 17

// lateness is how long the 'x' entry of an item outlives it, for watchers that are behind.
const lateness = 3600

// head is what is known of an item without its value. The zero head is that of an item that does not exist.
type head struct {
	tag     etag.Tag
	expires int64 // Unix ms; 0: never
}

func (h head) live(now int64) bool { return h.tag != 0 && (h.expires == 0 || now < h.expires) }

// clears is when Badger may drop the item, as it counts: in Unix seconds.
func (h head) clears() uint64 {
	if h.expires == 0 {
		return 0
	}
	return uint64(h.expires/1000) + 2
}

func dataKey(key string) []byte {
	b := make([]byte, 1, len(key)+2)
	b[0] = 'd'
	return append(b, key...)
}

func expiryKey(expires int64, key string) []byte {
	b := make([]byte, 1, len(key)+9)
	b[0] = 'x'
	return append(binary.BigEndian.AppendUint64(b, uint64(expires)), key...)
}

// splitExpiryKey is the inverse of expiryKey.
func splitExpiryKey(b []byte) (expires int64, key string) {
	return int64(binary.BigEndian.Uint64(b[1:])), string(b[9:])
}

func envelope(h head, value []byte) []byte {
	b := make([]byte, 1, envelopeHead+len(value))
	b[0] = layout
	b = binary.BigEndian.AppendUint64(b, uint64(h.tag))
	b = binary.BigEndian.AppendUint64(b, uint64(h.expires))
	return append(b, value...)
}

// openEnvelope is the inverse of envelope; value is part of b.
func openEnvelope(b []byte) (h head, value []byte, err error) {
	if len(b) < envelopeHead || b[0] != layout {
		return h, nil, errors.New("the entry is not one that this store wrote")
	}
	h.tag = etag.Tag(binary.BigEndian.Uint64(b[1:]))
	h.expires = int64(binary.BigEndian.Uint64(b[9:]))
	return h, b[envelopeHead:], nil
}
