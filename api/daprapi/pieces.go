package daprapi

import (
	"errors"
	"io"
	"sync/atomic"
)

// pieces cuts a body into what each read of it brings. A request may be kept to be sent again, so short reads share a buffer: a
// caller must not fill the memory with buffers that hold a few bytes each.
type pieces struct {
	from  io.Reader
	free  []byte // what follows the last piece in its buffer
	ended error
	whole atomic.Bool // all of the body was read
}

const (
	// buffered is the size of a buffer in bytes, and leastFree what a buffer must have left for another read.
	buffered, leastFree = 32 << 10, 4 << 10
)

// next returns a piece whose capacity is what it takes of its buffer.
func (p *pieces) next() ([]byte, error) {
	if p.ended != nil {
		return nil, p.ended
	}
	if p.free == nil {
		p.free = make([]byte, buffered)
	}
	n, err := p.from.Read(p.free)
	if errors.Is(err, io.EOF) {
		p.whole.Store(true)
	}
	if n == 0 {
		return nil, err
	}
	p.ended = err
	if len(p.free)-n < leastFree {
		last := p.free[:n]
		p.free = nil
		return last, nil
	}
	piece := p.free[:n:n]
	p.free = p.free[n:]
	return piece, nil
}
