package daprapi

import (
	"net"
	"os"
	"strings"
)

// host is this machine as forwarded calls tell of it.
type host struct{ name, address, forwarded string }

// thisHost finds the address by which others reach this machine: DAPR_HOST_IP, or that of the route to the outside, or
// loopback where there is none. Nothing is sent for that.
func thisHost() (h host) {
	defer func() { h.forwarded = h.field() }()
	h = host{address: os.Getenv("DAPR_HOST_IP")}
	h.name, _ = os.Hostname()
	if h.address != "" {
		return h
	}
	h.address = "127.0.0.1"
	for _, outside := range []string{"192.0.2.1:80", "[2001:db8::1]:80"} { // reserved for documentation: RFC 5737, RFC 3849
		conn, err := net.Dial("udp", outside)
		if err != nil {
			continue
		}
		if at, ok := conn.LocalAddr().(*net.UDPAddr); ok {
			h.address = at.IP.String()
		}
		_ = conn.Close()
		return h
	}
	return h
}

// field is the field Forwarded of RFC 7239.
func (h host) field() string {
	address := h.address
	if strings.Contains(address, ":") {
		address = `"[` + address + `]"`
	}
	value := "for=" + address + ";by=" + address
	if h.name != "" {
		value += ";host=" + h.name
	}
	return value
}
