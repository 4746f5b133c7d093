package pluggable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
)

const (
	// answering is how long a program may take to say what it serves.
	answering = 3 * time.Second
	// mostSockets bounds how many are looked at, atOnce how many at the same time.
	mostSockets = 256
	atOnce      = 32
)

// kinds are the services that make a component.
var kinds = []string{
	proto.StateStore_ServiceDesc.ServiceName, proto.PubSub_ServiceDesc.ServiceName, proto.InputBinding_ServiceDesc.ServiceName,
	proto.OutputBinding_ServiceDesc.ServiceName, proto.SecretStore_ServiceDesc.ServiceName,
}

// more are those that add to one.
var more = []string{
	proto.TransactionalStateStore_ServiceDesc.ServiceName, proto.QueriableStateStore_ServiceDesc.ServiceName,
	proto.TransactionalStoreMultiMaxSize_ServiceDesc.ServiceName,
}

// Discover asks every program in the folder what it serves. What is wrong with one is said once in the log, and keeps
// nobody up: no program has longer than a few seconds to answer. It returns whether anything is known that was not, and
// whether there is something to ask again soon.
func (f *Folder) Discover(ctx context.Context) (changed, again bool) {
	f.turn.Lock()
	defer f.turn.Unlock()
	if _, wrong := f.usable(); wrong != "" {
		f.say(f.dir, "the folder "+wrong)
		return false, false
	}
	files, err := os.ReadDir(f.dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			f.say(f.dir, "cannot be read: "+err.Error())
		}
		return false, false
	}
	if len(files) > mostSockets {
		f.say(f.dir, fmt.Sprintf("holds %d files, of which the first %d are looked at", len(files), mostSockets))
		files = files[:mostSockets]
	}
	f.forget(files)
	var asking sync.WaitGroup
	var mu sync.Mutex
	turns := make(chan struct{}, atOnce)
	for _, file := range files {
		if file.IsDir() {
			continue
		}
		asking.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			c, a := f.look(ctx, file.Name())
			mu.Lock()
			defer mu.Unlock()
			changed, again = changed || c, again || a
		})
	}
	asking.Wait()
	return changed, again
}

// forget what was said of files that are gone.
func (f *Folder) forget(files []fs.DirEntry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.said, func(name, _ string) bool {
		return name != f.dir && !slices.ContainsFunc(files, func(file fs.DirEntry) bool { return file.Name() == name })
	})
}

// look asks the program that listens on a file.
func (f *Folder) look(ctx context.Context, file string) (changed, again bool) {
	socket := filepath.Join(f.dir, file)
	info, err := os.Stat(socket)
	if err != nil {
		return false, false // it is gone
	}
	if info.Mode().Type() != fs.ModeSocket {
		f.say(file, "it is no socket")
		return false, false
	}
	if f.answered(file, info) {
		return false, false
	}
	ctx, cancel := context.WithTimeout(ctx, answering)
	defer cancel()
	services, err := ask(ctx, socket)
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled):
		return false, false
	case ctx.Err() != nil:
		f.say(file, fmt.Sprintf("it does not say within %s what it serves", answering))
		return false, true
	case err != nil:
		f.say(file, err.Error())
		return false, true
	}
	f.mu.Lock()
	f.known[file] = info
	f.mu.Unlock()
	p := &place{socket: socket, name: nameOf(file)}
	for _, service := range services {
		if slices.Contains(kinds, service) || slices.Contains(more, service) {
			p.services = append(p.services, service)
		}
	}
	slices.Sort(p.services)
	if !slices.ContainsFunc(p.services, func(s string) bool { return slices.Contains(kinds, s) }) {
		f.say(file, "it serves no component: its services are "+strings.Join(services, ", "))
		return false, false
	}
	return f.found(file, p), false
}

// answered says whether the program has said what it serves, since it made that socket.
func (f *Folder) answered(file string, info fs.FileInfo) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.known[file]
	return old != nil && os.SameFile(old, info) && old.ModTime().Equal(info.ModTime())
}

// found notes what a program serves.
func (f *Folder) found(file string, p *place) (changed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.said, file)
	if old := f.places[file]; old != nil && old.String() == p.String() {
		return false
	}
	f.places[file] = p
	f.log.Info("a pluggable component was found", "socket", p.socket, "types", p.serves())
	return true
}

// say logs what is wrong with a file, if it was not said before. A program that was found before is away, and its component
// tells.
func (f *Folder) say(file, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.places[file] != nil || f.said[file] == text {
		return
	}
	f.said[file] = text
	f.log.Warn("a file among the sockets of pluggable components is of no use", "socket", filepath.Join(f.dir, strings.TrimPrefix(file, f.dir)), "reason", text)
}

// ask is what a program serves: the list of gRPC's reflection, in either version of it. Their messages are the same.
func ask(ctx context.Context, socket string) ([]string, error) {
	s, err := newSession(socket, "")
	if err != nil {
		return nil, err
	}
	defer s.close()
	var services []string
	for _, version := range []string{"v1", "v1alpha"} {
		services, err = askBy(ctx, s.conn, "/grpc.reflection."+version+".ServerReflection/ServerReflectionInfo")
		if status.Code(err) != codes.Unimplemented {
			break
		}
	}
	switch {
	case status.Code(err) == codes.Unimplemented:
		return nil, errors.New("its program has no gRPC reflection, by which it would say what it serves")
	case err != nil && s.lost.Load() != nil:
		return nil, *s.lost.Load()
	case err != nil:
		return nil, errors.New("its program does not speak gRPC: " + textOf(status.Convert(err), err))
	}
	return services, nil
}

func askBy(ctx context.Context, conn *grpc.ClientConn, method string) ([]string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &reflection.ServerReflection_ServiceDesc.Streams[0], method)
	if err != nil {
		return nil, err
	}
	question := &reflection.ServerReflectionRequest{MessageRequest: &reflection.ServerReflectionRequest_ListServices{ListServices: "*"}}
	var answer reflection.ServerReflectionResponse
	if err := stream.SendMsg(question); err != nil {
		return nil, stream.RecvMsg(&answer) // which has the reason
	}
	if err := stream.RecvMsg(&answer); err != nil {
		return nil, err
	}
	var names []string
	for _, service := range answer.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	return names, nil
}
