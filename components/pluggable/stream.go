package pluggable

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"

	"github.com/sidecast/sidecast/fault"
)

const (
	// roomy is how many bytes of messages are held for a subscription or a binding, smallest what one counts at least: so that
	// neither large nor many small ones fill memory.
	roomy    = 64 << 20
	smallest = 512 << 10
	// farewell is how long a program has to end a stream that it was told the end of.
	farewell = time.Second
)

// room bounds the messages that are at work.
type room struct{ free *semaphore.Weighted }

func newRoom() room { return room{semaphore.NewWeighted(roomy)} }

func weight(size int) int64 { return min(max(int64(size), smallest), roomy) }

// duplex is a stream of a program's messages and of what became of them.
type duplex[Out, In any] interface {
	Send(*Out) error
	Recv() (*In, error)
	CloseSend() error
}

// flow moves the messages of one stream.
type flow[Out, In any] struct {
	stream duplex[Out, In]
	cancel func() // ends the stream at once, whatever is in it
	room   room
	size   func(*In) int
	// take has a message lined up. Wait returns the answer when it was handled, nil for none; then sent is called.
	take func(*In) (wait func() *Out, sent func())

	sending sync.Mutex
}

// run returns an error when the stream has ended by itself; messages that are at work then go on, and busy counts them. When
// ctx ends it takes no more, waits for those at work, and ends the stream in a way that lets the last answers through.
func (f *flow[Out, In]) run(ctx context.Context, busy *sync.WaitGroup) error {
	got, gone := make(chan *In), make(chan struct{})
	failed := make(chan error, 1)
	var receiving sync.WaitGroup
	receiving.Go(func() {
		for {
			m, err := f.stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case got <- m:
			case <-gone:
				return
			}
		}
	})
	defer receiving.Wait()
	defer f.cancel()
	defer close(gone)
	for {
		select {
		case <-ctx.Done():
			f.bye(busy, got, failed)
			return nil
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return errors.New("the program ended the stream")
			}
			return err
		case m := <-got:
			size := weight(f.size(m))
			if f.room.free.Acquire(ctx, size) != nil {
				continue // ctx has ended, and the program has not heard that anybody took it
			}
			wait, sent := f.take(m)
			busy.Go(func() {
				defer f.room.free.Release(size)
				defer sent()
				if answer := wait(); answer != nil {
					f.sending.Lock()
					defer f.sending.Unlock()
					_ = f.stream.Send(answer) // of a stream that is over, the program gives the message out again
				}
			})
		}
	}
}

// bye lets what is at work finish and be answered. What comes meanwhile is not taken.
func (f *flow[Out, In]) bye(busy *sync.WaitGroup, got <-chan *In, failed <-chan error) {
	busy.Wait()
	f.sending.Lock()
	err := f.stream.CloseSend()
	f.sending.Unlock()
	late := time.NewTimer(farewell)
	defer late.Stop()
	for err == nil {
		select {
		case <-got:
		case <-failed:
			return
		case <-late.C:
			return
		}
	}
}

// runner moves the messages of a stream until ctx ends.
type runner func(ctx context.Context) error

// begin opens a stream, which is a call of the link until it has run.
func (l *link) begin(op string, open func(streaming context.Context, cancel func(), conn *grpc.ClientConn) (runner, error)) (runner, error) {
	calling, conn, leave, err := l.enter(context.Background(), op)
	if err != nil {
		return nil, err
	}
	streaming, cancel := context.WithCancel(calling)
	run, err := open(streaming, cancel, conn)
	if err != nil {
		err = l.fault(streaming, op, err)
		cancel()
		leave()
		return nil, err
	}
	return func(ctx context.Context) error {
		defer leave()
		defer cancel()
		if err := run(ctx); err != nil {
			return l.fault(ctx, op, err)
		}
		return nil
	}, nil
}

// stay runs one stream after the other until ctx ends, the given one first, if it is not nil. It fails when the link closes.
func (l *link) stay(ctx context.Context, run runner, begin func() (runner, error)) error {
	said := ""
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		var err error
		if run == nil {
			l.wait(ctx)
			run, err = begin()
		}
		if err == nil {
			began := time.Now()
			err = run(ctx)
			if time.Since(began) > lastPause {
				pause, said = firstPause, ""
			}
		}
		if run = nil; ctx.Err() != nil {
			return nil
		}
		if fault.ReasonOf(err) == fault.Shutdown {
			return err
		}
		level := slog.LevelDebug
		if err.Error() != said {
			level, said = slog.LevelWarn, err.Error()
		}
		l.log.Log(ctx, level, "a stream of a plug-in ended and is opened again", "error", err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}
