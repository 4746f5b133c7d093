package supervisor

import (
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"

	"github.com/sidecast/sidecast/fault"
)

// sidecarPorts are the ports of one sidecar, each with its key in the run file.
func (a *App) sidecarPorts() map[string]*int {
	ports := map[string]*int{"grpcPort": &a.GRPCPort, "metricsPort": &a.MetricsPort}
	if a.Dapr {
		ports["daprHTTPPort"], ports["daprGRPCPort"] = &a.DaprHTTPPort, &a.DaprGRPCPort
	}
	return ports
}

// assignPorts checks that the ports asked for are free and chooses the others.
func (plan *Plan) assignPorts() error {
	taken := make(map[int]string)
	for i := range plan.Apps {
		ports := plan.Apps[i].sidecarPorts()
		for _, key := range slices.Sorted(maps.Keys(ports)) {
			port := *ports[key]
			if port == 0 {
				continue
			}
			who := plan.label(i) + "." + key
			if other, twice := taken[port]; twice {
				return fault.New("run", fault.PortInUse, "%s and %s are both %d", other, who, port)
			}
			taken[port] = who
			if err := listen(port); err != nil {
				return fault.New("run", fault.PortInUse, "%s: cannot listen on port %d: %w", who, port, err)
			}
		}
	}
	for i := range plan.Apps {
		for key, port := range plan.Apps[i].sidecarPorts() {
			if *port != 0 {
				continue
			}
			free, err := freePort(taken)
			if err != nil {
				return err
			}
			*port, taken[free] = free, plan.label(i)+"."+key
		}
	}
	return nil
}

// Ports are chosen below the ranges from which systems take the ports of outgoing connections (Linux from 32768, others
// from 49152): nobody takes one by chance while its sidecar restarts.
const lowestPort, highestPort = 20000, 32000

// freePort finds a port that nobody listens on and that is not taken.
func freePort(taken map[int]string) (int, error) {
	const ports = highestPort - lowestPort
	first := rand.IntN(ports)
	for i := range ports {
		port := lowestPort + (first+i)%ports
		if taken[port] == "" && listen(port) == nil {
			return port, nil
		}
	}
	return 0, fault.New("run", fault.PortInUse, "no port between %d and %d is free", lowestPort, highestPort)
}

// Free reports whether a loopback port can be listened on now.
func Free(port int) bool { return listen(port) == nil }

// listen reports why a loopback port cannot be listened on.
func listen(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		var opErr *net.OpError
		if errors.As(err, &opErr) {
			return opErr.Err
		}
		return err
	}
	return l.Close()
}
